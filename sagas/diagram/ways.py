"""Which edges a run took, from the steps that it reached.

Invariant: an edge is taken only from and towards something that was reached. Where code comes to a place by one of
several ways, it was that of the step that began last.
"""

from collections.abc import Collection, Iterator, Mapping

from sagas.diagram.graphs import END
from sagas.diagram.picture import ACTIVITIES, Edge, Picture

Way = tuple[str, str]


def ways_of(picture: Picture, reached: Mapping[str, int], *, completed: bool) -> set[Way]:
    """The edges of a run, each once.

    Args:
        picture: of the definition.
        reached: how many steps of the run stand at each node, in the order in which the run came to them.
        completed: the run came to its end.
    """
    goals = [*reached, *([END] if completed else [])]
    if picture.joins_all:
        starts = {mark.key for mark in picture.nodes if mark.kind == "start"}
        there = {*goals, *starts}
        return {(edge.source, edge.target) for edge in picture.edges if edge.source in there and edge.target in there}
    ways = _Ways(picture, reached)
    return {*ways.to(goals), *ways.again()}


class _Ways:
    """The ways through code: back from each step to those before it."""

    def __init__(self, picture: Picture, reached: Mapping[str, int]) -> None:
        self._reached = reached
        self._acts = {mark.key for mark in picture.nodes if mark.kind in ACTIVITIES}
        self._joins = {mark.key for mark in picture.nodes if mark.kind == "join"}
        self._rounds = [edge for edge in picture.edges if edge.kind == "back"]
        self._into: dict[str, list[Edge]] = {}
        for edge in picture.edges:
            if edge.kind != "back":
                self._into.setdefault(edge.target, []).append(edge)
        self._late: dict[str, int] = {}
        """How late the run was at a node; -1 where it was not there."""
        order = {key: place + 1 for place, key in enumerate(reached)}
        for mark in picture.nodes:  # each after those before it
            above = (self._late.get(edge.source, -1) for edge in self._into.get(mark.key, ()))
            is_act = mark.key in self._acts
            self._late[mark.key] = (
                order.get(mark.key, -1) if is_act else 0 if mark.kind == "start" else max(above, default=-1)
            )

    def to(self, goals: Collection[str]) -> Iterator[Way]:
        """The edges to these nodes, from the steps before them."""
        todo, seen = [*goals], {*goals}
        while todo:
            key = todo.pop()
            for source in self._sources(key):
                yield source, key
                if source not in seen and source not in self._acts:
                    seen.add(source)
                    todo.append(source)

    def again(self) -> Iterator[Way]:
        """The edges to the next round of a loop whose last step ran more than once."""
        for edge in self._rounds:
            key = edge.source
            while key not in self._acts and (sources := self._sources(key)):
                key = sources[0]
            if self._reached.get(key, 0) > 1:
                yield edge.source, edge.target

    def _sources(self, key: str) -> list[str]:
        """All that a join waits for, or the one way that was taken."""
        found = [(self._late.get(edge.source, -1), edge.source) for edge in self._into.get(key, ())]
        there = [(late, source) for late, source in found if late >= 0]
        if key in self._joins:
            return [source for _, source in there]
        return [max(there)[1]] if there else []
