"""Follows the paths through a body in the order in which it runs, and judges the steps on them.

It carries one fact along: whether the pivot has been passed. Invariant: at each place that fact is true only if it is
true on every path to that place; one path that may skip the pivot makes it false.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from durable_core.layer import place_of
from sagas.check.graph import Holds, faults_of
from sagas.check.impure import instead_of
from sagas.check.names import MISSING, Function, Names, Role, is_block
from sagas.model.definition import Declared, Pivot, SagaDef, Step, is_saga, is_step
from sagas.model.graph import GraphDef, Plan

RUNNERS = frozenset({"run", "map"})
AWAITED = frozenset({"run", "map", "sleep", "sleep_until", "callback", "first"})
"""Operations of the saga that do nothing unless they are awaited."""
At = bool | None
"""Whether the pivot has been passed on every path to a place; None if no path leads there."""


@attrs.frozen
class Use:
    """One ``s.run(step, ...)``, ``p.run(...)`` or ``s.map(...)`` whose step is known."""

    what: Declared[..., Any] | SagaDef[..., Any]
    place: str
    owner: SagaDef[..., Any]
    """The saga in whose body it stands: the one that was read, or a child of it."""
    sure: bool
    """Whether it is certain that the saga runs it, in code that is known to be called."""


@attrs.frozen(eq=False, kw_only=True)
class Frame:
    """The function that is being followed."""

    owner: SagaDef[..., Any]
    """The saga to whose body it belongs."""
    file: str
    offset: int
    names: Names
    in_block: bool
    """Within a parallel block, a map or a savepoint."""
    sure: bool
    """Whether it is known to be called, with the saga if it takes one; else its steps are only collected."""
    called: bool = True
    """Whether the body certainly calls it itself; else a step, a thread or nobody may be who does."""
    returns: list[At] = attrs.field(factory=list[At])
    breaks: list[At] = attrs.field(factory=list[At])
    """What holds after each ``break`` of the innermost loop."""


def meet(*ways: At) -> At:
    """What holds where several paths come together."""
    reached = [way for way in ways if way is not None]
    return all(reached) if reached else None


class BodyReader:
    """Reads the bodies of a saga and of its children: their steps, and what cannot work."""

    def __init__(self) -> None:
        self.frame: Frame
        self.uses: list[Use] = []
        self.faults: list[str] = []
        self.hidden = False
        """Whether a body may run steps that are not among ``uses``: they are known only once it does."""
        self.lacking: list[str] = []
        self.warnings: list[str] = []
        self.calls: dict[ast.Call, Declared[..., Any] | SagaDef[..., Any]] = {}
        """The step or saga that each ``run`` and ``map`` certainly runs."""
        self._graphs: dict[GraphDef[...], Plan] = {}
        """The graphs that certainly run, each after those that it runs."""
        self._sources: dict[SagaDef[..., Any], _Source | None] = {}
        self._ends: dict[tuple[object, ...], At] = {}
        """What holds at the end of each function that was followed; at its beginning, while it is being followed."""

    # -- bodies ----------------------------------------------------------------------------------------------------

    def saga(self, definition: SagaDef[..., Any], *, at: At, in_block: bool, sure: bool) -> At:
        """Follow the body of a saga; returns whether the pivot has been passed on every path to its end."""
        key = (definition, at, in_block, sure)
        if key in self._ends:
            return self._ends[key]
        if isinstance(definition, GraphDef):
            self._ends[key] = at
            self._ends[key] = self._graph(definition, at=at, in_block=in_block, sure=sure)
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
            self._ends[key] = self._function(source.tree.body, frame, at)
        else:
            self.hidden = True
        return self._ends[key]

    def _graph(self, definition: GraphDef[...], *, at: At, in_block: bool, sure: bool) -> At:
        """Collect the steps of a graph, and judge it within the saga that runs it."""
        frame = Frame(
            owner=definition,
            file=definition.place,
            offset=0,
            names=Names(world={}, changed=frozenset()),
            in_block=in_block,
            sure=sure,
        )
        plan = self._graphs.get(definition) or Plan.of(definition.nodes)
        with self._within(frame):
            for node in definition.nodes:
                if node.what_runs is not None:
                    passed = bool(at) or node in plan.after
                    # The graph judges its own steps; those of a child, and all of them where it runs in another saga,
                    # are judged as in a body.
                    self._use(node.what_runs, node.place, passed, begins=bool(at) or in_block or node.kind == "child")
        if sure:
            self._graphs.setdefault(definition, plan)
        return at or any(node.when is None for node in plan.pivots)

    def judge_graphs(self) -> None:
        """Judge the graphs that were met; all that they run has been read by now."""
        holds = Holds(pivot=frozenset(self._reaching(Pivot)), undo=frozenset(self._reaching(Step)))
        known: dict[GraphDef[...], float] = {}
        for definition, plan in self._graphs.items():
            self.faults += faults_of(definition, plan, holds, known)

    def _reaching(self, kind: type[Declared[..., Any]]) -> set[object]:
        """The steps of a kind, and the sagas that run one of them, near or far."""
        users: dict[object, list[SagaDef[..., Any]]] = {}
        for use in self.uses:
            users.setdefault(use.what, []).append(use.owner)
        found: set[object] = {what for what in users if isinstance(what, kind)}
        todo = [*found]
        while todo:
            owners = {*users.get(todo.pop(), ())} - found
            found |= owners
            todo += owners
        return found

    def _source(self, definition: SagaDef[..., Any]) -> "_Source | None":
        if definition not in self._sources:
            self._sources[definition] = _source(definition.body)
        return self._sources[definition]

    def statements(self, definition: SagaDef[..., Any]) -> Sequence[ast.stmt]:
        """The statements of a saga's body; none without its source."""
        source = self._source(definition)
        return () if source is None else source.tree.body

    def _helper(
        self,
        helper: tuple[Function, Names],
        roles: Mapping[str, Role],
        *,
        at: At,
        in_block: bool,
        sure: bool,
        called: bool = True,
    ) -> At:
        """Follow a function that is defined in the body, as it is called here."""
        called = called and self.frame.called
        function, around = helper
        names = around.inside(function, roles)
        key = (function, names.roles, at, in_block, sure, called)
        if key not in self._ends:
            self._ends[key] = at
            body = [ast.Expr(function.body)] if isinstance(function, ast.Lambda) else function.body
            fresh = attrs.evolve(
                self.frame, names=names, in_block=in_block, sure=sure, called=called, returns=[], breaks=[]
            )
            self._ends[key] = self._function(body, fresh, at)
        return self._ends[key]

    def _defined(self, function: Function, *, kept: bool) -> None:
        """Collect its steps; if it may be called unseen, judge it for every place."""
        helper = function, self.frame.names
        self._helper(helper, {}, at=False, in_block=False, sure=self.frame.sure and kept, called=False)

    def _mentioned(self, name: ast.Name) -> None:
        """A helper that is passed on may be called unseen."""
        helper = self.frame.names.helper(name)
        if helper is not None:
            self._helper(helper, {}, at=False, in_block=False, sure=self.frame.sure, called=False)

    def _function(self, body: Sequence[ast.stmt], frame: Frame, at: At) -> At:
        """Follow a function from its beginning; returns what holds at its end."""
        with self._within(frame):
            end = self._block(body, at)
        return meet(end, *frame.returns)

    @contextmanager
    def _within(self, frame: Frame) -> Generator[None]:
        """Use another frame within the block."""
        outer = getattr(self, "frame", frame)
        self.frame = frame
        try:
            yield
        finally:
            self.frame = outer

    # -- statements ------------------------------------------------------------------------------------------------

    def _block(self, body: Iterable[ast.stmt], at: At) -> At:
        for statement in body:
            if at is None:
                break
            at = self._statement(statement, at)
        return at

    def _statement(self, node: ast.stmt, at: At) -> At:
        match node:
            case ast.If():
                return self._if(node, at)
            case ast.For() | ast.AsyncFor() | ast.While():
                return self._loop(node, at)
            case ast.Try() | ast.TryStar():
                return self._try(node, at)
            case ast.With() | ast.AsyncWith():
                return self._with(node, at)
            case ast.Match():
                return self._match(node, at)
            case _:
                return self._simple(node, at)

    def _simple(self, node: ast.stmt, at: At) -> At:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                at = self._expressions([*node.decorator_list, node.args], at)
                plain = self.frame.names.helper(ast.Name(node.name, ast.Load()))
                self._defined(node, kept=plain is None or plain[0] is not node)
            case ast.ClassDef():
                at = self._expressions([*node.decorator_list, *node.bases, *node.keywords], at)
                at = self._block(node.body, at)
            case ast.Assign(targets=targets, value=value):
                at = self._expressions([value, *targets], at)
            case ast.Expr(value=ast.Call() as call):
                self._warn_of_dropped(call)
                at = self._expression(call, at)
            case ast.Assert(test=test, msg=message):
                at = self._expression(test, at)
                self._expression(message, at)
            case _:
                at = self._expressions(ast.iter_child_nodes(node), at)
                return self._left(node, at)
        return at

    def _left(self, node: ast.stmt, at: At) -> At:
        """What holds after a statement that may leave the function or loop."""
        if isinstance(node, ast.Return):
            self.frame.returns.append(at)
        elif isinstance(node, ast.Break):
            self.frame.breaks.append(at)
        elif not isinstance(node, ast.Raise | ast.Continue):
            return at
        return None

    def _if(self, node: ast.If, at: At) -> At:
        """Each ``elif`` in turn, however many there are."""
        ways: list[At] = []
        while True:
            at = self._expression(node.test, at)
            known = _constant(node.test)
            if known is not False:
                ways.append(self._block(node.body, at))
            if known is True:
                return meet(*ways)
            match node.orelse:
                case [ast.If() as other]:
                    node = other
                case others:
                    return meet(*ways, self._block(others, at))

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, at: At) -> At:
        """The body may not run at all, and what holds after several rounds held before the first."""
        at = self._expressions([node.test] if isinstance(node, ast.While) else [node.iter, node.target], at)
        known = _constant(node.test) if isinstance(node, ast.While) else None
        breaks: list[At] = []
        if known is not False:
            with self._within(attrs.evolve(self.frame, breaks=breaks)):
                self._block(node.body, at)
        return meet(None if known else self._block(node.orelse, at), *breaks)

    def _try(self, node: ast.Try | ast.TryStar, at: At) -> At:
        """A handler or ``finally`` may be reached before the first step of the body."""
        ways = [self._block(node.orelse, self._block(node.body, at))]
        for handler in node.handlers:
            self._expression(handler.type, at)
            ways.append(self._block(handler.body, at))
        end, last = meet(*ways), self._block(node.finalbody, at)
        return None if end is None or last is None else end or last

    def _with(self, node: ast.With | ast.AsyncWith, at: At) -> At:
        ours = [isinstance(node, ast.AsyncWith) and self._is_block(item.context_expr) for item in node.items]
        for item in node.items:
            at = self._expression(item.optional_vars, self._expression(item.context_expr, at))
        with self._within(attrs.evolve(self.frame, in_block=self.frame.in_block or any(ours))):
            end = self._block(node.body, at)
        return end if all(ours) else at  # any other context manager may swallow the exception of the body's first step

    def _is_block(self, node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and is_block(node, "parallel", "savepoint")
            and self.frame.names.role(node.func.value) is Role.SAGA
        )

    def _match(self, node: ast.Match, at: At) -> At:
        at = self._expression(node.subject, at)
        ways = [self._block(case.body, self._expression(case.guard, at)) for case in node.cases]
        complete = any(case.guard is None and _is_irrefutable(case.pattern) for case in node.cases)
        return meet(*ways, *([] if complete else [at]))

    # -- expressions -----------------------------------------------------------------------------------------------

    def _expressions(self, nodes: Iterable[ast.AST], at: At) -> At:
        """Follow expressions, one after the other."""
        for node in nodes:
            at = self._expression(node, at)
        return at

    def _expression(self, node: ast.AST | None, at: At, *, awaited: bool = False) -> At:
        """Follow an expression in the order in which its parts are evaluated; returns what holds after it."""
        match node:
            case ast.Await(value=value):
                return self._expression(value, at, awaited=True)
            case ast.Call():
                return self._call(node, at, awaited=awaited)
            case ast.IfExp() | ast.BoolOp() | ast.Compare():
                return self._fork(node, at, awaited=awaited)
            case ast.NamedExpr(value=value):
                return self._expression(value, at, awaited=awaited)
            case _:
                return self._plain(node, at)

    def _plain(self, node: ast.AST | None, at: At) -> At:
        match node:
            case None:
                pass
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                at = self._comprehension(node, at)
            case ast.Lambda(args=arguments):
                at = self._expression(arguments, at)
                self._defined(node, kept=True)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    at = self._expression(value, self._expression(key, at))
            case ast.Name():
                self._mentioned(node)
            case _:
                at = self._expressions(ast.iter_child_nodes(node), at)
        return at

    def _fork(self, node: ast.IfExp | ast.BoolOp | ast.Compare, at: At, *, awaited: bool) -> At:
        match node:
            case ast.IfExp(test=test, body=body, orelse=orelse):
                at = self._expression(test, at)
                known = _constant(test)
                ways = [part for part, way in ((body, True), (orelse, False)) if known in (way, None)]
                return meet(*(self._expression(part, at, awaited=awaited) for part in ways))
            case ast.BoolOp(values=values) if awaited:  # exactly one of them is awaited
                return meet(*(self._expression(value, at, awaited=True) for value in values))
            case ast.BoolOp(values=values):
                at, others = self._expression(values[0], at), values[1:]
            case _:
                at, others = self._expressions([node.left, node.comparators[0]], at), node.comparators[1:]
        self._expressions(others, at)  # these may not be evaluated
        return at

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, at: At) -> At:
        """Like a loop; a generator may run later, outside the block around it."""
        first, *others = node.generators
        at = self._expression(first.iter, at)
        in_block = self.frame.in_block and not isinstance(node, ast.GeneratorExp)
        parts: list[ast.AST] = [*first.ifs]
        for other in others:
            parts += [other.iter, *other.ifs]
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        with self._within(attrs.evolve(self.frame, in_block=in_block)):
            self._expressions(parts, at)
        return at

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, node: ast.Call, at: At, *, awaited: bool) -> At:
        """Follow a call: of a step, of a helper of the body, or of anything else."""
        names, func = self.frame.names, node.func
        if isinstance(func, ast.Attribute) and func.attr in RUNNERS and node.args and names.what(func.value) is MISSING:
            return self._run(node, func, at, awaited=awaited)
        helper = names.helper(func)
        if helper is not None and _is_run_by_call(helper[0], awaited=awaited):
            at = self._expressions([*node.args, *node.keywords], at)
            roles = _roles(helper[0], node, names)
            return self._helper(helper, roles, at=at, in_block=self.frame.in_block, sure=self.frame.sure)
        at = self._expressions(ast.iter_child_nodes(node), at)
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        self.hidden = self.hidden or any(names.role(argument) is not None for argument in given)
        self._judge_direct(node)
        self._warn(node)
        return at

    def _run(self, node: ast.Call, func: ast.Attribute, at: At, *, awaited: bool) -> At:
        """Follow ``x.run(what, ...)`` or ``x.map(what, ...)``."""
        names, first = self.frame.names, node.args[0]
        role, what, branch = names.role(func.value), names.what(first), names.helper(first)
        in_block = func.attr == "map" or role is Role.PARALLEL
        is_branch = branch is not None and in_block and role is not None
        at = self._expressions([func.value, *node.args[is_branch:], *node.keywords], at)
        if branch is not None and is_branch:
            self._helper(branch, _first(branch[0]), at=at, in_block=True, sure=self.frame.sure)
        if not (is_step(what) or is_saga(what)):
            self.hidden = self.hidden or (role is not None and not is_branch)
            return at
        frame = attrs.evolve(
            self.frame, in_block=self.frame.in_block or in_block, sure=self.frame.sure and role is not None
        )
        with self._within(frame):
            if self.frame.sure:
                self.calls[node] = what
            after = self._use(what, self._place(node), at, begins=in_block or awaited)
        return at if in_block or role is None else after

    def _use(self, what: Declared[..., Any] | SagaDef[..., Any], place: str, at: At, *, begins: bool) -> At:
        """Note a step or a child saga; returns what holds after it. One that begins elsewhere is judged there."""
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

    def _judge_direct(self, node: ast.Call) -> None:
        """Refuse a step that the body calls as a plain function: it would leave no trace."""
        what = self.frame.names.what(node.func)
        if is_step(what) and self.frame.sure and self.frame.called:
            self.faults.append(
                f"{self._place(node)}: the body calls {what.kind} {what.name!r} itself, so it would not be recorded "
                f"and not undone; write `await {self.frame.names.saga}.run({ast.unparse(node.func)}, ...)`"
            )

    def _warn_of_dropped(self, node: ast.Call) -> None:
        """Warn of an operation that is dropped without ``await``; the run is stuck there, and can be mended."""
        func = node.func
        if not (isinstance(func, ast.Attribute) and func.attr in AWAITED and self.frame.sure and self.frame.called):
            return
        if self.frame.names.role(func.value) is Role.SAGA:
            said = f"{ast.unparse(func)}(...)"
            self.warnings.append(
                f"{self._place(node)}: `{said}` is not awaited, so it never begins and the saga is stuck there; write "
                f"`await {said}`"
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
    """The parsed text of a body, and its place in its file."""

    tree: ast.AsyncFunctionDef
    file: str
    offset: int


def _source(body: Callable[..., Any]) -> _Source | None:
    try:
        lines, first = inspect.getsourcelines(body)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None  # typed at a prompt, or generated: the first run finds its faults
    function = next((node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)), None)
    if function is None:
        return None
    return _Source(function, inspect.getsourcefile(body) or place_of(body), first - 1)


def _is_run_by_call(function: Function, *, awaited: bool) -> bool:
    """Whether calling a function of the body runs it at once."""
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
        return False
    return awaited or not isinstance(function, ast.AsyncFunctionDef)


def _roles(function: Function, node: ast.Call, names: Names) -> dict[str, Role]:
    """The parameters that receive the saga, or one of its parallel blocks."""
    given: dict[str, ast.expr] = {}
    for parameter, argument in zip(_positional(function), node.args, strict=False):
        if isinstance(argument, ast.Starred):
            break
        given[parameter] = argument
    given.update({keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None})
    roles = {parameter: names.role(argument) for parameter, argument in given.items()}
    return {parameter: role for parameter, role in roles.items() if role is not None}


def _first(function: Function) -> dict[str, Role]:
    """A branch receives the saga as its first argument."""
    return dict.fromkeys(_positional(function)[:1], Role.SAGA)


def _positional(function: Function) -> list[str]:
    return [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]


def _constant(test: ast.expr) -> bool | None:
    """The value of a constant test; None if the test is not constant."""
    return bool(test.value) if isinstance(test, ast.Constant) else None


def _is_irrefutable(pattern: ast.pattern) -> bool:
    match pattern:
        case ast.MatchAs(pattern=inner):
            return inner is None or _is_irrefutable(inner)
        case ast.MatchOr(patterns=patterns):
            return any(_is_irrefutable(part) for part in patterns)
        case _:
            return False
