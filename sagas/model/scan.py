"""Reads a saga's body before it runs: which steps it uses, and what cannot work, with file and line.

Invariant: what is refused here is wrong on every path that this pass can see; what depends on data is left to the first
run, where it is found before its effect.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from durable_core.layer import place_of
from sagas.model.definition import Declared, Pivot, SagaDef, Step, is_saga, is_step
from sagas.model.impure import instead_of
from sagas.model.names import MISSING, Function, Names, Role
from sagas.model.paths import At, Frame, Paths
from sagas.model.soundness import doubts, late, misfits
from sagas.model.worst import Worst

RUNNERS = frozenset({"run", "map"})


@attrs.frozen
class Use:
    """One ``s.run(step, ...)``, ``p.run(...)`` or ``s.map(...)`` whose step could be told."""

    what: Declared[..., Any] | SagaDef[..., Any]
    place: str
    owner: SagaDef[..., Any]
    """The saga in whose body it stands: the one that was read, or a child of it."""
    sure: bool
    """Whether it surely is the saga that runs it, in code that is known to be called."""


@attrs.frozen
class Scan:
    """What the pass found."""

    uses: tuple[Use, ...]
    faults: tuple[str, ...]
    """What cannot work, each with file and line."""
    warnings: tuple[str, ...]
    """What is suspicious, each with file and line."""

    @property
    def sagas(self) -> tuple[SagaDef[..., Any], ...]:
        """The sagas in whose bodies steps were found."""
        return tuple(dict.fromkeys(use.owner for use in self.uses))

    def declared(self, owner: SagaDef[..., Any]) -> dict[str, Declared[..., Any]]:
        """The steps that the body of ``owner`` itself names, by name; without names that stand for two of them."""
        found: dict[str, set[Declared[..., Any]]] = {}
        for use in self.uses:
            if use.owner is owner and isinstance(use.what, Declared):
                found.setdefault(use.what.name, set()).add(use.what)
        return {name: next(iter(steps)) for name, steps in found.items() if len(steps) == 1}


def scan(definition: SagaDef[..., Any]) -> Scan:
    """Read the body of ``definition`` and of the child sagas it names; empty where there is no source."""
    reader = _Reader()
    with suppress(RecursionError):  # nested too deep to be read to its end: what has been read counts
        reader.saga(definition, at=False, in_block=False, sure=True)
    faults = [*reader.faults, *reader.lacking, *_doubled(reader.uses)]
    warnings = [*reader.warnings, *late(definition, Worst(reader.calls, reader.statements))]
    faults += [f"{place_of(definition.body)}: {fault}" for fault in misfits(definition)]
    for use in _firsts(reader.uses):
        faults += [f"{use.place}: {fault}" for fault in misfits(use.what)]
        warnings += [f"{use.place}: {warning}" for warning in doubts(use.what)]
    return Scan(tuple(dict.fromkeys(reader.uses)), tuple(dict.fromkeys(faults)), tuple(dict.fromkeys(warnings)))


def _firsts(uses: Sequence[Use]) -> Sequence[Use]:
    """For each step and child saga the place where it is first seen to run."""
    found: dict[object, Use] = {}
    for use in uses:
        if use.sure:
            found.setdefault(use.what, use)
    return tuple(found.values())


def _doubled(uses: Sequence[Use]) -> list[str]:
    """Two steps under one name within a saga: their keys would tell them apart by order alone."""
    found: dict[tuple[SagaDef[..., Any], str], Declared[..., Any]] = {}
    faults: list[str] = []
    for use in uses:
        if not isinstance(use.what, Declared) or not use.sure:
            continue
        known = found.setdefault((use.owner, use.what.name), use.what)
        if known is not use.what:
            faults.append(f"{use.place}: {use.what.what} has the name of {known.what}; give one of them another name=")
    return faults


class _Reader(Paths):
    """Says what the calls in a body do, and judges the steps that they run."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.faults: list[str] = []
        self.lacking: list[str] = []
        self.warnings: list[str] = []
        self.calls: dict[ast.Call, Declared[..., Any] | SagaDef[..., Any]] = {}
        """What each ``run`` and ``map`` surely runs."""
        self._sources: dict[SagaDef[..., Any], _Source | None] = {}
        self._ends: dict[tuple[object, ...], At] = {}
        """What holds at the end of what was followed; while it is being followed, what held at its beginning."""

    # -- bodies ----------------------------------------------------------------------------------------------------

    def saga(self, definition: SagaDef[..., Any], *, at: At, in_block: bool, sure: bool) -> At:
        """Follow the body of a saga; whether the pivot has been passed on every path to its end."""
        key = (definition, at, in_block, sure)
        if key in self._ends:
            return self._ends[key]
        source = self._source(definition)
        self._ends[key] = at
        if source is not None:
            frame = Frame(
                owner=definition,
                file=source.file,
                offset=source.offset,
                names=Names.of(definition.body, source.tree),
                in_block=in_block,
                sure=sure,
            )
            self._ends[key] = self.function(source.tree.body, frame, at)
        return self._ends[key]

    def _source(self, definition: SagaDef[..., Any]) -> "_Source | None":
        if definition not in self._sources:
            self._sources[definition] = _source(definition.body)
        return self._sources[definition]

    def statements(self, definition: SagaDef[..., Any]) -> Sequence[ast.stmt]:
        """The statements of a saga's body; none where there is no source."""
        source = self._source(definition)
        return () if source is None else source.tree.body

    def _helper(
        self, helper: tuple[Function, Names], roles: Mapping[str, Role], *, at: At, in_block: bool, sure: bool
    ) -> At:
        """Follow a function that is defined in the body, as it is called here."""
        function, around = helper
        names = around.inside(function, roles)
        key = (function, names.roles, at, in_block, sure)
        if key not in self._ends:
            self._ends[key] = at
            body = [ast.Expr(function.body)] if isinstance(function, ast.Lambda) else function.body
            fresh = attrs.evolve(self.frame, names=names, in_block=in_block, sure=sure, returns=[], breaks=[])
            self._ends[key] = self.function(body, fresh, at)
        return self._ends[key]

    def defined(self, function: Function, *, kept: bool) -> None:
        """Collect its steps; where it may be called unseen, judge what is wrong whenever it is."""
        helper = function, self.frame.names
        self._helper(helper, {}, at=False, in_block=False, sure=self.frame.sure and kept)

    def mentioned(self, name: ast.Name) -> None:
        """A helper that is passed around may be called unseen."""
        helper = self.frame.names.helper(name)
        if helper is not None:
            self._helper(helper, {}, at=False, in_block=False, sure=self.frame.sure)

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call, at: At, *, awaited: bool) -> At:
        """Follow a call: of a step, of a helper of the body, or of anything else."""
        names, func = self.frame.names, node.func
        if isinstance(func, ast.Attribute) and func.attr in RUNNERS and node.args and names.what(func.value) is MISSING:
            return self._run(node, func, at, awaited=awaited)
        helper = names.helper(func)
        if helper is not None and _is_run_by_call(helper[0], awaited=awaited):
            at = self.expressions([*node.args, *node.keywords], at)
            roles = _roles(helper[0], node, names)
            return self._helper(helper, roles, at=at, in_block=self.frame.in_block, sure=self.frame.sure)
        at = self.expressions(ast.iter_child_nodes(node), at)
        self._warn(node)
        return at

    def _run(self, node: ast.Call, func: ast.Attribute, at: At, *, awaited: bool) -> At:
        """Follow ``x.run(what, ...)`` or ``x.map(what, ...)``."""
        names, first = self.frame.names, node.args[0]
        role, what, branch = names.role(func.value), names.what(first), names.helper(first)
        in_block = func.attr == "map" or role is Role.PARALLEL
        is_branch = branch is not None and in_block and role is not None
        at = self.expressions([func.value, *node.args[is_branch:], *node.keywords], at)
        if branch is not None and is_branch:
            self._helper(branch, _first(branch[0]), at=at, in_block=True, sure=self.frame.sure)
        if not (is_step(what) or is_saga(what)):
            return at
        frame = attrs.evolve(
            self.frame, in_block=self.frame.in_block or in_block, sure=self.frame.sure and role is not None
        )
        with self.within(frame):
            if self.frame.sure:
                self.calls[node] = what
            after = self._use(what, self._place(node), at, begins=in_block or awaited)
        return at if in_block or role is None else after

    def _use(self, what: Declared[..., Any] | SagaDef[..., Any], place: str, at: At, *, begins: bool) -> At:
        """Note a step or a child saga; what holds after it. One that does not begin here is judged where it does."""
        frame = self.frame
        self.uses.append(Use(what, place, frame.owner, frame.sure))
        if isinstance(what, SagaDef):
            end = self.saga(what, at=begins and at, in_block=begins and frame.in_block, sure=frame.sure)
            return end if begins else at
        if frame.sure:
            self._lack(what, place)
        if not (frame.sure and begins):
            return at
        if isinstance(what, Pivot):
            self._judge_pivot(what, place, at)
            return True
        if at and isinstance(what, Step):
            self.faults.append(
                f"{place}: {what.what} comes after the pivot, where nothing is undone any more. Move it before the "
                "pivot, or declare it @retriable"
            )
        return at

    def _judge_pivot(self, what: Pivot[..., Any], place: str, at: At) -> None:
        if self.frame.in_block:
            self.faults.append(
                f"{place}: the {what.what} is in a parallel block, a map or a savepoint; the pivot runs alone. "
                "Move it out"
            )
        if at:
            self.faults.append(
                f"{place}: {what.what} is a second pivot on this path; a saga has one point of no return"
            )

    def _lack(self, what: Declared[..., Any], place: str) -> None:
        if isinstance(what, Step) and what.compensating is None and not what.compensated_by_nothing:
            self.lacking.append(
                f"{place}: {what.what} has no compensation, so a rollback could not undo it. Declare one with "
                f"`@{what.name}.compensate`, or say `@step(compensation=None, because=...)`; a step that changes "
                "nothing is a `@lookup`"
            )

    def _warn(self, node: ast.Call) -> None:
        instead = instead_of(self.frame.names.what(node.func), len(node.args) + len(node.keywords))
        if instead is not None and self.frame.sure:
            self.warnings.append(
                f"{self._place(node)}: the body calls {ast.unparse(node.func)}(), which answers differently when the "
                f"saga is run again from its journal; use {instead}"
            )

    def _place(self, node: ast.expr) -> str:
        return f"{self.frame.file}:{node.lineno + self.frame.offset}"


@attrs.frozen(eq=False)
class _Source:
    """The text of a body, parsed, and where it stands."""

    tree: ast.AsyncFunctionDef
    file: str
    offset: int


def _source(body: Callable[..., Any]) -> _Source | None:
    try:
        lines, first = inspect.getsourcelines(body)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None  # typed at a prompt, or generated: the first run will tell
    function = next((node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)), None)
    if function is None:
        return None
    return _Source(function, inspect.getsourcefile(body) or place_of(body), first - 1)


def _is_run_by_call(function: Function, *, awaited: bool) -> bool:
    """Whether calling a function of the body runs it there and then."""
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
        return False
    return awaited or not isinstance(function, ast.AsyncFunctionDef)


def _roles(function: Function, node: ast.Call, names: Names) -> dict[str, Role]:
    """The parameters that are given the saga, or a parallel block of it."""
    given: dict[str, ast.expr] = {}
    for parameter, argument in zip(_positional(function), node.args, strict=False):
        if isinstance(argument, ast.Starred):
            break
        given[parameter] = argument
    given.update({keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None})
    roles = {parameter: names.role(argument) for parameter, argument in given.items()}
    return {parameter: role for parameter, role in roles.items() if role is not None}


def _first(function: Function) -> dict[str, Role]:
    """A branch is given the saga first."""
    return dict.fromkeys(_positional(function)[:1], Role.SAGA)


def _positional(function: Function) -> list[str]:
    return [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
