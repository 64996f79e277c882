"""Sagas as graphs: a developer declares nodes and references, and the order of steps follows from these.

Invariant: a fault of a graph is found before it runs, and all of them at once.
"""

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any, Literal, ParamSpec, TypeVar, cast, overload

from durable_core import DefinitionError
from durable_core.layer import Duration, check_name, check_timeout, shown
from sagas.check.scan import scan
from sagas.model.definition import OnFailure, SagaDef
from sagas.model.graph import CallbackRef, Draft, GraphDef, Node, NodeKind, Ref, is_ref, kind_of
from sagas.model.node_types import AddNode, Node1
from sagas.runtime.saga import Saga
from sagas.runtime.walk import Walk

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
WAYS: Mapping[NodeKind, tuple[str, ...]] = {
    "step": ("step",),
    "pivot": ("pivot",),
    "retriable": ("retriable",),
    "lookup": ("lookup",),
    "child": ("step", "pivot"),
}
"""The methods by which each kind of node is added, the usual one first."""


class SagaGraph(GraphDef[P]):
    """A saga as a graph: nodes that do not depend on each other run side by side.

    It is started, listed, versioned, undone and traced exactly as a saga that is written as code. What it depends on is
    undone after it; with ``parallel_compensation`` nodes that do not depend on each other are undone side by side.

    Args:
        name: its name when it is started, listed and traced.
        version: from 1. A running saga keeps the version that it began with.
        input: the type of the one argument that it is started with; without it the saga takes none.
        deadline: how long a run may take before it is rolled back, a timedelta or seconds.
        parallel_compensation: undo side by side what does not depend on each other.
        on_compensation_failure: if a compensation is given up, ``continue`` with the others, or ``halt``.
        on_failure: ``stuck`` keeps the failure of a node from the graph until an operator decides; see ``@step``.
    """

    @overload
    def __init__(
        self: "SagaGraph[[T]]",
        name: str,
        *,
        version: int,
        input: type[T],
        deadline: Duration | None = ...,
        parallel_compensation: bool = ...,
        on_compensation_failure: Literal["continue", "halt"] = ...,
        on_failure: OnFailure = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "SagaGraph[[]]",
        name: str,
        *,
        version: int,
        deadline: Duration | None = ...,
        parallel_compensation: bool = ...,
        on_compensation_failure: Literal["continue", "halt"] = ...,
        on_failure: OnFailure = ...,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        version: int,
        input: Any = None,
        deadline: Duration | None = None,
        parallel_compensation: bool = False,
        on_compensation_failure: Literal["continue", "halt"] = "continue",
        on_failure: OnFailure = "rollback",
    ) -> None:
        async def body(s: Saga, *given: Any) -> Any:
            return await Walk(self, s, given).run()

        first = inspect.Parameter("s", inspect.Parameter.POSITIONAL_ONLY)
        second = inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=input)
        body.__signature__ = inspect.Signature([first] if input is None else [first, second])  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
        body.__annotations__ = {} if input is None else {"input": input}
        body.__name__ = body.__qualname__ = str(name)
        super().__init__(
            name=name,
            version=version,
            body=body,
            deadline=deadline,
            parallel_compensation=parallel_compensation,
            on_compensation_failure=on_compensation_failure,
            on_failure=on_failure,
            draft=Draft(input_type=input),
            declared_at=_caller(),
            declared_in=str(_frame().f_globals.get("__name__", "")),
        )

    def __repr__(self) -> str:
        return f"<graph {self.name!r} version {self.version} ({self.place})>"

    @property
    def input(self: Node1[T, Any]) -> Ref[T]:
        """Stands for the argument that the saga is started with."""
        graph = cast("SagaGraph[...]", self)
        if graph.draft.input_type is None:
            raise DefinitionError(
                f"the graph {graph.name!r} ({graph.place}) has no input",
                "Declare its type: `SagaGraph(name, version=..., input=Order)`",
            )
        return Ref(graph.draft, None)

    # -- nodes -----------------------------------------------------------------------------------------------------

    @property
    def step(self) -> AddNode:
        """Add a compensatable step, or another saga as a child: ``g.step(reserve, g.input)``."""
        return AddNode(self, "step")

    @property
    def pivot(self) -> AddNode:
        """Add the point of no return, or a child saga that has one.

        It runs alone, once all that does not depend on it has ended.
        """
        return AddNode(self, "pivot")

    @property
    def retriable(self) -> AddNode:
        """Add a step after the pivot, which is retried until it succeeds."""
        return AddNode(self, "retriable")

    @property
    def lookup(self) -> AddNode:
        """Add a read or a decision, without an effect outside."""
        return AddNode(self, "lookup")

    def add_step(
        self, kind: NodeKind, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, after: Any, when: Any
    ) -> Ref[Any]:
        """Add a node that runs ``what``; see ``AddNode``."""
        found = kind_of(what)
        if found is None:
            raise DefinitionError(
                f"the graph {self.name!r}: g.{kind} was given {shown(what)}",
                "Give it a function decorated with @step, @pivot, @retriable or @lookup, or another saga",
            )
        if kind not in WAYS[found]:
            raise DefinitionError(
                f"the graph {self.name!r}: g.{kind} was given the {found} {what.name!r}",
                f"Add it by g.{WAYS[found][0]}",
            )
        if isinstance(what, GraphDef) and what not in self.draft.children and self in what.within():
            raise DefinitionError(
                f"the graph {self.name!r} would run itself within {what.name!r}, without end",
                "Write the loop as a coded saga",
            )
        fields = {"what_runs": what, "args": args, "kwargs": kwargs, "declared_pivot": kind == "pivot"}
        node = self._node(what.name, found, after=after, when=when, **fields)
        if isinstance(what, GraphDef):
            self.draft.children[what] = None
        return Ref(self.draft, node)

    def sleep(
        self,
        span: Duration,
        /,
        *,
        after: Sequence[Ref[Any]] = (),
        when: Ref[bool | None] | None = None,
        name: str = "sleep",
    ) -> Ref[None]:
        """Add a durable wait of ``span``, a timedelta or seconds.

        Args:
            span: how long.
            after: references whose nodes must have ended before it begins.
            when: a reference to a bool: where it is false there is no wait.
            name: its name in keys, pictures and spans.
        """
        check_timeout(span, f"the graph {self.name!r}: g.sleep")
        check_name(name, what=f"the graph {self.name!r}: g.sleep")
        return Ref(self.draft, self._node(name, "sleep", after=after, when=when, span=span))

    @overload
    def callback(
        self,
        name: str,
        type: type[T],
        /,
        *,
        timeout: Duration | None = ...,
        heartbeat: Duration | None = ...,
        after: Sequence[Ref[Any]] = ...,
        when: None = ...,
    ) -> CallbackRef[T]: ...
    @overload
    def callback(
        self,
        name: str,
        type: type[T],
        /,
        *,
        timeout: Duration | None = ...,
        heartbeat: Duration | None = ...,
        after: Sequence[Ref[Any]] = ...,
        when: Ref[bool | None],
    ) -> CallbackRef[T | None]: ...
    def callback(
        self,
        name: str,
        type: Any,
        /,
        *,
        timeout: Duration | None = None,
        heartbeat: Duration | None = None,
        after: Sequence[Ref[Any]] = (),
        when: Ref[bool | None] | None = None,
    ) -> CallbackRef[Any]:
        """Add a question that a person or a system outside answers with a value of ``type``.

        Its ``token`` is a reference too: give it to the node that hands it out. Without an answer in time the saga is
        rolled back, and its error is ``CallbackTimeout``.

        Args:
            name: its name, by which it can also be answered; ``approval#2`` for a second use of the name.
            type: the type of the answer; other values are refused when they are sent.
            timeout: how long to wait once it is open, a timedelta or seconds.
            heartbeat: also give up where neither an answer nor a heartbeat comes within this span.
            after: references whose nodes must have ended before it is opened.
            when: a reference to a bool: where it is false nobody is asked, and answer and token are None.
        """
        what = f"the graph {self.name!r}: callback {shown(name)}"
        check_name(name, what=what)
        waits = {"timeout": check_timeout(timeout, what), "heartbeat": check_timeout(heartbeat, what)}
        return CallbackRef(self.draft, self._node(name, "callback", after=after, when=when, answer=type, **waits))

    def returns(self, output: Ref[R] | None = None, /) -> SagaDef[P, R]:
        """Say what the saga returns: a reference, or nothing. Call it once, at the end.

        Args:
            output: the reference; nothing if the saga returns None.

        Returns:
            The graph itself, typed by its result, for checkers.

        Raises:
            DefinitionError: it is no reference, or the graph is in use.
        """
        self._check_open("returns")
        if output is not None and not isinstance(output, Ref):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(
                f"the graph {self.name!r}: g.returns was given {shown(output)}",
                "Give it the reference that adding a node returned, or nothing",
            )
        self.draft.outputs.append(output)
        return self

    def check(self) -> None:
        """Check the graph and the sagas that it runs; nothing is run.

        Raises:
            DefinitionError: it cannot work. The message has every fault that was found, each with its place.
        """
        if faults := scan(self).faults:
            raise DefinitionError(f"graph {self.name!r} cannot work: " + "; ".join(faults))

    def _node(self, name: str, kind: NodeKind, *, after: Any, when: Any, **fields: Any) -> Node:
        self._check_open(kind)
        if when is not None and not is_ref(when):
            raise DefinitionError(
                f"the graph {self.name!r}: {kind} {name!r} was given when={shown(when)}",
                "Give `when=` a reference to a bool, such as the result of a @lookup",
            )
        if is_ref(after) or not isinstance(after, Iterable):
            raise DefinitionError(
                f"the graph {self.name!r}: {kind} {name!r} was given after={after!r}",
                "Give `after=` a list of references",
            )
        fields["after"] = after if isinstance(after, list) else (*after,)  # pyright: ignore[reportUnknownVariableType]
        count = self.draft.names[name] = self.draft.names.get(name, 0) + 1
        key = name if count == 1 else f"{name}#{count}"
        node = Node(key=key, name=name, kind=kind, place=_caller(), when=when, **fields)
        self.draft.nodes.append(node)
        return node

    def _check_open(self, method: str) -> None:
        if self.draft.plan is not None:
            raise DefinitionError(
                f"the graph {self.name!r} is in use, so g.{method} can add nothing to it",
                "Declare all of it before it is registered or started; a changed graph is a new version",
            )


def _caller() -> str:
    """``file:line`` of the code that declares the graph."""
    frame = _frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _frame() -> FrameType:
    """The code outside this package that has called it."""
    frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - inspect.stack() reads all files
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("sagas."):
        frame = frame.f_back
    return frame
