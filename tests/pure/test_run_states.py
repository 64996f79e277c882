"""The states of runs and sagas: one table of moves, and two functions that must agree on what a status means."""

import itertools

import pytest

from durable_core.model.run import ENDS, MOVES, OPEN, RunStatus
from sagas.model import phases
from sagas.model.phases import SAGA_ENDS, Cause, Mark, MarkKind, Phase, SagaStatus, cause_of, query_of, status_of

GOING = [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING]
PHASES = ["", "past-pivot", *(f"compensating/{cause}" for cause in Cause)]
END_PHASES = [f"{word}/{cause}" for word in ("compensated", "resolved") for cause in Cause]
REACHABLE = [
    *itertools.product([*GOING, RunStatus.STUCK, RunStatus.KILLED], PHASES),
    *itertools.product([RunStatus.COMPLETED], ["", "past-pivot"]),
    *itertools.product([RunStatus.FAILED], END_PHASES),
]
"""What a saga's row may hold: a run's status with the phase that the driver wrote."""


def test_all_pairs_of_moves():
    """An open run may become anything else; an end is an end, but a killed run may be opened for its rollback."""
    for old, new in itertools.product(RunStatus, repeat=2):
        expected = old is not new and (old in OPEN or (old, new) == (RunStatus.KILLED, RunStatus.PENDING))
        assert (new in MOVES[old]) is expected, (old, new)


def test_every_status_is_open_or_an_end():
    """No status is both or neither, and the table of moves has a row for each."""
    assert set(RunStatus) == OPEN | ENDS
    assert not OPEN & ENDS
    assert set(MOVES) == set(RunStatus)


def test_all_pairs_of_phases():
    """A saga goes back only before its pivot, and an end is an end; a rollback may find that the pivot has happened."""
    moves = {
        ("", "past-pivot"),
        ("", "compensating"),
        ("compensating", "past-pivot"),
        ("compensating", "compensated"),
        ("compensating", "resolved"),
    }
    for old, new in itertools.product(Phase, repeat=2):
        assert (new in phases.MOVES[old]) is ((old, new) in moves), (old, new)


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
        "tag",
    }
    assert Mark(MarkKind.SKIPPED, "pay").text == "skipped:pay"
    assert Mark(MarkKind.PAST_PIVOT).text == "past-pivot"
    assert Mark.read("another-layer:pay") is None


@pytest.mark.parametrize(("status", "phase"), REACHABLE)
def test_a_status_and_the_query_for_it_agree(status: RunStatus, phase: str):
    """A saga is found by the status that it shows, and by no other; it has ended when its run has."""

    def finds(asked: SagaStatus) -> bool:
        statuses, phases = query_of(asked)
        return status in statuses and (phases is None or phase in phases)

    assert [asked for asked in SagaStatus if finds(asked)] == [status_of(status, phase)]
    assert (status_of(status, phase) in SAGA_ENDS) is (status in ENDS)


def test_every_status_of_a_saga_can_be_reached():
    """No word of the contract is left without a run that bears it."""
    assert {status_of(status, phase) for status, phase in REACHABLE} == set(SagaStatus)


@pytest.mark.parametrize("phase", [*PHASES, *END_PHASES])
def test_the_cause_is_told_only_of_sagas_that_go_back(phase: str):
    """failed, cancelled or deadline; none for a saga that goes forward."""
    cause = cause_of(phase)
    assert cause in ((None,) if phase in ("", "past-pivot") else set(Cause))
