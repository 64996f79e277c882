"""Operators' verbs: `judge` on every status, phase and step against the table that it reads."""

from datetime import UTC, datetime
from itertools import product

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
    "skip": ({SagaStatus.STUCK}, set()),
    "resolve": ({SagaStatus.STUCK}, set()),
    "kill": (set(SagaStatus) - ENDED, {SagaStatus.KILLED}),
    "pause": (set(SagaStatus) - ENDED, set()),
    "resume": (set(SagaStatus) - ENDED, set()),
    "rollback": ({SagaStatus.STUCK, SagaStatus.KILLED}, {SagaStatus.COMPENSATING, *UNDONE}),
}
"""What the contract says of a saga that has not passed its pivot, where the verb's step stands as it must."""


def test_the_table_holds_the_contract():
    """The eight verbs, each with what it does, where it is accepted and where it is harmless, and never both."""
    assert {verb: (rule.accepted, rule.repeated) for verb, rule in VERBS.items()} == EXPECTED
    for rule in VERBS.values():
        assert rule.does
        assert not rule.accepted & rule.repeated


@pytest.mark.parametrize(("verb", "status"), list(product(VERBS, SagaStatus)))
def test_every_verb_in_every_status(verb: str, status: SagaStatus):
    """Accepted, a harmless repetition, or refused with saga, status and verb; asked again, the answer is the same."""
    accepted, harmless = EXPECTED[verb]
    needs = min(VERBS[verb].steps, default=None)
    stands = info(status, state(needs or "succeeded"), paused=verb == "resume", stuck_on=("charge",))
    answer = judge(verb, stands, "", None if needs is None else "charge")
    assert judge(verb, stands, "", None if needs is None else "charge") == answer
    if status in accepted:
        assert answer == Accept()
    elif status in harmless:
        assert answer == Repeat()
    else:
        assert isinstance(answer, Refuse)
        assert not answer.past_pivot
        assert all(word in answer.why for word in ("'o'", status, verb))


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
    """After the pivot cancel and rollback are refused because of it, whatever the status, unless all is undone."""
    answer = judge(verb, info(status), "past-pivot", None)
    if status in VERBS[verb].repeated:
        assert answer == Repeat()
    else:
        assert isinstance(answer, Refuse)
        assert answer.past_pivot
        assert "pivot" in answer.why


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"cancel", "rollback"}))
def test_the_pivot_matters_to_undoing_alone(verb: str):
    """All other verbs answer alike before and after the pivot."""
    for status, paused in product(SagaStatus, (False, True)):
        stuck = info(status, state("unknown"), paused=paused, stuck_on=("charge",))
        before, after = (judge(verb, stuck, phase, None) for phase in ("", "past-pivot"))
        assert type(before) is type(after)


@pytest.mark.parametrize("step", STEP_STATUSES)
@pytest.mark.parametrize(
    ("verb", "needs", "done", "phase"),
    [
        ("skip", {"compensation_failed"}, "skipped", "compensating/failed"),
        ("resolve", {"unknown", "failed", "compensation_failed"}, None, ""),
    ],
)
def test_a_step_is_skipped_or_resolved_where_the_saga_is_stuck_on_it(
    verb: str, needs: set[str], done: str | None, phase: str, step: str
):
    """Skip is for a compensation that was given up, resolve for an outcome, of a stuck saga, and nothing else.

    Where the step was skipped already it is harmless.
    """
    for status in SagaStatus:
        stuck_on = ("charge",) if step in needs else ()
        answer = judge(verb, info(status, state(step), stuck_on=stuck_on), phase, "charge")
        if step == done:
            assert answer == Repeat()
        elif status is SagaStatus.STUCK and step in needs:
            assert answer == Accept()
        else:
            assert isinstance(answer, Refuse)


@pytest.mark.parametrize("step", STEP_STATUSES)
def test_retry_is_for_what_the_saga_is_stuck_on(step: str):
    """Retry of one step is refused unless the saga is stuck on that step, whatever the step's status."""
    stuck = info(SagaStatus.STUCK, state(step), state("succeeded", "other"), stuck_on=("charge",))
    assert isinstance(judge("retry", stuck, "", "charge"), Accept)
    assert isinstance(judge("retry", stuck, "", "other"), Refuse)


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve"])
def test_a_verb_about_a_step_asks_for_one_in_its_state(verb: str):
    """A step that is not there is refused in every status, with those there are; one in another state, with that."""
    for status in SagaStatus:
        answer = judge(verb, info(status, state("unknown"), state("succeeded", "other")), "", "chrage")
        assert isinstance(answer, Refuse)
        assert "'chrage'" in answer.why
        assert "charge, other" in answer.why
    other = judge(verb, info(SagaStatus.STUCK, state("succeeded"), stuck_on=("sell",)), "", "charge")
    assert isinstance(other, Refuse)
    assert ("succeeded" in other.why) is bool(VERBS[verb].steps)


@pytest.mark.parametrize("phase", ["compensating/failed", "compensating/cancelled", "compensating/deadline"])
def test_a_cancel_amid_a_rollback_changes_nothing(phase: str):
    """A saga that is being undone and is stuck takes a cancel as done already: its cause stays."""
    assert isinstance(judge("cancel", info(SagaStatus.STUCK), phase, None), Repeat)


def test_rollback_waits_for_the_pivots_outcome():
    """A saga stuck on the unknown outcome of its pivot must have that settled before it may be undone."""
    stuck = info(SagaStatus.STUCK, state("unknown", "sell", "pivot"), stuck_on=("sell",))
    assert isinstance(judge("rollback", stuck, "", None), Refuse)
    assert isinstance(judge("resolve", stuck, "", "sell"), Accept)


def test_a_compensation_must_happen():
    """A given-up compensation can be said to have happened, and never not to have."""
    stuck = info(SagaStatus.STUCK, state("compensation_failed"), stuck_on=("charge",))
    assert isinstance(judge("resolve", stuck, "compensating/failed", "charge", happened=True), Accept)
    assert isinstance(judge("resolve", stuck, "compensating/failed", "charge", happened=False), Refuse)
