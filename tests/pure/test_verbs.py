"""Operators' verbs: `judge` on every status, phase and step against the table that it reads."""

from datetime import UTC, datetime
from itertools import product

import attrs
import pytest

from sagas import SagaInfo, SagaStatus, StepState
from sagas.model.verbs import VERBS, Accept, Refuse, Repeat, judge

WHEN = datetime(2030, 1, 1, tzinfo=UTC)
STEP_STATUSES = (
    "pending",
    "running",
    "succeeded",
    "rejected",
    "failed",
    "unknown",
    "skipped",
    "compensated",
    "compensation_failed",
)
GOING = {SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.WAITING}
ENDED = {SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.RESOLVED, SagaStatus.KILLED}
UNDONE = {SagaStatus.COMPENSATED, SagaStatus.RESOLVED}
STEPLESS = [verb for verb, rule in VERBS.items() if rule.step is None]


def info(status: SagaStatus, *steps: StepState, paused: bool = False, stuck_on: tuple[str, ...] = ()) -> SagaInfo:
    return SagaInfo(
        id="o",
        saga="order",
        version=1,
        status=status,
        cause=None,
        input={},
        result=None,
        error=None,
        status_detail=None,
        created_at=WHEN,
        updated_at=WHEN,
        ended_at=WHEN if status in ENDED else None,
        wake_at=None,
        paused=paused,
        reason="stuck" if status is SagaStatus.STUCK else None,
        stuck_on=stuck_on,
        steps=list(steps),
    )


def state(status: str, key: str = "charge", kind: str = "step") -> StepState:
    return StepState(key=key, name=key, kind=kind, status=status, attempts=1)


EXPECTED: dict[str, tuple[set[SagaStatus], set[SagaStatus]]] = {
    "cancel": ({*GOING, SagaStatus.STUCK}, {SagaStatus.COMPENSATING, *UNDONE}),
    "retry": ({SagaStatus.STUCK}, set()),
    "kill": (set(SagaStatus) - ENDED, {SagaStatus.KILLED}),
    "pause": (set(SagaStatus) - ENDED, set()),
    "resume": (set(), set(SagaStatus) - ENDED),  # it is not paused: there is nothing to do
    "rollback": ({SagaStatus.STUCK, SagaStatus.KILLED}, {SagaStatus.COMPENSATING, *UNDONE}),
}
"""What the contract says of a saga that has not passed its pivot and is not paused: accepted in, harmless in."""


def test_the_table_names_every_verb():
    """The table holds the contract's eight verbs, each with what it does and where it is accepted."""
    assert set(VERBS) == {"cancel", "retry", "skip", "resolve", "kill", "pause", "resume", "rollback"}
    for rule in VERBS.values():
        assert rule.does
        assert rule.accepted
        assert not rule.accepted & rule.repeated


@pytest.mark.parametrize(("verb", "status"), list(product(STEPLESS, SagaStatus)))
def test_a_verb_without_a_step_in_every_status(verb: str, status: SagaStatus):
    """Each verb that needs no step is accepted, harmless or refused as the contract says."""
    accepted, harmless = EXPECTED[verb]
    expected = Accept if status in accepted else Repeat if status in harmless else Refuse
    assert isinstance(judge(verb, info(status), "", None), expected)


@pytest.mark.parametrize(("verb", "status"), list(product(STEPLESS, SagaStatus)))
def test_the_table_and_judge_agree(verb: str, status: SagaStatus):
    """Where nothing else speaks, what the table accepts is accepted, what it repeats changes nothing."""
    rule = VERBS[verb]
    answer = judge(verb, info(status), "", None)
    if verb == "resume" and status in rule.accepted:
        assert isinstance(answer, Repeat)
    elif status in rule.accepted:
        assert isinstance(answer, Accept)
    elif status in rule.repeated:
        assert isinstance(answer, Repeat)
    else:
        assert isinstance(answer, Refuse)
        assert not answer.past_pivot
        assert status.value in answer.why
        assert verb in answer.why


@pytest.mark.parametrize("status", SagaStatus)
@pytest.mark.parametrize("paused", [False, True])
def test_pause_and_resume_are_about_being_paused(status: SagaStatus, paused: bool):  # noqa: FBT001
    """Pausing what is paused, and resuming what is not, changes nothing; an ended saga refuses both."""
    answers = {verb: judge(verb, info(status, paused=paused), "", None) for verb in ("pause", "resume")}
    if status in ENDED:
        assert all(isinstance(answer, Refuse) for answer in answers.values())
    else:
        assert isinstance(answers["pause"], Repeat if paused else Accept)
        assert isinstance(answers["resume"], Accept if paused else Repeat)


@pytest.mark.parametrize(("verb", "status"), list(product(("cancel", "rollback"), SagaStatus)))
def test_after_the_pivot_nothing_is_undone(verb: str, status: SagaStatus):
    """After the pivot cancel and rollback are refused as past it, whatever the status, unless all is undone."""
    answer = judge(verb, info(status), "past-pivot", None)
    if status in VERBS[verb].repeated:
        assert isinstance(answer, Repeat)
    else:
        assert isinstance(answer, Refuse)
        assert answer.past_pivot


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"cancel", "rollback"}))
def test_the_pivot_matters_to_undoing_alone(verb: str):
    """All other verbs answer alike before and after the pivot."""
    for status, paused in product(SagaStatus, (False, True)):
        stuck = info(status, state("unknown"), paused=paused, stuck_on=("charge",))
        before, after = (judge(verb, stuck, phase, None) for phase in ("", "past-pivot"))
        assert type(before) is type(after)


@pytest.mark.parametrize(("status", "step"), list(product(SagaStatus, STEP_STATUSES)))
def test_skip_is_for_a_compensation_that_was_given_up(status: SagaStatus, step: str):
    """Skip is accepted for a dead compensation of a stuck saga, harmless where it was skipped, refused else."""
    stuck_on = ("charge",) if step == "compensation_failed" else ()
    answer = judge("skip", info(status, state(step), stuck_on=stuck_on), "compensating/failed", "charge")
    if step == "skipped":
        assert isinstance(answer, Repeat)
    elif status is SagaStatus.STUCK and step == "compensation_failed":
        assert isinstance(answer, Accept)
    else:
        assert isinstance(answer, Refuse)


@pytest.mark.parametrize(("status", "step"), list(product(SagaStatus, STEP_STATUSES)))
def test_resolve_is_for_an_unknown_outcome(status: SagaStatus, step: str):
    """Resolve is accepted for the step of a stuck saga whose outcome is unknown, and for nothing else."""
    stuck_on = ("charge",) if step == "unknown" else ()
    answer = judge("resolve", info(status, state(step), stuck_on=stuck_on), "", "charge")
    if status is SagaStatus.STUCK and step == "unknown":
        assert isinstance(answer, Accept)
    else:
        assert not isinstance(answer, Accept)


@pytest.mark.parametrize("step", STEP_STATUSES)
def test_retry_is_for_what_the_saga_is_stuck_on(step: str):
    """Retry of one step is refused unless the saga is stuck on that step, whatever the step's status."""
    stuck = info(SagaStatus.STUCK, state(step), state("succeeded", "other"), stuck_on=("charge",))
    assert isinstance(judge("retry", stuck, "", "charge"), Accept)
    assert isinstance(judge("retry", stuck, "", "other"), Refuse)


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve"])
def test_a_step_that_does_not_exist_is_named_with_those_that_do(verb: str):
    """A wrong step key is refused in every status, with the keys there are."""
    for status in SagaStatus:
        answer = judge(verb, info(status, state("unknown"), state("succeeded", "other")), "", "chrage")
        assert isinstance(answer, Refuse)
        assert "'chrage'" in answer.why
        assert "charge, other" in answer.why


@pytest.mark.parametrize("phase", ["compensating/failed", "compensating/cancelled", "compensating/deadline"])
def test_a_cancel_amid_a_rollback_changes_nothing(phase: str):
    """A saga that is being undone and is stuck takes a cancel as done already: its cause stays."""
    assert isinstance(judge("cancel", info(SagaStatus.STUCK), phase, None), Repeat)


def test_rollback_waits_for_the_pivots_outcome():
    """A saga stuck on the unknown outcome of its pivot must have that settled before it may be undone."""
    stuck = info(SagaStatus.STUCK, state("unknown", "sell", "pivot"), stuck_on=("sell",))
    assert isinstance(judge("rollback", stuck, "", None), Refuse)
    assert isinstance(judge("resolve", stuck, "", "sell"), Accept)


def test_judging_changes_nothing():
    """The same saga judged twice has the same answers: judge is pure."""
    stuck = info(SagaStatus.STUCK, state("unknown"), stuck_on=("charge",))
    before = attrs.asdict(stuck)
    first = [judge(verb, stuck, "", "charge") for verb in VERBS]
    assert [judge(verb, stuck, "", "charge") for verb in VERBS] == first
    assert attrs.asdict(stuck) == before
