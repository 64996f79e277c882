"""A saga as data: nodes, the references between them, and what follows from these alone.

Invariant: nothing here runs a node. Every function takes time linear in nodes and references, so that a graph may have
ten thousand of them.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, NoReturn, ParamSpec, TypeGuard, TypeVar

import attrs

from durable_core import DefinitionError
from durable_core.layer import CallShape, Codec, Duration
from sagas.model.definition import Declared, SagaDef, is_saga, is_step

_CODEC = Codec()
P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)

NodeKind = Literal["step", "pivot", "retriable", "lookup", "child", "sleep", "callback"]
PURE: frozenset[NodeKind] = frozenset({"lookup", "sleep", "callback"})
"""Kinds without an effect outside: nothing to undo, and no use where nothing follows them."""


class Ref(Generic[T_co]):
    """Stands for a value that a graph has once it runs: its input, a node's result, a callback's token.

    Give it to another node of the same graph. It has no value while the graph is being declared.
    """

    __slots__ = ("graph", "is_token", "node")

    def __init__(self, graph: object, node: "Node | None", *, is_token: bool = False) -> None:
        self.graph = graph
        """The draft that it belongs to."""
        self.node = node
        """The node that brings the value; None for the input."""
        self.is_token = is_token
        """It is the token of a callback, which is there before the answer."""

    def __repr__(self) -> str:
        return f"<reference to {self.described}>"

    @property
    def described(self) -> str:
        """``step 'charge'``, ``the input``, ``the token of callback 'approval'``."""
        if self.node is None:
            return "the input"
        return f"the token of {self.node.described}" if self.is_token else self.node.described

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            f"{self.described} has no value while the graph is being declared, so it is neither true nor false",
            "Give the reference to `when=` of another node",
        )

    def __str__(self) -> NoReturn:
        raise DefinitionError(
            f"{self.described} has no value while the graph is being declared, so it cannot be part of a text",
            "Make the text in the step that is given the reference",
        )

    def __format__(self, how: str) -> NoReturn:
        self.__str__()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ref):
            raise DefinitionError(
                f"{self.described} has no value while the graph is being declared, so it cannot be compared",
                "Compare in a @lookup that is given the reference",
            )
        return self is other

    __hash__ = object.__hash__

    def __iter__(self) -> NoReturn:
        raise DefinitionError(
            f"{self.described} has no value while the graph is being declared, so it cannot be iterated over",
            "Iterate in the step that is given the reference",
        )

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{self.described} has no value while the graph is being declared, so {name!r} cannot be read from it; "
            "read it in the step that is given the reference, or in a @lookup"
        )


class CallbackRef(Ref[T_co]):
    """Stands for the answer to a callback."""

    __slots__ = ()

    @property
    def token(self) -> Ref[str]:
        """Stands for the callback's token, which is there before the answer; give it to the node that hands it out.

        Where the callback has a ``when=``, that node needs the same one: the token of a skipped callback is None.
        """
        return Ref(self.graph, self.node, is_token=True)


@attrs.frozen(eq=False, kw_only=True)
class Node:
    """One step, child saga, sleep or callback of a graph."""

    key: str
    """Its step key within the graph: its name, ``charge#2`` where an earlier node has that name."""
    name: str
    kind: NodeKind
    place: str
    """``file:line`` of its declaration."""
    declared_pivot: bool = False
    """Added as the point of no return: a pivot, or a child saga that has one."""
    what_runs: Declared[..., Any] | SagaDef[..., Any] | None = None
    """None for sleeps and callbacks."""
    args: tuple[Any, ...] = ()
    """References and plain values, as they were given."""
    kwargs: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    after: Sequence[Any] = ()
    """References whose nodes must have ended first: the list that was given, until the graph is in use."""
    when: Ref[Any] | None = None
    """The node is skipped, and its value is None, where this reference is not true."""
    span: Duration | None = None
    """How long a sleep takes."""
    answer: Any = None
    """The type of a callback's answer."""
    timeout: Duration | None = None
    """Of a callback."""
    heartbeat: Duration | None = None

    @property
    def described(self) -> str:
        """``step 'charge'``."""
        return f"{self.kind} {self.key!r}"

    def arguments(self) -> Iterator[Ref[Any]]:
        """The references among its arguments."""
        return filter(is_ref, (*self.args, *self.kwargs.values()))

    def refs(self) -> Iterator[Ref[Any]]:
        """All references that it waits for."""
        yield from self.arguments()
        if self.when is not None:
            yield self.when
        yield from filter(is_ref, self.after)

    def waits_for(self) -> dict[tuple["Node", bool], None]:
        """What must be there before it begins, each once: nodes, each with whether the token is enough."""
        return {(ref.node, ref.is_token): None for ref in self.refs() if ref.node is not None}


@attrs.define(eq=False)
class Draft:
    """A graph while it is being declared."""

    nodes: list[Node] = attrs.field(factory=list[Node])
    outputs: list[Ref[Any] | None] = attrs.field(factory=list["Ref[Any] | None"])
    """What ``returns`` was given: one, where the graph is complete."""
    children: dict["GraphDef[...]", None] = attrs.field(factory=dict["GraphDef[...]", None])
    """The graphs that it runs."""
    names: dict[str, int] = attrs.field(factory=dict[str, int])
    """How many nodes have each name."""
    input_type: Any = None
    """The type of the input; None where the graph takes none."""
    plan: "Plan | None" = None
    """Set once the graph is in use: nothing may be added any more."""


@attrs.frozen(eq=False, kw_only=True)
class GraphDef(SagaDef[P, Any]):
    """A saga that is declared as a graph. ``SagaGraph`` builds it."""

    draft: Draft
    declared_at: str
    """``file:line``."""
    declared_in: str
    """The name of the module."""

    @property
    def place(self) -> str:
        """``file:line`` of its declaration."""
        return self.declared_at

    @property
    def nodes(self) -> Sequence[Node]:
        """Its nodes, in the order of their declaration."""
        return self.draft.nodes

    @property
    def output(self) -> Ref[Any] | None:
        """What the saga returns; None: nothing."""
        return self.draft.outputs[-1] if self.draft.outputs else None

    @property
    def plan(self) -> "Plan":
        """The order of its nodes. From now on nothing may be added to the graph."""
        return self.draft.plan or self.seal()

    def within(self) -> "set[GraphDef[...]]":
        """This graph, and all that it runs as children."""
        found: set[GraphDef[...]] = set()
        todo: list[GraphDef[...]] = [self]
        while todo:
            graph = todo.pop()
            if graph not in found:
                found.add(graph)
                todo += graph.draft.children
        return found

    def seal(self) -> "Plan":
        """Let nothing be added any more, to this graph and to those that it runs; it is in use."""
        draft = self.draft
        if draft.plan is None:
            for node in draft.nodes:
                object.__setattr__(node, "after", tuple(node.after))  # the list is the user's and may change
            draft.plan = Plan.of(draft.nodes)
            self.body.__annotations__["return"] = None if self.output is None else type_of(self.output)
            for graph in draft.children:
                graph.seal()
        return draft.plan


@attrs.frozen(eq=False)
class Plan:
    """What follows from the references of a graph.

    The nodes run in three stages, because the pivot runs alone: what does not depend on a pivot, the pivots, of which
    at most one is not skipped, and what depends on one.
    """

    order: tuple[Node, ...]
    """Each node after all that it waits for; among equals the order of declaration. Without the nodes of a cycle."""
    parents: Mapping[Node, tuple[Node, ...]]
    children: Mapping[Node, tuple[Node, ...]]
    pivots: tuple[Node, ...]
    before: frozenset[Node]
    """What a pivot depends on."""
    after: frozenset[Node]
    """What depends on a pivot, other pivots included."""
    keys: frozenset[str]

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> "Plan":
        """The plan of these nodes."""
        known = set(nodes)
        parents = {node: tuple(dict.fromkeys(each for each, _ in node.waits_for() if each in known)) for node in nodes}
        children: dict[Node, list[Node]] = {node: [] for node in nodes}
        for node, above in parents.items():
            for parent in above:
                children[parent].append(node)
        pivots = tuple(node for node in nodes if is_pivot(node))
        return cls(
            order=tuple(_in_order(nodes, parents, children)),
            parents=parents,
            children={node: tuple(below) for node, below in children.items()},
            pivots=pivots,
            before=frozenset(_reached(pivots, parents)),
            after=frozenset(_reached(pivots, children)),
            keys=frozenset(node.key for node in nodes),
        )

    @property
    def stages(self) -> tuple[tuple[Node, ...], tuple[Node, ...], tuple[Node, ...]]:
        """What runs first, the pivots, and what runs last."""
        first = tuple(node for node in self.order if node not in self.after and node not in self.pivots)
        return first, self.pivots, tuple(node for node in self.order if node in self.after)

    def cycle(self) -> tuple[Node, ...]:
        """The nodes of one cycle, in the order in which each waits for the next; empty where there is none."""
        free = set(self.order)
        node = next((each for each in self.parents if each not in free), None)
        seen: dict[Node, None] = {}
        while node is not None and node not in seen:
            seen[node] = None
            node = next(each for each in self.parents[node] if each not in free)
        walked = tuple(seen)
        return () if node is None else walked[walked.index(node) :]


def is_pivot(node: Node) -> bool:
    """Whether the saga cannot be undone after it: a pivot, or a child saga that has one."""
    return node.declared_pivot


def is_ref(given: object) -> TypeGuard[Ref[Any]]:
    """Whether it stands for a value of a graph."""
    return isinstance(given, Ref)


def kind_of(what: Any) -> NodeKind | None:
    """The kind of a node that runs this; None if no node can."""
    if is_saga(what):
        return "child"
    if is_step(what):
        kind: Any = what.kind
        return kind  # type: ignore[no-any-return]  # the four kinds of steps are four of a node's
    return None


def _in_order(
    nodes: Sequence[Node], parents: Mapping[Node, Sequence[Node]], children: Mapping[Node, Sequence[Node]]
) -> Iterator[Node]:
    """Kahn's algorithm (1962)."""
    missing = {node: len(above) for node, above in parents.items()}
    ready = deque(node for node in nodes if not missing[node])
    while ready:
        node = ready.popleft()
        yield node
        for child in children[node]:
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)


def _reached(starts: Iterable[Node], edges: Mapping[Node, Sequence[Node]]) -> set[Node]:
    """The nodes at the end of a path of at least one edge."""
    found: set[Node] = set()
    todo = [node for start in starts for node in edges[start]]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(edges[node])
    return found


def type_of(ref: Ref[Any], *, when: Ref[Any] | None = None) -> Any:
    """The declared type of the value that a reference stands for; ``Any`` where it is not known.

    It admits None where the node may be skipped, unless its condition is the one under which the value is used.
    """
    node = ref.node
    certain = node is None or node.when is None or node.when is when
    if ref.is_token:
        return str if certain else str | None
    if node is None:
        return Any if ref.graph is None else getattr(ref.graph, "input_type", Any)
    try:
        found = _result_of(node)
    except DefinitionError:  # a type that cannot be read is a fault of its own
        return Any
    return found if certain or found is None else found | None


def _result_of(node: Node) -> Any:
    match node.what_runs:
        case None:
            return node.answer
        case Declared() as declared:
            return CallShape.of(declared.fn, _CODEC, exclude=declared.resources).result
        case GraphDef() as graph:
            return None if graph.output is None else type_of(graph.output)
        case definition:
            return CallShape.of(definition.body, _CODEC, skip=1).result
