"""Callbacks as data: tokens, answers, and what the journal says of one.

Invariant: a token proves knowledge of the store's secret; nothing that could be stolen is stored, for a token is
derived again from the run and the key that it is for. The first answer in the journal is the answer.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from enum import StrEnum

import attrs
import msgspec

from durable_core.model.entry import ANSWERED_BY, Entry, EntryKind
from durable_core.model.verbs import Asked

LONGEST_TOKEN = 200
LONGEST_NUM = 16
"""Hex digits of a run's number: 64 bits."""
COMPLETED, FAILED, HEARTBEAT = "completed", "failed", "heartbeat"
ANSWERS = frozenset({"answer", HEARTBEAT})
"""Names of the signals that are about a callback."""
ENDINGS = frozenset({EntryKind.ANSWERED, EntryKind.FIRED, EntryKind.CLOSED})


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody answered; or a sign that somebody is still at it."""

    key: str
    kind: str
    """``completed``, ``failed`` or ``heartbeat``."""
    value: msgspec.Raw = msgspec.Raw(b"null")
    """The value, or the message of a failure."""
    actor: str = ""
    """Who answers, as far as they say."""
    note: str = ""
    """Why they do."""

    def __post_init__(self) -> None:
        Asked(self.actor, self.note)  # refuses what no store can hold

    @property
    def by(self) -> bytes | None:
        """Who answers and why, as the journal keeps it; None where nothing is said of it."""
        return msgspec.json.encode(Asked(self.actor, self.note)) if self.actor or self.note else None

    def repeats(self, other: "Answer") -> bool:
        """Whether it says the same as ``other``, whoever gave them and why."""
        return (self.key, self.kind, bytes(self.value)) == (other.key, other.kind, bytes(other.value))

    @property
    def signal(self) -> str:
        """The name under which it waits in the store for the run's owner."""
        return HEARTBEAT if self.kind == HEARTBEAT else "answer"


class Taken(StrEnum):
    """What became of an answer or heartbeat that was not refused."""

    ACCEPTED = "accepted"
    """It is in the journal, or changes nothing there."""
    KEPT = "kept"
    """It is durable, and no worker has taken it up yet: its type is checked when one does."""


class Declared(msgspec.Struct, frozen=True):
    """What a callback was declared with, as its ``armed`` entry keeps it."""

    type: str = ""
    """``module:qualname`` of the declared type; empty where it is none that has a name."""
    heartbeat_ns: int = 0
    """The span within which a heartbeat must come; 0 where none is asked for."""


def token_of(secret: bytes, num: int, uid: bytes, key: str) -> str:
    """The token of the callback at ``key``: the run's number, and 256 bits that only this store can derive."""
    proof = hashlib.blake2b(uid + key.encode(), key=secret[:64], digest_size=32).digest()
    return f"{num:x}-{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"


def run_of(token: str) -> int | None:
    """The number of the run that ``token`` says it is for; None where it is no token."""
    head, dash, proof = token.partition("-")
    if not dash or len(token) > LONGEST_TOKEN or len(head) > LONGEST_NUM or not token.isascii():
        return None
    try:
        base64.urlsafe_b64decode(proof + "=" * (-len(proof) % 4))
        num = int(head, 16)
    except (ValueError, binascii.Error):
        return None
    return num if 0 <= num < 1 << 63 else None


def key_of(secret: bytes, num: int, uid: bytes, entries: Sequence[Entry], token: str) -> str | None:
    """The callback of this run that ``token`` is for; None for a forged one. Compared in constant time."""
    return next(
        (
            entry.key
            for entry in entries
            if entry.kind == EntryKind.ARMED
            and entry.label == "callback"
            and hmac.compare_digest(token_of(secret, num, uid, entry.key).encode(), token.encode())
        ),
        None,
    )


@attrs.frozen
class Pulse:
    """The heartbeats of a callback, as far as they are journalled."""

    span_ns: int
    due_ns: int
    """When the next one must have come."""
    last_ns: int | None = None
    """When the last one came; None before the first."""

    def beat(self, now_ns: int) -> int | None:
        """When the next must come after one at ``now_ns``; None where that is no later than is journalled already.

        So no sender who keeps to the span is ever cut off, and journals stay short: one in a hurry (more than five in a
        span) is granted a tenth of the span more, and what it sends within that tenth needs no entry.
        """
        due_ns = now_ns + self.span_ns
        if due_ns <= self.due_ns:
            return None
        hurried = self.last_ns is not None and now_ns - self.last_ns < self.span_ns // 5
        return due_ns + self.span_ns // 10 if hurried else due_ns


@attrs.frozen
class CallbackState:
    """How a callback stands in a journal."""

    armed: Entry
    ended: Entry | None
    """The entry that answered, timed out or closed it."""
    beat: Entry | None = None
    """Its last heartbeat."""

    @property
    def declared(self) -> Declared:
        """What it was declared with."""
        return msgspec.json.decode(self.armed.payload or b"{}", type=Declared)

    @property
    def pulse(self) -> Pulse | None:
        """Its heartbeats; None where none are asked for."""
        return pulse_of(self.armed, self.declared.heartbeat_ns, self.beat)


def pulse_of(armed: Entry, span_ns: int, beat: Entry | None = None) -> Pulse | None:
    """The heartbeats of a callback that was armed so, after the heartbeat ``beat``; None where none are asked for."""
    if not span_ns:
        return None
    if beat is None or beat.due_at_ns is None:
        return Pulse(span_ns, armed.at_ns + span_ns)
    return Pulse(span_ns, beat.due_at_ns, beat.at_ns)


def state_of(entries: Sequence[Entry], key: str) -> CallbackState | None:
    """The callback at ``key``; None where there is none yet."""
    armed: Entry | None = None
    beat: Entry | None = None
    for entry in entries:
        if entry.key != key:
            continue
        if entry.kind == EntryKind.ARMED and entry.label == "callback":
            armed = entry
        elif entry.kind == EntryKind.HEARTBEAT:
            beat = entry
        elif armed is not None and entry.kind in ENDINGS:
            return CallbackState(armed, entry, beat)
    return None if armed is None else CallbackState(armed, None, beat)


def same(ended: Entry, answer: Answer) -> bool:
    """Whether ``answer`` repeats the one that was accepted."""
    return ended.kind == EntryKind.ANSWERED and ended.label == answer.kind and ended.payload == bytes(answer.value)


def answered_by(before: Entry | None, entry: Entry) -> Asked:
    """Who gave the answer in ``entry`` and why, from the entry before it; both empty where that does not say."""
    if (
        before is None
        or entry.kind != EntryKind.ANSWERED
        or before.label != ANSWERED_BY
        or (before.kind, before.key, before.seq) != (EntryKind.NOTED, entry.key, entry.seq - 1)
    ):
        return Asked()
    return msgspec.json.decode(before.payload or b"{}", type=Asked)
