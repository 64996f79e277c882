"""Reads a saga's body before it runs: which steps it uses, and what cannot work, with file and line.

Invariant: what is refused here is wrong on every path that this pass can see; what depends on data is left to the first
run, where it is found before its effect.
"""

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from sagas.model.definition import Declared, Pivot, SagaDef, Step, is_saga, is_step, place_of

RUNNERS = frozenset({"run", "map"})
IMPURE: Mapping[str, str] = {
    "datetime.now": "s.now()",
    "datetime.utcnow": "s.now()",
    "datetime.datetime.now": "s.now()",
    "datetime.datetime.utcnow": "s.now()",
    "date.today": "s.now().date()",
    "time.time": "s.now()",
    "time.time_ns": "s.now()",
    "time.monotonic": "s.now()",
    "time.sleep": "await s.sleep(...)",
    "random.random": "s.random()",
    "random.randint": "s.random()",
    "random.choice": "s.random()",
    "uuid.uuid4": "s.uuid()",
    "uuid4": "s.uuid()",
    "uuid.uuid1": "s.uuid()",
    "open": "a step",
    "input": "a step",
    "os.urandom": "s.random()",
    "secrets.token_hex": "s.uuid()",
    "requests.get": "a step",
    "requests.post": "a step",
}
"""Calls whose answer differs on replay, and what to use instead."""


@attrs.frozen
class Use:
    """One ``s.run(step, ...)``, ``p.run(...)`` or ``s.map(...)`` whose step could be told."""

    what: Declared[..., Any] | SagaDef[..., Any]
    place: str
    in_block: bool
    """Within ``async with s.parallel()`` or ``s.savepoint(...)``, or given to ``p.run`` or ``s.map``."""
    after_pivot: bool
    """Whether the pivot has been passed on every path to here."""


@attrs.frozen
class Scan:
    """What the pass found."""

    uses: tuple[Use, ...]
    faults: tuple[str, ...]
    """What cannot work, each with file and line."""
    warnings: tuple[str, ...]
    """What is suspicious, each with file and line."""

    def declared(self) -> dict[str, Declared[..., Any]]:
        """The steps by name, also those of child sagas."""
        return {use.what.name: use.what for use in self.uses if isinstance(use.what, Declared)}


def scan(definition: SagaDef[..., Any]) -> Scan:
    """Read the body of ``definition`` and of the child sagas it names; empty where there is no source."""
    walker = _Walker()
    walker.walk_saga(definition, in_block=False, passed=False)
    uses, faults = walker.uses, list(walker.faults)
    faults += _lacking(uses)
    faults += _doubled(uses)
    return Scan(tuple(uses), tuple(dict.fromkeys(faults)), tuple(dict.fromkeys(walker.warnings)))


def _lacking(uses: Sequence[Use]) -> list[str]:
    return [
        f"{use.place}: {use.what.what} has no compensation, so a rollback could not undo it. Declare one with "
        f"`@{use.what.name}.compensate`, or say `@step(compensation=None, because=...)`; a step that changes nothing "
        "is a `@lookup`"
        for use in uses
        if isinstance(use.what, Step) and use.what.compensating is None and not use.what.compensated_by_nothing
    ]


def _doubled(uses: Sequence[Use]) -> list[str]:
    """Two steps under one name within a saga: their keys would tell them apart by order alone."""
    found: dict[str, Declared[..., Any]] = {}
    faults: list[str] = []
    for use in uses:
        if not isinstance(use.what, Declared):
            continue
        known = found.setdefault(use.what.name, use.what)
        if known is not use.what:
            faults.append(f"{use.place}: {use.what.what} has the name of {known.what}; give one of them another name=")
    return faults


class _Walker:
    """Follows the statements in order, with the one fact that matters: whether the pivot has been passed."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.faults: list[str] = []
        self.warnings: list[str] = []
        self._within: list[SagaDef[..., Any]] = []
        self._names: Mapping[str, Any] = {}
        self._file = ""
        self._offset = 0

    def walk_saga(self, definition: SagaDef[..., Any], *, in_block: bool, passed: bool) -> bool:
        """Walk a body; whether the pivot has been passed on every path to its end."""
        if definition in self._within or len(self._within) > 20:  # noqa: PLR2004 - deep enough for any tree of sagas
            return passed
        source = _source(definition.body)
        if source is None:
            return passed
        outer = self._names, self._file, self._offset
        tree, self._file, self._offset = source
        self._names = _names(definition.body)
        self._within.append(definition)
        try:
            passed, _ = self._block(tree.body, passed=passed, in_block=in_block)
        finally:
            self._within.pop()
            self._names, self._file, self._offset = outer
        return passed

    def _block(self, body: Sequence[ast.stmt], *, passed: bool, in_block: bool) -> tuple[bool, bool]:
        """Walk statements; whether the pivot is passed at their end, and whether that end is never reached."""
        for statement in body:
            passed, ended = self._statement(statement, passed=passed, in_block=in_block)
            if ended:
                return passed, True
        return passed, False

    def _statement(self, statement: ast.stmt, *, passed: bool, in_block: bool) -> tuple[bool, bool]:
        match statement:
            case ast.If(test=test, body=body, orelse=orelse):
                passed = self._calls(test, passed=passed, in_block=in_block)
                ways = [self._block(part, passed=passed, in_block=in_block) for part in (body, orelse)]
                open_ways = [at_end for at_end, ended in ways if not ended]
                return (all(open_ways), False) if open_ways else (passed, True)
            case ast.For() | ast.AsyncFor() | ast.While():
                self._block(statement.body, passed=passed, in_block=in_block)
                return self._block(statement.orelse, passed=passed, in_block=in_block)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=finalbody):
                return self._try(body, handlers, orelse, finalbody, passed=passed, in_block=in_block)
            case ast.AsyncWith(items=items, body=body) | ast.With(items=items, body=body):
                blocks = any(_is_block(item.context_expr) for item in items)
                return self._block(body, passed=passed, in_block=in_block or blocks)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._block(statement.body, passed=passed, in_block=True)  # a branch, given to p.run
                return passed, False
            case _:
                passed = self._calls(statement, passed=passed, in_block=in_block)
                return passed, isinstance(statement, ast.Return | ast.Raise)

    def _try(
        self,
        body: Sequence[ast.stmt],
        handlers: Sequence[ast.ExceptHandler],
        orelse: Sequence[ast.stmt],
        finalbody: Sequence[ast.stmt],
        *,
        passed: bool,
        in_block: bool,
    ) -> tuple[bool, bool]:
        ways = [self._block([*body, *orelse], passed=passed, in_block=in_block)]
        ways += [self._block(handler.body, passed=passed, in_block=in_block) for handler in handlers]
        open_ways = [at_end for at_end, ended in ways if not ended]
        after = all(open_ways) if open_ways else passed
        at_end, ended = self._block(finalbody, passed=after, in_block=in_block)
        return at_end, ended or not open_ways

    def _calls(self, node: ast.AST, *, passed: bool, in_block: bool) -> bool:
        calls = (found for found in ast.walk(node) if isinstance(found, ast.Call))
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            self._warn(call)
            if isinstance(call.func, ast.Attribute) and call.func.attr in RUNNERS and call.args:
                what = self._runnable(call.args[0])
                in_parallel = in_block or call.func.attr == "map" or self._is_parallel(call.func.value)
                if what is not None:
                    passed = self._use(what, self._place(call), passed=passed, in_block=in_parallel)
        return passed

    def _use(self, what: Declared[..., Any] | SagaDef[..., Any], place: str, *, passed: bool, in_block: bool) -> bool:
        self.uses.append(Use(what, place, in_block, passed))
        if isinstance(what, SagaDef):
            return self.walk_saga(what, in_block=in_block, passed=passed)
        if isinstance(what, Pivot):
            if in_block:
                self.faults.append(
                    f"{place}: the {what.what} is in a parallel block, a map or a savepoint; the pivot runs alone. "
                    "Move it out"
                )
            if passed:
                self.faults.append(
                    f"{place}: {what.what} is a second pivot on this path; a saga has one point of no return"
                )
            return True
        if passed and isinstance(what, Step):
            self.faults.append(
                f"{place}: {what.what} comes after the pivot, where nothing is undone any more. Move it before the "
                "pivot, or declare it @retriable"
            )
        return passed

    def _warn(self, call: ast.Call) -> None:
        name = _dotted(call.func)
        if name in IMPURE and (name != "open" or self._names.get("open", builtins.open) is builtins.open):
            self.warnings.append(
                f"{self._place(call)}: the body calls {name}(), which answers differently when the saga is run again "
                f"from its journal; use {IMPURE[name]}"
            )

    def _runnable(self, node: ast.expr) -> Declared[..., Any] | SagaDef[..., Any] | None:
        """The step or saga that ``node`` names; None where it cannot be told, or is something else."""
        found = self._resolve(node)
        return found if is_step(found) or is_saga(found) else None

    def _resolve(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(id=name):
                return self._names.get(name)
            case ast.Attribute(value=value, attr=attr):
                return getattr(self._resolve(value), attr, None)
            case _:
                return None

    def _is_parallel(self, node: ast.expr) -> bool:
        """Whether ``x`` in ``x.run(...)`` is not the saga itself: then it is a parallel block."""
        return isinstance(node, ast.Name) and node.id != self._saga_name()

    def _saga_name(self) -> str:
        parameters = list(inspect.signature(self._within[-1].body).parameters)
        return parameters[0] if parameters else ""

    def _place(self, node: ast.expr) -> str:
        return f"{self._file}:{node.lineno + self._offset}"


def _source(body: Callable[..., Any]) -> tuple[ast.AsyncFunctionDef, str, int] | None:
    try:
        lines, first = inspect.getsourcelines(body)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None  # typed at a prompt, or generated: the first run will tell
    function = next((node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)), None)
    if function is None:
        return None
    return function, inspect.getsourcefile(body) or place_of(body), first - 1


def _names(body: Callable[..., Any]) -> Mapping[str, Any]:
    """What the names in a body stand for: its globals and what it closes over."""
    function = inspect.unwrap(body)
    names = dict(getattr(function, "__globals__", {}))
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    return names


def _is_block(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr in {"parallel", "savepoint"}


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{_dotted(value)}.{attr}"
        case _:
            return ""
