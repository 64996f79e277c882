"""A journal as its users read it: callbacks, waits, children and lines of the history, and late ends of attempts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from durable_core.errors import PayloadError
from durable_core.model.callback import Declared, Pulse, state_of
from durable_core.model.entry import ANSWERED_BY, Entry, EntryKind, evidence, held
from durable_core.model.info import history_of, plain_input, read_or_plain, steps_of
from sagas.model.spans import ending, standings

BEGAN = datetime(1970, 1, 1, tzinfo=UTC)
K = EntryKind


def entry(seq: int, kind: EntryKind, key: str = "", label: str = "", payload: Any = None, **columns: Any) -> Entry:
    stored = None if payload is None else msgspec.json.encode(payload)
    return Entry(1, seq, kind, key, 0, label, stored, None, None, seq * 1000, None, "w")._replace(**columns)


ARMED = entry(1, K.ARMED, "ok", "callback", {"type": "builtins:bool", "heartbeat_ns": 50})
BEAT = entry(3, K.HEARTBEAT, "ok", due_at_ns=3050)


def test_a_callback_is_open_until_an_entry_ends_it():
    """An answer, the end of its time, or the end of its run; what is about others says nothing of it."""
    others = [entry(2, K.ARMED, "nap", "sleep"), entry(4, K.FIRED, "nap"), entry(5, K.STARTED, "ok")]
    assert state_of(others, "ok") is None
    state = state_of([ARMED, *others], "ok")
    assert state is not None
    assert (state.armed, state.ended, state.beat) == (ARMED, None, None)
    assert state.declared == Declared("builtins:bool", 50)
    for kind in (K.ANSWERED, K.FIRED, K.CLOSED):
        end = entry(6, kind, "ok")
        found = state_of([end, ARMED, *others, end, entry(7, K.HEARTBEAT, "ok")], "ok")
        assert found is not None
        assert (found.ended, found.beat) == (end, None)


def test_heartbeats_count_from_the_beginning_or_from_the_last_one():
    """None are expected where none are asked for."""
    asked = state_of([ARMED], "ok")
    beaten = state_of([ARMED, BEAT], "ok")
    silent = state_of([ARMED._replace(payload=None)], "ok")
    assert asked is not None
    assert beaten is not None
    assert silent is not None
    assert (asked.pulse, beaten.pulse, silent.pulse) == (Pulse(50, 1050), Pulse(50, 3050, 3000), None)


def test_the_last_note_of_a_late_end_is_evidence_until_the_run_goes_on():
    """An entry about the attempt's step makes it void, and one of another step does not."""
    note = entry(2, K.NOTED, "charge", "succeeded", 7, started_at_ns=1)
    assert evidence([note]) == {"charge": note}
    assert evidence([note, entry(3, K.STARTED, "ship"), entry(4, K.MARKED, "charge")]) == {"charge": note}
    assert evidence([note, entry(3, K.RETRIED, "charge")]) == {}


def test_a_signal_is_held_until_it_is_delivered():
    """By the entry that names it."""
    kept = entry(2, K.HELD, "cancel")
    assert held([kept]) == [kept]
    assert held([kept, entry(3, K.SIGNALLED, label="charge", attempt=2)]) == [kept]
    assert held([kept, entry(3, K.SIGNALLED, attempt=2)]) == []
    assert held([kept, entry(3, K.ANSWERED, "ok", attempt=2)]) == []


def test_steps_waits_and_children_are_in_the_order_of_their_beginnings():
    """Each with its end; what is of no kind that is shown is left out."""
    found = steps_of(
        [
            entry(1, K.MARKED, "child:fly", payload={}),
            entry(2, K.ARMED, "nap", "sleep"),
            entry(3, K.STARTED, "charge", "step"),
            entry(4, K.FIRED, "nap"),
            entry(5, K.FIRED, "other"),
            entry(6, K.MARKED, "child-completed:fly", payload=[1]),
            entry(7, K.MARKED, "child-completed:other"),
        ]
    )
    assert [(step.key, step.kind, step.result) for step in found] == [
        ("fly", "child", [1]),
        ("nap", "sleep", None),
        ("charge", "step", None),
    ]
    assert [step.status for step in found][::2] == ["succeeded", "running"]
    assert found[0].ended_at == BEGAN + timedelta(microseconds=6)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (b'["a",2]', {"0": "a", "1": 2}),
        (b'{"args":["a"],"kwargs":{"b":2}}', {"0": "a", "b": 2}),
        (b'{"kwargs":{"b":2}}', {"b": 2}),
    ],
)
def test_arguments_of_unknown_code_go_by_place_or_keyword(stored: bytes, found: dict[str, Any]):
    """As they were given."""
    assert plain_input(stored) == found


def test_a_value_that_the_code_no_longer_reads_is_shown_plain():
    """Or as nothing, where that says more."""

    def refuse(stored: bytes) -> Any:
        raise PayloadError("the type has changed")

    assert read_or_plain(msgspec.json.decode, b"[1]", None) == [1]
    assert read_or_plain(refuse, b"[1]", None) == [1]
    assert read_or_plain(refuse, b"[1]", {}) == {}


def test_a_line_of_the_history_says_who_and_why():
    """Of an operator's verb, and of an answer by the remark before it, which itself says nothing."""
    told = {"actor": "ann", "note": "why not"}
    entries = [
        entry(1, K.SIGNALLED, "retry", payload=told),
        entry(2, K.NOTED, "ok", ANSWERED_BY, told),
        entry(3, K.ANSWERED, "ok", "completed", 7),
        entry(4, K.NOTED, "charge", "succeeded", 7, started_at_ns=1),
        entry(5, K.HELD, "cancel", payload={"reason": "late"}),
    ]
    assert [(line.actor, line.note) for line in history_of(entries)] == [
        ("ann", "why not"),
        (None, None),
        ("ann", "why not"),
        (None, None),
        (None, "late"),
    ]


@pytest.mark.parametrize(
    ("key", "status", "failed"),
    [
        ("completed", "completed", False),
        ("compensated/cancelled", "compensated", False),
        ("compensated/failed", "compensated", True),
    ],
)
def test_only_an_end_that_nobody_asked_for_is_a_failure(key: str, status: str, *, failed: bool):
    """A saga that its customer cancelled did what it was asked to."""
    found = ending(entry(1, K.ENDED, key))
    assert (found.status, found.failed) == (status, failed)


def test_every_status_that_is_no_end_is_counted():
    """With the runs that have it."""
    assert set(standings()) == {"pending", "running", "waiting", "compensating", "stuck"}
