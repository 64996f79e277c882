"""Where the steps of a run stand in the picture of a definition.

Invariant: each step stands at one node, or at one of its own where the definition has none. In a graph the key says
which; in code a name that occurs at several places is at the next one that the flow leads to.
"""

from collections import deque
from collections.abc import Sequence

from sagas.diagram.graphs import START
from sagas.diagram.picture import ACTIVITIES, Mark, Picture
from sagas.model.info import StepState

Place = tuple[str, str]
"""The savepoint or branch around a step, and its name."""


class Placing:
    """Places the steps of one run."""

    def __init__(self, picture: Picture) -> None:
        self._exact = {mark.key for mark in picture.nodes} if picture.joins_all else frozenset[str]()
        self._at: dict[Place, list[Mark]] = {}
        for mark in picture.nodes:
            if mark.kind in ACTIVITIES:
                name = mark.label if not picture.joins_all else mark.key
                self._at.setdefault((_plain(mark.scope), name), []).append(mark)
        self._after: dict[str, list[str]] = {}
        for edge in picture.edges:
            self._after.setdefault(edge.source, []).append(edge.target)
        self._straight = not any(edge.kind == "back" or edge.label for edge in picture.edges)
        self._used: set[str] = set()
        self._last = START

    def all(self, steps: Sequence[StepState]) -> dict[str, list[StepState]]:
        """The steps at each node, by its key, in the order in which they were first reached."""
        found: dict[str, list[StepState]] = {}
        for step in steps:
            found.setdefault(self._key(step), []).append(step)
        return found

    def _key(self, step: StepState) -> str:
        """The key of the node at which a step stands; its own if there is none."""
        if self._exact:
            return step.key
        scope, _, _ = step.key.rpartition("/")
        marks = self._at.get((_plain(scope + "/" if scope else ""), step.name), [])
        key = self._nearest(marks) if len(marks) > 1 else marks[0].key if marks else step.key
        self._used.add(key)
        self._last = key
        return key

    def _nearest(self, marks: Sequence[Mark]) -> str:
        """Of several places, the one that the flow leads to first; without one, the first that is free."""
        keys = {mark.key for mark in marks}
        unused = next((mark.key for mark in marks if mark.key not in self._used), marks[-1].key)
        if self._straight:
            return unused
        todo, seen = deque([self._last]), {self._last}
        while todo:
            for key in self._after.get(todo.popleft(), ()):
                if key in keys and key != self._last:
                    return key
                if key not in seen:
                    seen.add(key)
                    todo.append(key)
        return self._last if self._last in keys and unused in self._used else unused


def _plain(scope: str) -> str:
    """A scope without the numbers of its occurrences, which a loop counts up."""
    return "/".join(part.partition("#")[0] for part in scope.split("/"))
