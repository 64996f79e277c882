"""Callbacks as data: tokens, heartbeats and masks, without a clock or a store."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_core.model.callback import Answer, Pulse, answered_by, key_of, run_of, token_of
from durable_core.model.entry import ANSWERED_BY, LATE, REFUSALS, Entry, EntryKind, effective, evidence
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


@given(st.integers(100, 1_000), st.lists(st.integers(0, 50), min_size=20, max_size=60))
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


ANN = Answer("approval", "completed", msgspec.Raw(b"7"), "ann", "why not")


def test_an_answer_repeats_another_whoever_gave_them():
    """Callback, kind and value count; actor and note do not."""
    for same in ({}, {"actor": "bob"}, {"note": ""}):
        assert msgspec.structs.replace(ANN, **same).repeats(ANN)
    for other in ({"key": "approval#2"}, {"kind": "failed"}, {"value": msgspec.Raw(b"8")}):
        assert not msgspec.structs.replace(ANN, **other).repeats(ANN)


def test_an_answer_is_stored_as_before_where_nobody_says_who_gave_it():
    """What an earlier release has kept is read, and what it must read holds nothing new."""
    stored = b'{"key":"approval","kind":"completed","value":7}'
    assert msgspec.json.encode(Answer("approval", "completed", msgspec.Raw(b"7"))) == stored
    told = msgspec.json.decode(stored, type=Answer)
    assert (told.actor, told.note, told.by, told.repeats(ANN)) == ("", "", None, True)
    assert msgspec.json.decode(msgspec.json.encode(ANN), type=Answer).by == ANN.by


def remark(**other: object) -> Entry:
    """Who gave the answer in entry 8."""
    found = Entry(1, 7, EntryKind.NOTED, "approval", 0, ANSWERED_BY, ANN.by, None, None, 0, None, "w")
    return found._replace(**other)  # type: ignore[arg-type]  # fields of an entry


def test_a_remark_is_about_the_answer_right_after_it():
    """It is joined to no other entry, be it of another callback, of another kind or further on."""
    answer = remark(seq=8, kind=EntryKind.ANSWERED, label="completed", payload=b"7")
    told = answered_by(remark(), answer)
    assert (told.actor, told.note) == ("ann", "why not")
    others = [remark(key="other"), remark(seq=6), remark(label="said"), remark(kind=EntryKind.HELD), None]
    for before in others:
        assert answered_by(before, answer).actor == ""
    assert answered_by(remark(), answer._replace(kind=EntryKind.FIRED)).actor == ""


def test_a_remark_on_an_answer_is_for_people_only():
    """It is not replayed, ends no attempt, and is no refusal."""
    assert effective([remark()]) == []
    assert evidence([remark(), remark(started_at_ns=1)]) == {}
    assert ANSWERED_BY not in LATE | REFUSALS
