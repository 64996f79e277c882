"""The picture of a saga that is declared as a graph: exactly its nodes and references.

Invariant: drawing a graph neither runs it nor closes it to further nodes, and a graph with faults is drawn as well.
"""

from collections.abc import Iterator, Mapping

from durable_core.layer import to_ns
from sagas.diagram.picture import Edge, Mark, Picture, length
from sagas.diagram.undoing import Children
from sagas.model.graph import GraphDef, Node, Plan, is_pivot, is_ref

START, END = "start/", "end/"
"""No step key contains a ``/`` at its end."""


def graph_picture(definition: GraphDef[...]) -> Picture:
    """The picture of a graph."""
    nodes = tuple(definition.nodes)
    keys = {node: node.key for node in nodes}
    edges = tuple(_edges(nodes, keys))
    plan, children = Plan.of(nodes), Children()
    targets, sources = {edge.target for edge in edges}, {edge.source for edge in edges}
    first = [Edge(source=START, target=node.key) for node in nodes if node.key not in targets]
    last = [
        Edge(source=node.key, target=after) for node in nodes if node.key not in sources for after in _after(node, plan)
    ]
    undos = (children.undo_mark(node.key, node.name, node.what_runs) for node in nodes if not is_pivot(node))
    return Picture(
        title=definition.name,
        subtitle=f"version {definition.version}",
        nodes=(
            Mark(key=START, label="start", kind="start"),
            *map(_mark, nodes),
            Mark(key=END, label="end", kind="end"),
        ),
        edges=(*first, *edges, *last) if nodes else (Edge(source=START, target=END),),
        undos=tuple(undo for undo in undos if undo is not None),
        joins_all=True,
    )


def _mark(node: Node) -> Mark:
    kind = "pivot" if is_pivot(node) and node.kind != "child" else node.kind
    note = "point of no return" if is_pivot(node) else ""
    if node.span is not None:
        note = length(to_ns(node.span) / 1e9)
    return Mark(key=node.key, label=node.key, kind=kind, note=note)


def _after(node: Node, plan: Plan) -> list[str]:
    """What comes after a node that no other waits for: the pivot, which runs alone, else the end."""
    is_first = node not in plan.pivots and node not in plan.after
    return [pivot.key for pivot in plan.pivots] if is_first and plan.pivots else [END]


def _edges(nodes: tuple[Node, ...], keys: Mapping[Node, str]) -> Iterator[Edge]:
    """One edge for each node that another waits for."""
    for node in nodes:
        when = node.when.node if is_ref(node.when) else None
        for parent in dict.fromkeys(parent for parent, _ in node.waits_for() if parent in keys):
            if parent is when:
                yield Edge(source=keys[parent], target=node.key, label="if true", kind="when")
            else:
                yield Edge(source=keys[parent], target=node.key)
