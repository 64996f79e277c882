"""One row of the journal: what happened to one run, in the order in which its body saw it.

Invariant: the entries of a run, read by ``seq``, are the only input of its replay. An *input* entry tells the
body something (a result, a fired timer, an operator's signal); the *output* entries that follow it are what the
body asked for in answer. A *remark* is evidence for people and is never replayed.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple


class EntryKind(StrEnum):
    """What an entry says. Stored by value: a name here is part of the stored format."""

    STARTED = "started"
    """A step's first attempt is about to begin: the intent. ``label`` is the step kind, ``payload`` its arguments."""
    RETRIED = "retried"
    """A further attempt is about to begin, after a failure or after a crash."""
    WITHHELD = "withheld"
    """The announced attempt was not begun: its worker was leaving, or the run was paused or killed first."""
    REOPENED = "reopened"
    """A given-up step is attempted again under its own key, with a fresh policy, because an operator asked."""
    SUCCEEDED = "succeeded"
    """An attempt returned. ``payload`` is the result."""
    FAILED = "failed"
    """An attempt ended otherwise. ``label`` is the outcome; ``due_at_ns`` is set where another attempt follows."""
    TIMED_OUT = "timed_out"
    """An attempt passed its timeout and has not returned yet."""
    GAVE_UP = "gave_up"
    """A further attempt that was due will not be made: the scope was stopped. ``label`` is the outcome."""
    SETTLED = "settled"
    """An unknown outcome was settled. ``label`` is ``happened`` or ``did_not_happen``; ``payload`` the result."""
    ARMED = "armed"
    """A wait began. ``label`` is its kind (``sleep``, ``callback``), ``due_at_ns`` when it ends by itself."""
    FIRED = "fired"
    """A wait fell due. ``label`` is ``heartbeat`` where it was a callback's heartbeat that did not come."""
    ANSWERED = "answered"
    """A callback was answered. ``label`` is ``completed`` or ``failed``."""
    HEARTBEAT = "heartbeat"
    """Whoever will answer a callback is still at it. ``due_at_ns`` is when the next sign of life must have come."""
    CLOSED = "closed"
    """A wait was given up: its scope was stopped."""
    MARKED = "marked"
    """The layer above noted a fact; ``key`` names it (``compensating``, ``patched:name``)."""
    SUSPENDED = "suspended"
    """From here on inputs are journalled, and the body does not see them before ``resumed``.

    Without a label the worker is leaving. ``answered`` and ``unanswered`` are a catching up: what was told, returned or
    fell due before the body may go on. ``unanswered`` says that the body had not seen the input before this entry.
    """
    RESUMED = "resumed"
    """A worker drives the body again."""
    PARKED = "parked"
    """The run cannot go on without a person. ``payload`` says why and on which steps."""
    SIGNALLED = "signalled"
    """A signal arrived: ``key`` is its name, ``payload`` its data with actor and note.

    With a step's key as ``label`` it has that step attempted again, and what came from entry ``attempt`` on is void.
    """
    HELD = "held"
    """A signal came while the run was stuck on its code; it is delivered once the code fits. A remark.

    The ``signalled`` (``answered``, ``heartbeat``) entry that delivers it names its ``seq`` as ``attempt``.
    """
    ENDED = "ended"
    """The run ended. ``label`` is its status, ``key`` the phase it ended in; ``payload`` or ``error`` its outcome."""
    FAULTED = "faulted"
    """The engine refused to go on: the code does not fit the journal, or broke a rule. A remark.

    ``key`` is the step that is to be attempted again once mended, ``attempt`` the entry from which on all is void then.
    """
    NOTED = "noted"
    """Evidence that changes nothing by itself. A remark.

    An attempt that returned after its run got stuck is noted with its outcome (see ``LATE``) as ``label``: whoever
    undoes or retries the run takes it from here.
    What a step's own code has said on its span is noted right before the attempt's end (``durable_core.model.said``),
    and who has answered a callback right before the answer (``ANSWERED_BY``).
    """


ANSWERED_SO_FAR, UNANSWERED = "answered", "unanswered"
"""Labels of the ``suspended`` entries that begin a catching up."""
LATE = frozenset({"succeeded", "rejected", "failed", "unknown", "withheld"})
"""Labels of the ``noted`` entries that say how an attempt ended whose run was driven no more."""
MISFIT, TOO_LATE = "answer misfit", "answer too late"
REFUSALS = frozenset({MISFIT, TOO_LATE})
"""Labels of the ``noted`` entries that say why an answer or heartbeat was not accepted."""
ANSWERED_BY = "answered by"
"""Label of the ``noted`` entry that says who gave the answer in the entry after it, and why.

Its ``key`` is the callback's, its ``attempt`` is 0, its ``payload`` holds actor and note; it is in the answer's commit.
"""


class Role(StrEnum):
    """How replay treats an entry."""

    INPUT = "input"
    OUTPUT = "output"
    REMARK = "remark"


ROLES: Mapping[EntryKind, Role] = {
    EntryKind.STARTED: Role.OUTPUT,
    EntryKind.RETRIED: Role.INPUT,
    EntryKind.WITHHELD: Role.INPUT,
    EntryKind.REOPENED: Role.OUTPUT,
    EntryKind.SUCCEEDED: Role.INPUT,
    EntryKind.FAILED: Role.INPUT,
    EntryKind.TIMED_OUT: Role.INPUT,
    EntryKind.GAVE_UP: Role.OUTPUT,
    EntryKind.SETTLED: Role.OUTPUT,
    EntryKind.ARMED: Role.OUTPUT,
    EntryKind.FIRED: Role.INPUT,
    EntryKind.ANSWERED: Role.INPUT,
    EntryKind.HEARTBEAT: Role.INPUT,
    EntryKind.CLOSED: Role.OUTPUT,
    EntryKind.MARKED: Role.OUTPUT,
    EntryKind.SUSPENDED: Role.INPUT,
    EntryKind.RESUMED: Role.INPUT,
    EntryKind.PARKED: Role.OUTPUT,
    EntryKind.SIGNALLED: Role.INPUT,
    EntryKind.HELD: Role.REMARK,
    EntryKind.ENDED: Role.OUTPUT,
    EntryKind.FAULTED: Role.REMARK,
    EntryKind.NOTED: Role.REMARK,
}


class Entry(NamedTuple):
    """A journal row, in column order; a tuple, because the hot path binds it to SQL as it stands."""

    run: int
    """The run's number (``RunRecord.num``)."""
    seq: int
    """Position in the run's journal, from 1, without gaps."""
    kind: str
    """An ``EntryKind`` by value."""
    key: str
    """The step, wait, mark or signal that the entry is about; empty for the run itself."""
    attempt: int
    """1 for the first attempt; 0 where there is none."""
    label: str
    """The kind's own detail: step kind, outcome, wait kind, status."""
    payload: bytes | None
    """JSON: arguments, a result, a signal's data."""
    error: bytes | None
    """JSON of a stored failure (``durable_core.model.failure``)."""
    started_at_ns: int | None
    """When the attempt that this entry closes was called, in ns since the epoch."""
    at_ns: int
    """When this entry was made, in ns since the epoch, by its worker's clock."""
    due_at_ns: int | None
    """When the retry or wait that this entry sets falls due."""
    worker: str
    """The worker that wrote it."""


def effective(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that a replay feeds: without remarks, and without what a later signal has made void.

    A step that was given up and is attempted again because an operator asked has not failed: its end, and what
    followed from it, is history, not input.
    """
    kept: list[Entry] = []
    for entry in entries:
        if entry.kind == EntryKind.SIGNALLED and entry.label and entry.attempt:
            kept = _without(kept, key=entry.label, since=entry.attempt)
        if ROLES[EntryKind(entry.kind)] is not Role.REMARK:
            kept.append(entry)
    return kept


def _without(entries: list[Entry], *, key: str, since: int) -> list[Entry]:
    """Leave out the end of the step at ``key`` and what the body made of it.

    What other steps and waits, begun before, have reported since is kept: a completed step never runs again, and an
    answer that was accepted is the answer.
    """
    before = [entry for entry in entries if entry.seq < since]
    begun = {entry.key for entry in before if entry.kind in (EntryKind.STARTED, EntryKind.ARMED)} - {key}
    kept = [
        entry
        for entry in entries
        if entry.seq >= since and entry.key in begun and ROLES[EntryKind(entry.kind)] is Role.INPUT
    ]
    return before + kept


def held(entries: Sequence[Entry]) -> list[Entry]:
    """The signals that were held back and have not been delivered since."""
    delivered = {entry.attempt for entry in entries if _delivers(entry)}
    return [entry for entry in entries if entry.kind == EntryKind.HELD and entry.seq not in delivered]


def evidence(entries: Sequence[Entry]) -> dict[str, Entry]:
    """How attempts ended that returned while nobody drove their run, by step, as far as the run has not heard it yet.

    Notes of earlier releases, which hold no time of beginning, are for people only.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        if is_evidence(entry):
            found[entry.key] = entry
        elif entry.key in found and entry.kind in _ABOUT_ATTEMPTS:
            del found[entry.key]
    return found


def is_evidence(entry: Entry) -> bool:
    """Whether this entry says how an attempt ended whose run was driven no more."""
    return entry.kind == EntryKind.NOTED and entry.label in LATE and entry.started_at_ns is not None


_ABOUT_ATTEMPTS = frozenset(
    {
        EntryKind.STARTED,
        EntryKind.RETRIED,
        EntryKind.REOPENED,
        EntryKind.WITHHELD,
        EntryKind.SUCCEEDED,
        EntryKind.FAILED,
        EntryKind.GAVE_UP,
        EntryKind.SETTLED,
    }
)


def _delivers(entry: Entry) -> bool:
    """Whether this entry may be the delivery of a held signal, and names it as ``attempt``."""
    if entry.kind == EntryKind.SIGNALLED:
        return not entry.label
    if entry.kind == EntryKind.NOTED:
        return entry.label in REFUSALS
    return entry.kind in (EntryKind.ANSWERED, EntryKind.HEARTBEAT)
