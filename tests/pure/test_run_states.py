"""The states of runs and sagas: one table of moves, and two functions that must agree on what a status means."""

import itertools

import pytest

from durable_core.model.run import ENDS, MOVES, OPEN, RunStatus
from sagas.model import phases
from sagas.model.info import SagaInfo, StepState, at
from sagas.model.phases import SAGA_ENDS, Cause, Mark, MarkKind, Phase, SagaStatus, cause_of, query_of, status_of
from sagas.model.verbs import VERBS, Accept, Refuse, Repeat, judge

PAIRS = list(itertools.product(RunStatus, repeat=2))

GOING = [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING]
PHASES = ["", "past-pivot", *(f"compensating/{cause}" for cause in Cause)]
END_PHASES = [f"{word}/{cause}" for word in ("compensated", "resolved") for cause in Cause]
REACHABLE = [
    *itertools.product([*GOING, RunStatus.STUCK, RunStatus.KILLED], PHASES),
    *itertools.product([RunStatus.COMPLETED], ["", "past-pivot"]),
    *itertools.product([RunStatus.FAILED], END_PHASES),
]
"""What a saga's row may hold: a run's status with the phase that the driver wrote."""


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_all_pairs_of_moves(old: RunStatus, new: RunStatus):
    """An open run may become anything else; an end is an end, but a killed run may be opened for its rollback."""
    expected = old is not new and (old in OPEN or (old, new) == (RunStatus.KILLED, RunStatus.PENDING))
    assert (new in MOVES[old]) is expected


def test_every_status_is_open_or_an_end():
    """No status is both or neither, and the table of moves has a row for each."""
    assert set(RunStatus) == OPEN | ENDS
    assert not OPEN & ENDS
    assert set(MOVES) == set(RunStatus)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Phase, repeat=2)))
def test_all_pairs_of_phases(old: Phase, new: Phase):
    """A saga goes back only before its pivot, and an end is an end; a rollback may find that the pivot has happened."""
    moves = {
        ("", "past-pivot"),
        ("", "compensating"),
        ("compensating", "past-pivot"),
        ("compensating", "compensated"),
        ("compensating", "resolved"),
    }
    assert (new in phases.MOVES[old]) is ((old, new) in moves)


@pytest.mark.parametrize("kind", list(MarkKind))
def test_a_mark_is_read_as_it_was_written(kind: MarkKind):
    """A mark's text gives its kind and what it is about; keys may hold colons themselves."""
    for mark in (Mark(kind), Mark(kind, "child#2/pay~undo"), Mark(kind, "a:b")):
        assert Mark.read(mark.text) == mark


def test_marks_are_stored_under_these_texts():
    """Journals hold them for ever; what is no mark of a saga is read as none."""
    assert {kind.value for kind in MarkKind} == {
        "compensating",
        "past-pivot",
        "too-late",
        "skipped",
        "undoing",
        "child",
        "child-completed",
        "child-deadline",
        "child-compensated",
    }
    assert Mark(MarkKind.SKIPPED, "pay").text == "skipped:pay"
    assert Mark(MarkKind.PAST_PIVOT).text == "past-pivot"
    assert Mark.read("another-layer:pay") is None


@pytest.mark.parametrize(("status", "phase"), REACHABLE)
def test_a_status_and_the_query_for_it_agree(status: RunStatus, phase: str):
    """A saga is found by the status that it shows, and by no other."""

    def finds(asked: SagaStatus) -> bool:
        statuses, phases = query_of(asked)
        return status in statuses and (phases is None or phase in phases)

    assert [asked for asked in SagaStatus if finds(asked)] == [status_of(status, phase)]


def test_every_status_of_a_saga_can_be_reached():
    """No word of the contract is left without a run that bears it."""
    assert {status_of(status, phase) for status, phase in REACHABLE} == set(SagaStatus)


@pytest.mark.parametrize(("status", "phase"), REACHABLE)
def test_a_saga_has_ended_when_its_run_has(status: RunStatus, phase: str):
    """Completed, compensated, resolved and killed are ends; all else goes on, or waits for a person."""
    assert (status_of(status, phase) in SAGA_ENDS) is (status in ENDS)


@pytest.mark.parametrize("phase", [*PHASES, *END_PHASES])
def test_the_cause_is_told_only_of_sagas_that_go_back(phase: str):
    """failed, cancelled or deadline; none for a saga that goes forward."""
    cause = cause_of(phase)
    assert cause in ((None,) if phase in ("", "past-pivot") else set(Cause))


def info(status: SagaStatus, *, paused: bool = False, step: str = "succeeded") -> SagaInfo:
    """A saga that stands so, with one step."""
    return SagaInfo(
        id="order-17",
        saga="order",
        version=1,
        status=status,
        cause=None,
        input={},
        stuck_on=("charge",),
        result=None,
        error=None,
        status_detail=None,
        created_at=at(0),
        updated_at=at(0),
        ended_at=None,
        wake_at=None,
        paused=paused,
        reason=None,
        steps=[StepState(key="charge", name="charge", kind="step", status=step, attempts=1)],
    )


def named(verb: str) -> tuple[str | None, str]:
    """The step that a verb must name, and the status that it must have."""
    rule = VERBS[verb]
    return (None, "succeeded") if rule.step is None else ("charge", rule.step)


@pytest.mark.parametrize(("verb", "status"), list(itertools.product(VERBS, SagaStatus)))
def test_every_verb_in_every_state(verb: str, status: SagaStatus):
    """Accepted, a harmless repetition, or refused with saga, state and verb: as the table says, for all pairs."""
    rule = VERBS[verb]
    step, step_status = named(verb)
    answer = judge(verb, info(status, paused=verb == "resume", step=step_status), "", step)
    if status in rule.repeated:
        assert answer == Repeat()
    elif status in rule.accepted:
        assert answer == Accept()
    else:
        assert isinstance(answer, Refuse)
        assert not answer.past_pivot
        assert all(word in answer.why for word in ("order-17", status, verb))


def test_the_table_of_verbs_contradicts_nothing():
    """No state both accepts a verb and calls it repeated; of the ends only a killed saga takes one: rollback."""
    for verb, rule in VERBS.items():
        assert rule.accepted, verb
        assert not rule.accepted & rule.repeated, verb
        assert not rule.accepted & SAGA_ENDS or (verb, rule.accepted & SAGA_ENDS) == ("rollback", {SagaStatus.KILLED})


@pytest.mark.parametrize("status", [status for status in SagaStatus if status not in SAGA_ENDS - {SagaStatus.KILLED}])
@pytest.mark.parametrize("verb", [verb for verb, rule in VERBS.items() if rule.undoes])
def test_nothing_is_undone_past_the_pivot(verb: str, status: SagaStatus):
    """Whatever its state, a saga past its pivot refuses to be rolled back, and says why."""
    if status in VERBS[verb].repeated:
        return
    answer = judge(verb, info(status), "past-pivot", None)
    assert isinstance(answer, Refuse)
    assert answer.past_pivot
    assert "pivot" in answer.why


@pytest.mark.parametrize("verb", [verb for verb, rule in VERBS.items() if rule.step is not None])
def test_a_verb_about_a_step_asks_for_one_in_its_state(verb: str):
    """A step that is not there is refused with those that are; one in another state with its state."""
    unknown = judge(verb, info(SagaStatus.STUCK), "", "nobody")
    assert isinstance(unknown, Refuse)
    assert "charge" in unknown.why
    other = judge(verb, info(SagaStatus.STUCK, step="succeeded"), "", "charge")
    assert isinstance(other, Refuse)
    assert "succeeded" in other.why


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pausing_twice_is_harmless(verb: str):
    """A saga that is paused already, or was never, is left as it is."""
    assert judge(verb, info(SagaStatus.RUNNING, paused=verb == "pause"), "", None) == Repeat()
