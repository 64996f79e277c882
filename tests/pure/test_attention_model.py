"""What of a saga needs a person, and how it reads in status, log and trace: from its row and journal alone."""

from typing import Any

import attrs
import msgspec
import pytest

from durable_core import RunStatus
from durable_core.layer import EntryKind, JournalEntry, Notes
from sagas.model.attention import line_of, needs_of
from sagas.model.info import info_of, reason_of, steps_of
from sagas.model.spans import mark
from tests.pure.records import record

K = EntryKind


def entry(
    seq: int, kind: EntryKind, key: str = "", label: str = "", payload: Any = None, **columns: Any
) -> JournalEntry:
    stored = None if payload is None else msgspec.json.encode(payload)
    return JournalEntry(1, seq, kind, key, 1, label, stored, None, None, seq * 1000, None, "w")._replace(**columns)


def failed(seq: int, *, due: bool = True) -> JournalEntry:
    return entry(seq, K.FAILED, "charge", "failed", error=b'{"type":"shop:Closed"}', due_at_ns=seq if due else None)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("cancel", "it broke. A cancel was asked for. The saga is undone once the code fits again"),
        ("deadline", "it broke. Its deadline has passed. The saga is undone once the code fits again"),
        ("pause", "it broke."),
    ],
)
def test_a_stuck_saga_says_that_a_cancel_waits(asked: str, said: str):
    """It cannot be undone by code that does not fit; the reason says how it can be without."""
    stuck = attrs.evolve(record(RunStatus.STUCK), reason="it broke.")
    assert (reason_of(stuck, [entry(1, K.HELD, asked)]) or "").startswith(said)
    assert reason_of(attrs.evolve(stuck, status=RunStatus.RUNNING), [entry(1, K.HELD, asked)]) == "it broke."


@pytest.mark.parametrize(
    ("after", "status"),
    [
        ([], "succeeded"),
        ([entry(3, K.STARTED, "pay~undo", "compensation")], "succeeded"),
        ([entry(3, K.STARTED, "pay~undo", "compensation"), entry(4, K.SUCCEEDED, "pay~undo")], "compensated"),
        (
            [entry(3, K.STARTED, "pay~undo", "compensation"), entry(4, K.FAILED, "pay~undo", "failed")],
            "compensation_failed",
        ),
        ([entry(3, K.PARKED, "pay~undo", payload={"steps": ["pay"]})], "compensation_failed"),
        ([entry(3, K.MARKED, "skipped:pay")], "skipped"),
    ],
)
def test_a_step_stands_as_its_compensation_does(after: list[JournalEntry], status: str):
    """Once that has ended, was given up or was skipped; until then as it had ended itself."""
    (step,) = steps_of([entry(1, K.STARTED, "pay", "step"), entry(2, K.SUCCEEDED, "pay"), *after])
    assert step.status == status


def needs(*entries: JournalEntry, worker: str = "w") -> list[str]:
    info = info_of(record(RunStatus.RUNNING), entries, read_input=msgspec.json.decode, read_result=msgspec.json.decode)
    return [line_of(info, need) for need in needs_of(info, entries, worker=worker)]


def test_a_step_that_goes_on_failing_is_told_once():
    """At its tenth failure, if it is tried again, by the worker that saw it; an operator's retry counts anew."""
    nine = [failed(seq) for seq in range(1, 10)]
    assert needs(*nine) == []
    assert needs(*nine, failed(10, due=False)) == []
    (line,) = needs(*nine, failed(10), failed(11))
    assert "continues and needs a person: step 'charge' has failed 10 times and is tried again" in line
    assert needs(*nine, failed(10), worker="other") == []
    assert needs(*nine, entry(10, K.REOPENED, "charge"), failed(11)) == []


@pytest.mark.parametrize(("text", "note"), [("child-deadline:fly", "deadline"), ("too-late:cancelled", "too late")])
def test_a_deadline_of_a_child_and_a_late_cause_are_notes(text: str, note: str):
    """They are moments in a trace, and open no span."""
    (found,) = mark(entry(1, K.MARKED, text))
    assert isinstance(found, Notes)
    assert (found.name, list(found.attributes.values())) == (note, [text.partition(":")[2]])


def test_a_mark_that_is_no_sagas_means_nothing():
    """Nor does one that only the driver reads."""
    assert [*mark(entry(1, K.MARKED, "patch:x"))] == [*mark(entry(1, K.MARKED, "past-pivot"))] == []
