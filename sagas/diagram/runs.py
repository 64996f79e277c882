"""The picture of one run, and of many runs of one saga together.

Invariant: a picture of a run says what its journal says. Each step of it stands at one node: at its place in the
definition where that is known, else in a node of its own.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from sagas.diagram.alone import picture_alone
from sagas.diagram.graphs import END, START
from sagas.diagram.picture import ACTIVITIES, Counts, Edge, Mark, Picture, State, is_state, kind_or_step
from sagas.diagram.placing import Placing
from sagas.diagram.ways import ways_of
from sagas.model.info import SagaInfo, StepState
from sagas.model.plan import undo_key

FAILED = frozenset({"failed", "rejected", "unknown", "compensation_failed"})
UNDONE = frozenset({"compensated", "skipped"})


def run_picture(info: SagaInfo, definition: Picture | None = None) -> Picture:
    """The picture of a run: laid over the picture of its definition, if that is known."""
    base = picture_alone(info) if definition is None else definition
    placed = Placing(base).all(info.steps)
    picture = _with_extra(base, placed)
    nodes = [_run_mark(mark, placed.get(mark.key, ())) for mark in picture.nodes]
    ways = _ways(picture, placed, info)
    cause = f" ({info.cause})" if info.cause else ""
    return attrs.evolve(
        picture,
        title=f"{info.saga} {info.id}",
        subtitle=f"version {info.version} · {info.status.value}{cause}",
        nodes=tuple(_passed(mark, info, ways) for mark in nodes),
        edges=tuple(attrs.evolve(edge, faded=(edge.source, edge.target) not in ways) for edge in picture.edges),
        undos=tuple(_run_undos(picture, placed)),
    )


def _with_extra(base: Picture, placed: dict[str, list[StepState]]) -> Picture:
    """The steps that the definition does not show, after the node that stands for what cannot be read."""
    known = {mark.key for mark in base.nodes}
    extra = [_step_mark(steps[0]) for key, steps in placed.items() if key not in known]
    if not extra:
        return base
    before = next((mark.key for mark in base.nodes if mark.kind == "unreadable"), START)
    edges: list[Edge] = []
    for mark in extra:
        edges.append(Edge(source=before, target=mark.key, kind="when", label="seen in this run"))
        before = mark.key
    return attrs.evolve(base, nodes=(*base.nodes, *extra), edges=(*base.edges, *edges))


def _ways(picture: Picture, placed: dict[str, list[StepState]], info: SagaInfo) -> set[tuple[str, str]]:
    """The edges that a run took."""
    known = {mark.key for mark in picture.nodes}
    reached = {key: len(steps) for key, steps in placed.items() if key in known}
    return ways_of(picture, reached, completed=info.status.value == "completed")


def _step_mark(step: StepState) -> Mark:
    return Mark(key=step.key, label=step.name, kind=kind_or_step(step.kind))


def _run_mark(mark: Mark, steps: Sequence[StepState]) -> Mark:
    """A node with what became of it; of a loop or a map, all steps together."""
    if mark.kind not in ACTIVITIES:
        return mark
    if not steps:
        return attrs.evolve(mark, state="unreached")
    return attrs.evolve(
        _brief(mark),
        state=_state(steps),
        attempts=max(step.attempts for step in steps),
        duration_s=_duration_s(steps),
        times=len(steps),
    )


def _brief(mark: Mark) -> Mark:
    """Without the note of a pivot, which makes room for what became of it."""
    return attrs.evolve(mark, note="") if mark.kind == "pivot" else mark


def _state(steps: Sequence[StepState]) -> State:
    """What became of several steps together: the first that did not succeed, as a person would look for it."""
    worst = next((step for step in steps if step.status in FAILED), None)
    open_ = next((step for step in reversed(steps) if step.status in ("running", "pending")), None)
    status = (worst or open_ or steps[-1]).status
    return status if is_state(status) else "unknown"


def _duration_s(steps: Iterable[StepState]) -> float | None:
    """The seconds that the steps took, one with the other; None while one is under way."""
    total = 0.0
    for step in steps:
        if step.started_at is None or step.ended_at is None:
            return None
        total += (step.ended_at - step.started_at).total_seconds()
    return total


def _passed(mark: Mark, info: SagaInfo, ways: set[tuple[str, str]]) -> Mark:
    """A node that no run has in its journal: the end, and what the run did not come through on its way."""
    if mark.kind in ACTIVITIES or mark.kind == "start":
        return mark
    if mark.key == END and info.status.value == "completed":
        return attrs.evolve(mark, state="succeeded")
    return mark if any(target == mark.key for _, target in ways) else attrs.evolve(mark, state="unreached")


# -- the undo lane -----------------------------------------------------------------------------------------------------


def _run_undos(picture: Picture, placed: dict[str, list[StepState]]) -> Iterable[Mark]:
    """The undo lane: what the definition has, and what the run has undone."""
    known = picture.undo_of()
    for mark in picture.nodes:
        steps = placed.get(mark.key, [])
        undo = known.get(mark.key)
        undone = [step for step in steps if _has_undo(step)]
        if undo is None and undone:
            undo = Mark(key=undo_key(mark.key), label=f"undo {mark.label}", kind="compensation", serves=mark.key)
        if undo is not None:
            yield _undo_mark(undo, steps, undone)


def _has_undo(step: StepState) -> bool:
    return step.compensation is not None or step.status in (*UNDONE, "compensation_failed")


def _undo_mark(undo: Mark, steps: Sequence[StepState], undone: Sequence[StepState]) -> Mark:
    if not undone:
        return undo if steps else attrs.evolve(undo, state="unreached")
    calls = [step.compensation for step in undone if step.compensation is not None]
    return attrs.evolve(
        undo,
        state=_undo_state(undone),
        attempts=max((call.attempts for call in calls), default=0),
        duration_s=_duration_s(calls) if calls else None,
        times=len(undone),
    )


def _undo_state(undone: Sequence[StepState]) -> State:
    """What became of the undos together: the first that did not succeed."""
    for step in undone:
        own = step.compensation is None or step.status in ("skipped", "compensation_failed")
        state = _state([step if own or step.compensation is None else step.compensation])
        if state not in ("compensated", "succeeded"):
            return state
    return "succeeded"  # also of a child, which has no compensation: its own steps were undone


# -- many runs ---------------------------------------------------------------------------------------------------------


def observed_picture(definition: Picture, infos: Sequence[SagaInfo]) -> Picture:
    """The picture of a saga with what became of many runs: counts of each node, each edge and each undo."""
    nodes: dict[str, Counter[str]] = {mark.key: Counter() for mark in (*definition.nodes, *definition.undos)}
    edges: Counter[tuple[str, str]] = Counter()
    statuses: Counter[str] = Counter()
    for info in infos:
        statuses[info.status.value] += 1
        placed = Placing(definition).all(info.steps)
        _count(definition, placed, nodes)
        edges.update(_ways(definition, placed, info))
    outcome = " · ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    return attrs.evolve(
        definition,
        subtitle=" · ".join(filter(None, (definition.subtitle, f"{len(infos)} runs", outcome))),
        nodes=tuple(_counted(mark, nodes[mark.key]) for mark in definition.nodes),
        undos=tuple(_counted(undo, nodes[undo.key]) for undo in definition.undos),
        edges=tuple(attrs.evolve(edge, count=edges[edge.source, edge.target]) for edge in definition.edges),
    )


def _count(definition: Picture, placed: dict[str, list[StepState]], found: dict[str, Counter[str]]) -> None:
    undos = definition.undo_of()
    for key, steps in placed.items():
        if key not in found:
            continue
        found[key]["reached"] += 1
        found[key]["failed"] += any(step.status in FAILED - {"compensation_failed"} for step in steps)
        found[key]["undone"] += any(step.status in UNDONE for step in steps)
        undone = [step for step in steps if _has_undo(step)]
        if key in undos and undone:
            found[undos[key].key]["reached"] += 1
            found[undos[key].key]["failed"] += any(step.status == "compensation_failed" for step in undone)


def _counted(mark: Mark, counts: Counter[str]) -> Mark:
    if mark.kind not in ACTIVITIES and mark.kind != "compensation":
        return mark
    found = Counts(reached=counts["reached"], failed=counts["failed"], undone=counts["undone"])
    return attrs.evolve(_brief(mark), counts=found, state="" if found.reached else "unreached")
