"""A picture in which every fork, join and choice is a node of its own, as BPMN wants it.

Invariant: of a graph, a node waits for all that it waited for; one that may be skipped has a way around it.
"""

from collections.abc import Sequence
from itertools import pairwise

import attrs

from sagas.diagram.picture import GATES, Edge, Kind, Mark, Picture


def with_gateways(picture: Picture) -> Picture:
    """The same picture with gateways; one of code has them already."""
    if not picture.joins_all:
        return picture
    into: dict[str, list[Edge]] = {}
    out: dict[str, list[Edge]] = {}
    for edge in picture.edges:
        into.setdefault(edge.target, []).append(edge)
        out.setdefault(edge.source, []).append(edge)
    nodes: list[Mark] = []
    edges: list[Edge] = []
    entrance: dict[str, str] = {}
    exit_: dict[str, str] = {}
    for mark in picture.nodes:
        _surround(mark, into.get(mark.key, ()), out.get(mark.key, ()), (nodes, edges), (entrance, exit_))
    edges += [
        Edge(source=exit_[edge.source], target=entrance[edge.target], count=edge.count, kind=edge.kind)
        for edge in picture.edges
    ]
    return attrs.evolve(picture, nodes=tuple(nodes), edges=tuple(edges), joins_all=False)


def _surround(
    mark: Mark,
    into: Sequence[Edge],
    out: Sequence[Edge],
    made: tuple[list[Mark], list[Edge]],
    ports: tuple[dict[str, str], dict[str, str]],
) -> None:
    """Add a node with the gateways before and after it, and say where its edges come in and go out."""
    nodes, edges = made
    chain: list[Mark] = []
    if len(into) > 1 and mark.kind not in GATES:
        chain.append(_gate(mark, "join", "then"))
    may_skip = any(edge.kind == "when" for edge in into)
    if may_skip:
        chain.append(_gate(mark, "choice", "if true"))
    chain.append(mark)
    if may_skip:
        chain.append(_gate(mark, "merge", "or"))
        edges.append(Edge(source=chain[-3].key, target=chain[-1].key, label="no"))
    if len(out) > 1 and mark.kind not in GATES:
        chain.append(_gate(mark, "fork", "all of"))
    nodes += chain
    for one, other in pairwise(chain):
        label = "yes" if may_skip and other is mark else ""
        edges.append(Edge(source=one.key, target=other.key, label=label))
    ports[0][mark.key], ports[1][mark.key] = chain[0].key, chain[-1].key


def _gate(mark: Mark, kind: Kind, label: str) -> Mark:
    return Mark(key=f"{mark.key}/{kind}/", label=label, kind=kind)
