"""Where the nodes of a graph stand in a state machine: its children inlined, in nested blocks.

Invariant: a node's result has one place, known before any state is written: a field of the document that all states
hand on, or of the document of its branch, which is an element of the list that a ``Parallel`` brings.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from sagas.asl.blocks import Block, Fork, One, Series, blocks_of
from sagas.model.definition import Declared
from sagas.model.graph import GraphDef, Node, Plan, Ref


@attrs.frozen
class Branch:
    """One branch of a ``Parallel``."""

    fork: str
    """The field that the list of all branches' documents gets."""
    place: int
    """Which of them."""
    document: str
    """The field of the branch's own document while it runs."""


Chain = tuple[Branch, ...]
"""The branches around a state, outermost first; none at the top."""


@attrs.frozen
class Path:
    """Where a value is found: a JSONPath."""

    text: str


@attrs.frozen
class Plain:
    """A value that is known when the machine is written."""

    value: Any


@attrs.define(eq=False)
class Frame:
    """A graph at one place of the machine: the exported one, or one that runs as a child."""

    graph: GraphDef[...]
    prefix: str
    """What the keys of its nodes begin with."""
    around: "tuple[Frame, Node] | None" = None
    """For a child: the graph around it, and its node there."""
    works: "dict[Node, Work]" = attrs.field(factory=dict["Node", "Work"])


@attrs.define(eq=False, kw_only=True)
class Work:
    """One node at its place in the machine."""

    node: Node
    frame: Frame
    field: str
    """The field of its result."""
    chain: Chain
    asker: Node | None = None
    """Of a callback: the node that is given its token, and runs when it opens."""
    inner: "Stages | None" = None
    """Of a child."""

    @property
    def key(self) -> str:
        """The key of its step; of a callback that somebody is told of, that of the step which tells."""
        return self.frame.prefix + (self.asker or self.node).key

    @property
    def step(self) -> Declared[..., Any] | None:
        """The step that it calls."""
        what = (self.asker or self.node).what_runs
        return what if isinstance(what, Declared) else None


@attrs.frozen(eq=False)
class Lanes:
    """Blocks side by side: each with the branch that it runs in."""

    fork: str
    lanes: "tuple[tuple[Branch, Tree], ...]"


Tree = Work | Lanes | tuple["Tree", ...]
"""What runs: a tuple one after the other."""


@attrs.frozen(eq=False)
class Stages:
    """A graph as three parts that run one after the other; see ``Plan``."""

    frame: Frame
    first: Tree
    pivots: tuple[Work, ...]
    last: Tree

    @property
    def certain(self) -> bool:
        """Whether nothing can be undone once it has ended: one of its pivots is never skipped."""
        return any(work.node.when is None and (work.inner is None or work.inner.certain) for work in self.pivots)


class Layout:
    """Gives each node its place."""

    def __init__(self, graph: GraphDef[...]) -> None:
        self._count = 0
        self.stages = self._graph(Frame(graph, ""), ())

    def _graph(self, frame: Frame, chain: Chain) -> Stages:
        plan = Plan.of(frame.graph.nodes)
        askers = askers_of(frame.graph)
        first, pivots, last = plan.stages
        return Stages(
            frame,
            self._part(frame, first, askers, chain),
            tuple(self._work(frame, node, None, chain) for node in pivots),
            self._part(frame, [node for node in last if node not in pivots], askers, chain),
        )

    def _part(self, frame: Frame, nodes: Sequence[Node], askers: Mapping[Node, Node], chain: Chain) -> Tree:
        asked = {asker: callback for callback, asker in askers.items()}
        items, parents = joined(nodes, asked)
        return self._tree(frame, blocks_of(items, parents), askers, chain) if items else ()

    def _tree(self, frame: Frame, block: Block[Node], askers: Mapping[Node, Node], chain: Chain) -> Tree:
        match block:
            case One(item=node):
                return self._work(frame, node, askers.get(node), chain)
            case Series(parts=parts):
                return tuple(self._tree(frame, part, askers, chain) for part in parts)
            case Fork(branches=branches):
                fork = self.name("p")
                lanes: list[tuple[Branch, Tree]] = []
                for place, each in enumerate(branches):
                    branch = Branch(fork, place, self.name("b"))
                    lanes.append((branch, self._tree(frame, each, askers, (*chain, branch))))
                return Lanes(fork, tuple(lanes))

    def _work(self, frame: Frame, node: Node, asker: Node | None, chain: Chain) -> Work:
        work = Work(node=node, frame=frame, field=self.name("n"), chain=chain, asker=asker)
        frame.works[node] = work
        if isinstance(node.what_runs, GraphDef):
            inner = Frame(node.what_runs, f"{frame.prefix}{node.key}/", (frame, node))
            work.inner = self._graph(inner, chain)
        return work

    def name(self, kind: str) -> str:
        """A new field: a letter for its kind, and a number."""
        self._count += 1
        return f"{kind}{self._count}"


def askers_of(graph: GraphDef[...]) -> dict[Node, Node]:
    """The node that is given each callback's token; the last one, where there are several."""
    return {ref.node: node for node in graph.nodes for ref in node.arguments() if ref.is_token and ref.node is not None}


def joined(nodes: Sequence[Node], asked: Mapping[Node, Node]) -> tuple[list[Node], dict[Node, list[Node]]]:
    """The nodes with each asker as part of its callback, each after what it waits for; and what that is.

    Where an asker waits for the answer to its own callback, the nodes of that cycle are left out.
    """
    mine = set(nodes)
    parents: dict[Node, dict[Node, None]] = {}
    for node in nodes:
        item = asked.get(node, node)
        above = parents.setdefault(item, {})
        for parent, token in node.waits_for():
            if parent in mine and not (token and parent is item):
                above[asked.get(parent, parent)] = None
    order = [node for node in nodes if node in parents]
    done: dict[Node, None] = {}
    waiting = order
    while waiting:
        blocked: list[Node] = []
        for item in waiting:
            if all(parent in done for parent in parents[item]):
                done[item] = None
            else:
                blocked.append(item)
        if len(blocked) == len(waiting):
            break
        waiting = blocked
    return list(done), {item: list(parents[item]) for item in done}


def in_order(tree: Tree) -> Iterator[Work]:
    """All nodes of a part, those of children in place of the child; each after what it waits for."""
    match tree:
        case Work(inner=None):
            yield tree
        case Work(inner=stages):
            assert stages is not None  # noqa: S101 - the case above
            yield from of_stages(stages)
        case Lanes(lanes=lanes):
            for _, each in lanes:
                yield from in_order(each)
        case parts:
            for each in parts:
                yield from in_order(each)


def of_stages(stages: Stages) -> Iterator[Work]:
    """All nodes of a graph, those of children in place of the child."""
    yield from in_order(stages.first)
    yield from in_order(stages.pivots)
    yield from in_order(stages.last)


def in_graph_order(stages: Stages) -> Iterator[Work]:
    """The same in the graph's own order, whatever runs beside what."""
    for node in Plan.of(stages.frame.graph.nodes).order:
        work = stages.frame.works.get(node)
        if work is not None and work.inner is not None:
            yield from in_graph_order(work.inner)
        elif work is not None:
            yield work


def resolved(frame: Frame, given: Any, chain: Chain) -> Path | Plain:
    """Where a state within ``chain`` finds what an argument of a node of ``frame`` stands for."""
    if not isinstance(given, Ref):
        return Plain(given)
    if given.is_token:
        return Path("$$.Task.Token")
    if given.node is None:
        return _input(frame, chain)
    if given.node.kind == "sleep":
        return Plain(None)
    return Path(f"{place_of(frame.works[given.node], chain)}.value")


def _input(frame: Frame, chain: Chain) -> Path | Plain:
    if frame.around is None:
        return Path("$.input")
    around, node = frame.around
    given = next(iter((*node.args, *node.kwargs.values())), None)
    return resolved(around, given, chain)


def place_of(work: Work, chain: Chain) -> str:
    """The path to a node's field for a state within ``chain``."""
    shared = 0
    while shared < min(len(chain), len(work.chain)) and chain[shared] == work.chain[shared]:
        shared += 1
    rest = "".join(f".{branch.fork}[{branch.place}]" for branch in work.chain[shared:])
    return f"{document(chain[:shared])}{rest}.{work.field}"


def document(chain: Chain) -> str:
    """The path to the document into which the states of a branch write."""
    return f"$.{chain[-1].document}" if chain else "$"
