"""The states of runs and sagas: one table of moves, and two functions that must agree on what a status means."""

import itertools

import pytest

from durable_core.model.run import ENDS, MOVES, OPEN, RunStatus
from sagas.model.info import CAUSES, SAGA_ENDS, SagaStatus, cause_of, query_of, status_of
from sagas.model.verbs import ALLOWED, refusal

PAIRS = list(itertools.product(RunStatus, repeat=2))

GOING = {RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING}
PHASES = ["", "past-pivot", *(f"compensating/{cause}" for cause in CAUSES)]
END_PHASES = [f"{word}/{cause}" for word in ("compensated", "resolved") for cause in CAUSES]
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
    assert OPEN | ENDS == set(RunStatus)
    assert not OPEN & ENDS
    assert set(MOVES) == set(RunStatus)


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


@pytest.mark.parametrize("phase", ["", "past-pivot", *(f"compensating/{cause}" for cause in CAUSES)])
def test_a_run_that_failed_without_a_finished_rollback_is_not_called_compensated(phase: str):
    """Whatever goes wrong inside the engine: only a finished rollback is shown as one."""
    try:
        shown = status_of(RunStatus.FAILED, phase)
    except ValueError:
        return
    assert shown not in (SagaStatus.COMPENSATED, SagaStatus.RESOLVED)


@pytest.mark.parametrize("phase", [*PHASES, *END_PHASES])
def test_the_cause_is_told_only_of_sagas_that_go_back(phase: str):
    """failed, cancelled or deadline; none for a saga that goes forward."""
    cause = cause_of(phase)
    assert cause in ((None,) if phase in ("", "past-pivot") else CAUSES)


@pytest.mark.parametrize(("verb", "status"), list(itertools.product(ALLOWED, SagaStatus)))
def test_a_verb_is_refused_in_every_state_but_those_of_its_table(verb: str, status: SagaStatus):
    """The refusal names the saga, the state and the verb; where the table allows it there is none."""
    why = refusal(verb, status, "", saga_id="order-17")
    if status in ALLOWED[verb]:
        assert why is None
    else:
        assert why is not None
        assert "order-17" in why
        assert status in why
        assert verb in why


@pytest.mark.parametrize("status", SagaStatus)
def test_nothing_is_cancelled_past_the_pivot(status: SagaStatus):
    """Whatever its state, a saga past its pivot refuses to be cancelled, and says why."""
    why = refusal("cancel", status, "past-pivot", saga_id="order-17")
    assert why is not None
    assert "pivot" in why
