"""Callbacks as data: tokens, heartbeats and masks, without a clock or a store."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_core.model.callback import Pulse, key_of, run_of, token_of
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.masking import Masks, revealed

SECRET, UID = b"s" * 32, b"u" * 16


def entry(kind: EntryKind, key: str, payload: bytes | None = None, error: bytes | None = None) -> Entry:
    return Entry(7, 1, kind, key, 0, "callback" if kind is EntryKind.ARMED else "", payload, error, None, 0, None, "w")


@given(st.integers(10, 10_000), st.lists(st.integers(0, 3_000), max_size=60))
def test_an_accepted_heartbeat_grants_a_span_and_at_most_a_tenth_more(span: int, gaps: list[int]):
    """Whatever the rhythm: after each accepted heartbeat the end is a span away at least, and 1.1 spans at most."""
    pulse = Pulse(span, span)
    for now in itertools.accumulate(gaps):
        if now >= pulse.due_ns:
            return  # it has timed out
        due = pulse.beat(now)
        if due is not None:
            assert due > pulse.due_ns
            pulse = Pulse(span, due, now)
        assert now + span <= pulse.due_ns <= now + span + span // 10


@given(st.integers(100, 100_000), st.lists(st.integers(0, 50), min_size=200, max_size=400))
def test_heartbeats_leave_few_entries(span: int, gaps: list[int]):
    """Within one span at most twelve are journalled, however many come."""
    pulse, journalled, times = Pulse(span, span), list[int](), list(itertools.accumulate(gaps))
    for now in times:
        due = pulse.beat(now)
        if due is not None:
            journalled.append(now)
            pulse = Pulse(span, due, now)
    for first in journalled:
        assert sum(first <= other < first + span for other in journalled) <= 12


def test_a_token_names_its_run_and_finds_its_key():
    """The key comes back from the journal; under another secret, run or uid nothing is found."""
    entries = [entry(EntryKind.ARMED, "a"), entry(EntryKind.ARMED, "b#2")]
    token = token_of(SECRET, 7, UID, "b#2")
    assert run_of(token) == 7
    assert key_of(SECRET, 7, UID, entries, token) == "b#2"
    assert key_of(b"t" * 32, 7, UID, entries, token) is None
    assert key_of(SECRET, 7, b"v" * 16, entries, token) is None
    assert key_of(SECRET, 8, UID, entries, token) is None


@pytest.mark.parametrize(
    "text", ["", "-", "7", "x-AAAA", f"{'f' * 17}-AAAA", f"{1 << 63:x}-AAAA", "-1-AA", "é-AA", "7-é", "7-" + "A" * 300]
)
def test_rubbish_names_no_run(text: str):
    """Nothing is raised, and no store is asked, for what cannot be a token."""
    assert run_of(text) is None


@given(st.lists(st.sampled_from(["a", "b#2", "c/d"]), unique=True), st.binary(max_size=20))
def test_what_is_stored_holds_no_token_and_reads_back_as_it_was(keys: list[str], around: bytes):
    """Payloads and errors with any of the run's tokens are masked, and revealed again to the byte."""
    masks = Masks(7)
    tokens = [token_of(SECRET, 7, UID, key) for key in keys]
    for key, token in zip(keys, tokens, strict=True):
        masks.add(7, UID, key, token)
    text = around + b'["' + b'","https://shop/?t='.join(token.encode() for token in tokens) + b'"]'
    wrote = [*(entry(EntryKind.ARMED, key) for key in keys), entry(EntryKind.STARTED, "s", text, text)]
    stored = [masks.hide(one) for one in wrote]
    assert not any(token.encode() in (stored[-1].payload or b"") for token in tokens)
    assert list(revealed(SECRET, 7, UID, stored)) == wrote
