"""The picture of a run whose definition is not at hand: its steps alone, in the order that their times tell.

Invariant: a step comes after those that had ended when it began, so that what ran side by side is drawn side by side.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sagas.diagram.graphs import END, START
from sagas.diagram.picture import Edge, Mark, Picture, kind_or_step
from sagas.model.info import SagaInfo, StepState

LATER = datetime.max.replace(tzinfo=UTC)


def picture_alone(info: SagaInfo) -> Picture:
    """The picture of a run's steps, without what became of them."""
    steps = info.steps
    before = list(_before(steps))
    edges: list[Edge] = []
    joins: dict[tuple[int, ...], str] = {}
    shared = _shared(before)
    for step, earlier in zip(steps, before, strict=True):
        if earlier in shared and earlier not in joins:
            joins[earlier] = f"join/{len(joins)}/"
            edges += [Edge(source=steps[each].key, target=joins[earlier]) for each in earlier]
        sources = [joins[earlier]] if earlier in joins else [steps[each].key for each in earlier] or [START]
        edges += [Edge(source=source, target=step.key) for source in sources]
    followed = {edge.source for edge in edges}
    edges += [Edge(source=step.key, target=END) for step in steps if step.key not in followed]
    return Picture(
        title=info.saga,
        nodes=(
            Mark(key=START, label="start", kind="start"),
            *(Mark(key=step.key, label=step.key, kind=kind_or_step(step.kind)) for step in steps),
            *(Mark(key=key, label="then", kind="join") for key in joins.values()),
            Mark(key=END, label="end", kind="end"),
        ),
        edges=tuple(edges) if steps else (Edge(source=START, target=END),),
        joins_all=True,
    )


def _before(steps: Sequence[StepState]) -> Iterator[tuple[int, ...]]:
    """For each step those that ended before it began, without those that another of them came after."""
    ended: list[tuple[datetime, int]] = []
    latest: list[datetime] = []
    ends = sorted((step.ended_at, place) for place, step in enumerate(steps) if step.ended_at is not None)
    start_so_far = datetime.min.replace(tzinfo=UTC)
    for end, place in ends:
        ended.append((end, place))
        start_so_far = max(start_so_far, steps[place].started_at or start_so_far)
        latest.append(start_so_far)
    for place, step in enumerate(steps):
        count = bisect_right(ended, (step.started_at or LATER, place))
        found: list[int] = []
        at = count - 1
        while at >= 0 and (ended[at][0] > latest[count - 1] or at == count - 1):
            if ended[at][1] < place:
                found.append(ended[at][1])
            at -= 1
        yield tuple(sorted(found))


def _shared(before: Sequence[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """What several steps wait for together, where it is more than one: drawn as one join."""
    seen: set[tuple[int, ...]] = set()
    found: set[tuple[int, ...]] = set()
    for each in before:
        if len(each) > 1:
            (found if each in seen else seen).add(each)
    return found
