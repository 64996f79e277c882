"""What the names in a saga's body stand for, found without running it.

Invariant: a name is known only if all its bindings are visible and the same. Any other name that the body binds is
data, even if a module has something of that name.
"""

import ast
import builtins
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from types import ClassMethodDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

import attrs

Helper = ast.FunctionDef | ast.AsyncFunctionDef
Function = Helper | ast.Lambda
BY_CLASS = frozenset({staticmethod, classmethod, ClassMethodDescriptorType})
"""Attributes that a class returns in another form than it holds them."""
HOPS = 4
"""How many names are followed from one to the next, as in ``me = s``."""


class Role(Enum):
    """An object that runs steps."""

    SAGA = auto()
    PARALLEL = auto()


class Missing(Enum):
    """Stands for an unknown object."""

    MISSING = auto()


MISSING = Missing.MISSING


@attrs.frozen
class Imported:
    """A name that the body itself imports."""

    what: object


Binding = Role | Imported | Helper | ast.expr | None
"""A runner of steps, an import, a helper defined in the body, another name or ``s.parallel()``; None: data."""


@attrs.frozen(eq=False)
class Names:
    """The names in scope at one place of a body."""

    world: Mapping[str, object]
    """The globals of the body, and its closure."""
    changed: frozenset[str]
    """Attributes that the body assigns, of any object."""
    scopes: tuple[Mapping[str, Binding], ...] = ()
    """The bindings of the functions around the place, the innermost last."""

    @classmethod
    def of(cls, body: Callable[..., Any], tree: ast.AsyncFunctionDef) -> "Names":
        """The names within the body of a saga, whose first parameter is the saga."""
        changed = frozenset(
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and not _is_read(node)
        )
        first = next(iter(inspect.signature(body).parameters.values()), None)
        named = first is not None and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
        return cls(_world(body), changed).inside(tree, {first.name: Role.SAGA} if first and named else {})

    def inside(self, function: Function, roles: Mapping[str, Role]) -> "Names":
        """The names within ``function``, whose parameters have these roles."""
        found: dict[str, list[Binding]] = {}
        for argument in _parameters(function.args):
            found.setdefault(argument, []).append(roles.get(argument))
        for statement in [function.body] if isinstance(function, ast.Lambda) else function.body:
            for name, binding in _bindings(statement, self.world):
                found.setdefault(name, []).append(binding)
        scope = {name: _agreed(bindings) for name, bindings in found.items()}
        return attrs.evolve(self, scopes=(*self.scopes, scope))

    @property
    def roles(self) -> tuple[frozenset[tuple[str, Role]], ...]:
        """The names with a role, in each function around the place."""
        return tuple(
            frozenset((name, binding) for name, binding in scope.items() if isinstance(binding, Role))
            for scope in self.scopes
        )

    @property
    def saga(self) -> str:
        """What the code at the place calls the saga, for messages."""
        every = (name for scope in reversed(self.scopes) for name, binding in scope.items() if binding is Role.SAGA)
        return next(every, "s")

    def what(self, node: ast.expr, hops: int = HOPS) -> object:
        """The object that ``node`` stands for; ``MISSING`` if it is not known."""
        match node:
            case ast.Name(id=name):
                bound, names = self._find(name)
                if names is None:
                    return self.world.get(name, getattr(builtins, name, MISSING))
                if isinstance(bound, Imported):
                    return bound.what
                return names.what(bound, hops - 1) if hops and isinstance(bound, ast.expr) else MISSING
            case ast.Attribute(value=value, attr=attr):
                owner = MISSING if attr in self.changed else self.what(value, hops)
                return MISSING if owner is MISSING else _attribute(owner, attr)
            case _:
                return MISSING

    def role(self, node: ast.expr, hops: int = HOPS) -> Role | None:
        """Whether ``node`` is certainly the saga, or one of its parallel blocks."""
        bound, names = self._find(node.id) if isinstance(node, ast.Name) else (None, None)
        if names is None or not hops or isinstance(bound, Helper):
            return None
        match bound:
            case Role():
                return bound
            case ast.Call(func=ast.Attribute(value=value)):
                return Role.PARALLEL if names.role(value, hops - 1) is Role.SAGA else None
            case ast.expr():
                return names.role(bound, hops - 1)
            case _:
                return None

    def helper(self, node: ast.expr) -> "tuple[Helper, Names] | None":
        """The function of the body that ``node`` names, and the names in scope at its definition."""
        bound, names = self._find(node.id) if isinstance(node, ast.Name) else (None, None)
        return (bound, names) if names is not None and isinstance(bound, Helper) else None

    def _find(self, name: str) -> "tuple[Binding, Names | None]":
        """What binds ``name``, and the names in scope there; no names if the body does not bind it."""
        for depth in range(len(self.scopes), 0, -1):
            if name in self.scopes[depth - 1]:
                return self.scopes[depth - 1][name], attrs.evolve(self, scopes=self.scopes[:depth])
        return None, None


def is_block(node: ast.expr, *kinds: str) -> bool:
    """Whether ``node`` is a call of a method so named, such as ``s.parallel()``."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in kinds


def _world(body: Callable[..., Any]) -> Mapping[str, object]:
    function = inspect.unwrap(body)
    names = dict(getattr(function, "__globals__", {}))
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            names[name] = MISSING  # not assigned yet
    return names


def _attribute(owner: object, name: str) -> object:
    """The attribute, without running a property."""
    if isinstance(owner, ModuleType):
        try:
            return getattr(owner, name, MISSING)  # a module may load its parts on demand
        except ImportError:
            return MISSING
    found: Any = inspect.getattr_static(owner, name, MISSING)
    if isinstance(owner, type) and type(found) in BY_CLASS:
        return found.__get__(None, owner)
    if isinstance(found, MemberDescriptorType) and not isinstance(owner, type):
        with suppress(AttributeError):  # a slot that is empty yet
            return found.__get__(owner)
        return MISSING
    return found


def _agreed(bindings: Sequence[Binding]) -> Binding:
    """The one binding that all of a name's bindings agree on; None if they differ."""
    first = bindings[0]
    return first if all(_key(binding) == _key(first) for binding in bindings[1:]) else None


def _key(binding: Binding) -> object:
    match binding:
        case Imported(what=what):
            return id(what)
        case ast.expr():
            return ast.dump(binding)
        case _:
            return binding


def _bindings(node: ast.AST, world: Mapping[str, object]) -> Iterator[tuple[str, Binding]]:
    """The names that ``node`` and its parts bind in the function around them."""
    pending = [node]
    while pending:
        found, parts = _bound_at(pending.pop(), world)
        yield from found
        pending += parts


def _bound_at(node: ast.AST, world: Mapping[str, object]) -> tuple[list[tuple[str, Binding]], list[ast.AST]]:
    """The names that one node binds, and the parts that may bind more.

    A nested function binds its name, and the names that it declares nonlocal or global. Comprehensions and classes have
    scopes of their own, but their names are treated as the function's, and so as data.
    """
    found: list[tuple[str, Binding]] = [(name, None) for name in _stored(node)]
    parts: list[ast.AST] = []
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            found.append((node.name, None if node.decorator_list else node))
            parts = [*node.decorator_list, node.args]
        case ast.Lambda():
            parts = [node.args]
        case ast.ClassDef():
            found += [(name, None) for part in node.body for name, _ in _bindings(part, world)]
            parts = [*node.decorator_list, *node.bases, *node.keywords]
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute()):
            found.append((name, node.value))
        case ast.withitem(optional_vars=ast.Name(id=name)) if is_block(node.context_expr, "parallel"):
            found.append((name, node.context_expr))
            parts = [node.context_expr]
        case ast.Import() | ast.ImportFrom():
            found += _imports(node, world)
        case _:
            parts = list(ast.iter_child_nodes(node))
    return found, parts


def _stored(node: ast.AST) -> Sequence[str]:  # noqa: PLR0911 - an answer for each kind of expression
    """The names that one node binds, apart from its parts."""
    match node:
        case ast.Name(id=name) if not _is_read(node):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return names
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            inner = (part for part in ast.walk(node) if isinstance(part, ast.Global | ast.Nonlocal))
            return [name for part in inner for name in part.names]
        case ast.ClassDef(name=name):
            return [name]
        case _:
            return []


def _imports(node: ast.Import | ast.ImportFrom, world: Mapping[str, object]) -> Iterator[tuple[str, Binding]]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            top = alias.name.partition(".")[0]
            yield alias.asname or top, _loaded(alias.name if alias.asname else top)
            continue
        origin = _origin(node, str(world.get("__package__") or ""))
        module = _loaded(origin)
        found = MISSING if module is None else _attribute(module.what, alias.name)
        yield alias.asname or alias.name, _loaded(f"{origin}.{alias.name}") if found is MISSING else Imported(found)


def _origin(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that is imported from; it may be relative to ``package``."""
    if not node.level:
        return node.module or ""
    around = package.split(".")
    return ".".join([*around[: len(around) - node.level + 1], *([node.module] if node.module else [])])


def _loaded(module: str) -> Imported | None:
    """The module if it is loaded; nothing is loaded to read a body."""
    found = sys.modules.get(module)
    return None if found is None else Imported(found)


def _parameters(arguments: ast.arguments) -> list[str]:
    rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *rest]]


def _is_read(node: ast.Name | ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load)
