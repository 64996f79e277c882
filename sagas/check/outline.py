"""The shape of a body written as code, as far as its source shows it: what it runs, and what is decided in between.

Invariant: nothing is guessed. A step that cannot be named, or a function that cannot be followed, is an ``Unreadable``.
"""

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import attrs

from sagas.check.names import MISSING, Helper, Names, Role
from sagas.model.definition import Declared, SagaDef, is_saga, is_step
from sagas.model.graph import NodeKind, kind_of

MOST = 20_000
"""Parts of one outline. A body whose helpers call each other makes more of them than anybody can look at."""
WORDS = 60
"""Characters of an expression that are shown."""


@attrs.frozen(kw_only=True)
class Act:
    """Something that a run has in its journal."""

    key: str
    """The step key, where each act up to here runs once."""
    name: str
    kind: NodeKind
    what: Declared[..., Any] | SagaDef[..., Any] | None = None
    """None for sleeps and callbacks."""
    scope: str = ""
    begins: bool = False
    """Begun by a parallel block, which does not wait for it."""
    said: str = ""
    """How long a sleep takes, as it is written."""


@attrs.frozen
class Unreadable:
    """Something that the source does not show."""

    label: str
    begins: bool = False


@attrs.frozen
class Chain:
    """One after the other."""

    parts: tuple["Part", ...]


@attrs.frozen
class Arm:
    """One way from a choice."""

    label: str
    part: "Part"


@attrs.frozen
class Choice:
    """Exactly one of its arms is taken."""

    label: str
    arms: tuple[Arm, ...]


@attrs.frozen
class Attempt:
    """A ``try``: an exception of its body leads to the arm that catches it."""

    body: "Part"
    arms: tuple[Arm, ...]


@attrs.frozen
class Loop:
    """Any number of rounds; without ``exits`` it ends by ``break`` alone."""

    label: str
    part: "Part"
    exits: bool = attrs.field(kw_only=True)
    otherwise: "Part" = attrs.field(kw_only=True, default=Chain(()))
    """Its ``else``, which a ``break`` leaves out."""


@attrs.frozen
class Each:
    """Once for each item, side by side."""

    part: "Part"


@attrs.frozen
class Block:
    """A parallel block; what it begins, and what runs in it, side by side."""

    part: "Part"


@attrs.frozen
class Save:
    """A savepoint."""

    label: str
    part: "Part"


@attrs.frozen
class Leave:
    """A jump: out of the function, or within its loop."""

    how: Literal["return", "raise", "break", "continue"]
    label: str = ""


@attrs.frozen
class Inner:
    """A function of the body, in the place where it is called: its ``return`` leads to what follows there."""

    part: "Part"
    begins: bool = False


Part = Act | Unreadable | Chain | Choice | Attempt | Loop | Each | Block | Save | Leave | Inner
NOTHING = Chain(())


def outline(definition: SagaDef[..., Any]) -> Part:
    """The outline of a coded saga; one ``Unreadable`` without its source."""
    tree = _tree(definition.body)
    if tree is None:
        return Unreadable("the body has no source")
    try:
        return _Reader(Names.of(definition.body, tree)).block(tree.body)
    except (_TooMuch, RecursionError):
        return Unreadable("the body is too large")


def acts_of(part: Part) -> Iterator[Act | Unreadable]:
    """All acts of an outline, in the order of the source."""
    todo = [part]
    while todo:
        match todo.pop():
            case Act() | Unreadable() as act:
                yield act
            case Chain(parts=parts):
                todo += reversed(parts)
            case Choice(arms=arms):
                todo += [arm.part for arm in reversed(arms)]
            case Attempt(body=body, arms=arms):
                todo += [*(arm.part for arm in reversed(arms)), body]
            case Loop(part=inner, otherwise=otherwise):
                todo += [otherwise, inner]
            case Each(part=inner) | Block(part=inner) | Save(part=inner) | Inner(part=inner):
                todo.append(inner)
            case _:
                pass  # a jump


def _tree(body: Callable[..., Any]) -> ast.AsyncFunctionDef | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(body)))
    except (OSError, TypeError, SyntaxError, IndentationError, RecursionError):
        return None
    return next((node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)), None)


class _TooMuch(Exception):
    """The outline has more parts than anybody can look at."""


class _Reader:
    """Reads one body, and the functions within it where they are called."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._scope = ""
        self._counts: dict[tuple[str, str], int] = {}
        self._following: list[Helper] = []
        self._size = 0

    # -- statements ------------------------------------------------------------------------------------------------

    def block(self, body: Iterable[ast.stmt]) -> Part:
        """One statement after the other, up to one that leaves."""
        found: list[Part] = []
        for statement in body:
            found += self._statement(statement)
            if found and isinstance(found[-1], Leave):
                break
        return _joined(found)

    def _statement(self, node: ast.stmt) -> list[Part]:  # noqa: PLR0911 - an answer for each kind
        match node:
            case ast.If():
                return [*self._expression(node.test), *self._if(node)]
            case ast.For() | ast.AsyncFor() | ast.While():
                return self._loop(node)
            case ast.Try() | ast.TryStar():
                return self._try(node)
            case ast.With() | ast.AsyncWith():
                return self._with(node)
            case ast.Match():
                return [*self._expression(node.subject), *self._match(node)]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return []  # read where it is called
            case ast.Return() | ast.Raise() | ast.Break() | ast.Continue():
                return [*self._parts(node), _leave(node)]
            case _:
                return self._parts(node)

    def _if(self, node: ast.If) -> list[Part]:
        """Each ``elif`` is an arm of its own."""
        arms: list[Arm] = []
        while True:
            arms.append(Arm(_text(node.test), self.block(node.body)))
            match node.orelse:
                case [ast.If() as other] if not _awaits(other.test):
                    node = other
                case others:
                    arms.append(Arm("else", self.block(others)))
                    break
        if all(_is_empty(arm.part) for arm in arms):
            return []
        if len(arms) == 2:  # noqa: PLR2004 - one condition
            return [Choice(arms[0].label, (Arm("yes", arms[0].part), Arm("no", arms[1].part)))]
        return [Choice("", tuple(arms))]

    def _match(self, node: ast.Match) -> list[Part]:
        arms = [Arm(_text(case.pattern), self.block(case.body)) for case in node.cases]
        if node.cases and not _is_wildcard(node.cases[-1]):
            arms.append(Arm("else", NOTHING))
        return [] if all(_is_empty(arm.part) for arm in arms) else [Choice(_text(node.subject), tuple(arms))]

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> list[Part]:
        body, otherwise = self.block(node.body), self.block(node.orelse)
        if not isinstance(node, ast.While):
            label = f"for each {_text(node.target)}"
            return [*self._expression(node.iter), *self._repeated(body, label, otherwise=otherwise)]
        if _awaits(node.test):  # what the test runs is part of each round
            arms = Arm("yes", body), Arm("no", _joined([otherwise, Leave("break")]))
            return self._repeated(
                _joined([*self._expression(node.test), Choice(_text(node.test), arms)]), "", exits=False
            )
        is_endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        return self._repeated(body, f"while {_text(node.test)}", exits=not is_endless, otherwise=otherwise)

    def _repeated(self, body: Part, label: str, *, exits: bool = True, otherwise: Part = NOTHING) -> list[Part]:
        """A loop; one that only begins things in a parallel block is a map."""
        if not _leaves(body) and not any(True for _ in acts_of(body)):
            return [otherwise]
        return [Each(body), otherwise] if is_begun(body) else [Loop(label, body, exits=exits, otherwise=otherwise)]

    def _try(self, node: ast.Try | ast.TryStar) -> list[Part]:
        body = self.block([*node.body, *node.orelse])
        arms = [
            Arm("except" if handler.type is None else f"except {_text(handler.type)}", self.block(handler.body))
            for handler in node.handlers
        ]
        caught = tuple(arm for arm in arms if not isinstance(arm.part, Leave) or arm.part.how != "raise")
        tried = Attempt(body, caught) if caught and not _is_empty(body) else body
        return [tried, self.block(node.finalbody)]

    def _with(self, node: ast.With | ast.AsyncWith) -> list[Part]:
        kind, name = self._opened(node)
        before = [] if kind else [part for item in node.items for part in self._expression(item.context_expr)]
        if kind == "savepoint":
            with self._within(self._key(name)):
                return [Save(name, self.block(node.body))]
        body = self.block(node.body)
        return [*before, Block(body) if kind else body]

    def _opened(self, node: ast.With | ast.AsyncWith) -> tuple[Literal["", "parallel", "savepoint"], str]:
        """Whether a statement opens one of the saga's own blocks, and a savepoint's name."""
        for item in node.items:
            match item.context_expr:
                case ast.Call(func=ast.Attribute(value=owner, attr="parallel" | "savepoint" as kind), args=args):
                    if isinstance(node, ast.AsyncWith) and self._names.role(owner) is Role.SAGA:
                        return ("parallel", "") if kind == "parallel" else ("savepoint", _name(args))
                case _:
                    pass
        return "", ""

    # -- expressions -----------------------------------------------------------------------------------------------

    def _parts(self, node: ast.AST) -> list[Part]:
        return [part for child in ast.iter_child_nodes(node) for part in self._expression(child)]

    def _expression(self, node: ast.AST) -> list[Part]:  # noqa: PLR0911 - an answer for each kind
        """What an expression runs, in the order in which its parts are evaluated."""
        match node:
            case ast.Await(value=ast.Call() as call):
                return self._call(call, awaited=True)
            case ast.Call():
                return self._call(node, awaited=False)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                arms = [Arm("yes", _joined(self._expression(body))), Arm("no", _joined(self._expression(orelse)))]
                return [*self._expression(test), *_choice(_text(test), arms)]
            case ast.BoolOp(values=[first, *others]):
                rest = [part for other in others for part in self._expression(other)]
                return [*self._expression(first), *_choice(_text(first), [Arm("", _joined(rest)), Arm("", NOTHING)])]
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                each = f"for each {_text(node.generators[0].target)}"
                return self._repeated(_joined(self._parts(node)), each)
            case ast.Lambda():
                return []
            case _:
                return self._parts(node)

    def _call(self, node: ast.Call, *, awaited: bool) -> list[Part]:
        """A call: of the saga's own operations, of a function of the body, or of anything else."""
        given = [part for each in (*node.args, *node.keywords) for part in self._expression(each)]
        self._size += 1
        if self._size > MOST:
            raise _TooMuch
        match node.func:
            case ast.Attribute(value=owner, attr=verb) if self._names.role(owner) is not None:
                return [*given, *self._operation(node, verb, begins=self._names.role(owner) is Role.PARALLEL)]
            case ast.Attribute(value=owner):
                return [*self._expression(owner), *given]
            case ast.Name() as named:
                helper = self._names.helper(named)
                if helper is not None:
                    is_run = awaited or not isinstance(helper[0], ast.AsyncFunctionDef)
                    return [*given, *(self._helper(helper, node.args, skip=0) if is_run else [])]
                return [*given, *self._unseen(node)]
            case func:
                return [*self._expression(func), *given, *self._unseen(node)]

    def _unseen(self, node: ast.Call) -> list[Part]:
        """A function of another place that is given the saga: what it runs is not to be seen from here."""
        handed = any(self._names.role(each) is not None for each in node.args)
        return [Unreadable(f"{_text(node.func)}(…)")] if handed else []

    def _operation(self, node: ast.Call, verb: str, *, begins: bool) -> list[Part]:
        match verb, node.args:
            case ("run", [first, *others]):
                return self._run(first, others, begins=begins)
            case ("map", [first, *others]):
                return [Each(_joined(self._run(first, others, begins=False, maps=True)))]
            case ("sleep" | "sleep_until", args):
                return [attrs.evolve(self._act("sleep", "sleep"), said=_span(verb, args))]
            case ("callback", args):
                name = _name(args)
                return [self._act(name, "callback")] if name else [Unreadable("a callback")]
            case _:
                return []

    def _run(self, first: ast.expr, others: Sequence[ast.expr], *, begins: bool, maps: bool = False) -> list[Part]:
        """``run(what, ...)``: a step, a child, or a branch of several steps."""
        what, helper = self._names.what(first), self._names.helper(first)
        if is_step(what) or is_saga(what):
            kind = kind_of(what)
            return [] if kind is None else [self._act(what.name, kind, what, begins=begins)]
        if helper is not None and (begins or maps):
            with self._within(self._key(helper[0].name)):
                return [Inner(_joined(self._helper(helper, [first, *others], skip=1)), begins=begins)]
        unknown = "" if what is MISSING else " is no step"
        return [Unreadable(f"{_text(first)}{unknown}", begins)]

    def _helper(self, helper: tuple[Helper, Names], args: Sequence[ast.expr], *, skip: int) -> list[Part]:
        """A function of the body in the place where it is called; ``skip``: of a branch, whose first is the saga."""
        function, around = helper
        if function in self._following:
            return [Unreadable(f"{function.name} calls itself")]
        parameters = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        roles = dict.fromkeys(parameters[:skip], Role.SAGA)
        for name, given in zip(parameters[skip:], args[skip:], strict=False):
            role = self._names.role(given)
            if role is not None:
                roles[name] = role
        outer, self._names = self._names, around.inside(function, roles)
        self._following.append(function)
        try:
            return [Inner(self.block(function.body))]
        finally:
            self._names = outer
            self._following.pop()

    def _act(self, name: str, kind: NodeKind, what: Any = None, *, begins: bool = False) -> Act:
        return Act(key=self._key(name), name=name, kind=kind, what=what, scope=self._scope, begins=begins)

    def _key(self, name: str) -> str:
        count = self._counts[self._scope, name] = self._counts.get((self._scope, name), 0) + 1
        return f"{self._scope}{name}" if count == 1 else f"{self._scope}{name}#{count}"

    @contextmanager
    def _within(self, key: str) -> Generator[None]:
        """Within a savepoint or a branch, which step keys name."""
        outer, self._scope = self._scope, f"{key}/"
        try:
            yield
        finally:
            self._scope = outer


def _joined(parts: Sequence[Part]) -> Part:
    flat: list[Part] = []
    for part in parts:
        flat += part.parts if isinstance(part, Chain) else [part]
    return flat[0] if len(flat) == 1 else Chain(tuple(flat))


def _choice(label: str, arms: Sequence[Arm]) -> list[Part]:
    return [] if all(_is_empty(arm.part) for arm in arms) else [Choice(label, tuple(arms))]


def _is_empty(part: Part) -> bool:
    """It neither runs anything nor leaves."""
    return part == NOTHING


def is_begun(part: Part) -> bool:
    """Whether all of a part is begun by a parallel block, which goes on at once."""
    match part:
        case Act(begins=begins) | Unreadable(begins=begins) | Inner(begins=begins):
            return begins
        case Chain(parts=parts):
            return bool(parts) and all(map(is_begun, parts))
        case Choice(arms=arms):
            return all(_is_empty(arm.part) or is_begun(arm.part) for arm in arms)
        case Each(part=inner):
            return is_begun(inner)
        case _:
            return False


def _leaves(part: Part, ways: Collection[str] = ("return", "raise")) -> bool:  # noqa: PLR0911 - an answer for each kind
    """Whether a part may leave the function around it."""
    match part:
        case Leave(how=how):
            return how in ways
        case Chain(parts=parts):
            return any(_leaves(each, ways) for each in parts)
        case Choice(arms=arms):
            return any(_leaves(arm.part, ways) for arm in arms)
        case Attempt(body=body, arms=arms):
            return _leaves(body, ways) or any(_leaves(arm.part, ways) for arm in arms)
        case Loop(part=inner) | Block(part=inner) | Save(part=inner):
            return _leaves(inner, ways)
        case Inner(part=inner):
            return _leaves(inner, ("raise",))  # its `return` leaves nothing but itself
        case _:
            return False


def _awaits(node: ast.expr) -> bool:
    return any(isinstance(each, ast.Await) for each in ast.walk(node))


def _leave(node: ast.Return | ast.Raise | ast.Break | ast.Continue) -> Leave:
    match node:
        case ast.Return():
            return Leave("return")
        case ast.Raise(exc=None):
            return Leave("raise")
        case ast.Raise(exc=ast.Call(func=error)) | ast.Raise(exc=ast.expr() as error):
            return Leave("raise", _text(error))
        case ast.Break():
            return Leave("break")
        case _:
            return Leave("continue")


def _is_wildcard(case: ast.match_case) -> bool:
    return case.guard is None and isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


def _name(args: Sequence[ast.expr]) -> str:
    """The name that an operation is given; empty where it is not written there."""
    return args[0].value if args and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str) else ""


def _span(verb: str, args: Sequence[ast.expr]) -> str:
    """The length of a sleep as it is written; a number is one of seconds."""
    if not args:
        return ""
    text = _text(args[0]).removeprefix("datetime.").removeprefix("timedelta")
    is_number = isinstance(args[0], ast.Constant)
    return (
        f"until {text}" if verb == "sleep_until" else f"{text} s" if is_number else text.strip("()").replace("=", " ")
    )


class _Bare(ast.NodeTransformer):
    """Leaves out what a condition says only to Python: ``await``, and ``s.run`` around a step."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        value = self.visit(node.value)
        match value:
            case ast.Call(func=ast.Attribute(attr="run"), args=[first, *_]):
                return first
            case _:
                return value  # type: ignore[no-any-return]


def _text(node: ast.AST) -> str:
    """An expression as it is written, on one line and not too long."""
    text = " ".join(ast.unparse(_Bare().visit(copy.deepcopy(node))).split())
    return text if len(text) <= WORDS else f"{text[: WORDS - 1]}…"
