"""Callbacks as data: tokens, answers, and what the journal says of one.

Invariant: a token proves knowledge of the store's secret; nothing that could be stolen is stored, for a token is
derived again from the run and the key that it is for. The first answer in the journal is the answer.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

import attrs
import msgspec

from durable_core.model.entry import Entry, EntryKind

LONGEST_TOKEN = 200
COMPLETED, FAILED = "completed", "failed"


class Answer(msgspec.Struct, frozen=True):
    """What somebody answered."""

    key: str
    kind: str
    """``completed`` or ``failed``."""
    value: msgspec.Raw = msgspec.Raw(b"null")
    """The value, or the message of a failure."""


class Declared(msgspec.Struct, frozen=True):
    """What a callback was declared with, as its ``armed`` entry keeps it."""

    type: str = ""
    """``module:qualname`` of the declared type; empty where it is none that has a name."""


def token_of(secret: bytes, num: int, uid: bytes, key: str) -> str:
    """The token of the callback at ``key``: the run's number, and 256 bits that only this store can derive."""
    proof = hashlib.blake2b(uid + key.encode(), key=secret[:64], digest_size=32).digest()
    return f"{num:x}-{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"


def run_of(token: str) -> int | None:
    """The number of the run that ``token`` says it is for; None where it is no token."""
    head, dash, proof = token.partition("-")
    if not dash or len(token) > LONGEST_TOKEN:
        return None
    try:
        base64.urlsafe_b64decode(proof + "=" * (-len(proof) % 4))
        return int(head, 16)
    except (ValueError, binascii.Error):
        return None


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
class CallbackState:
    """How a callback stands in a journal."""

    armed: Entry
    ended: Entry | None
    """The entry that answered, timed out or closed it."""

    @property
    def declared(self) -> Declared:
        """What it was declared with."""
        return msgspec.json.decode(self.armed.payload or b"{}", type=Declared)


def state_of(entries: Sequence[Entry], key: str) -> CallbackState | None:
    """The callback at ``key``; None where there is none yet."""
    armed: Entry | None = None
    for entry in entries:
        if entry.key != key:
            continue
        if entry.kind == EntryKind.ARMED and entry.label == "callback":
            armed = entry
        elif armed is not None and entry.kind in (EntryKind.ANSWERED, EntryKind.FIRED, EntryKind.CLOSED):
            return CallbackState(armed, entry)
    return None if armed is None else CallbackState(armed, None)


def same(ended: Entry, answer: Answer) -> bool:
    """Whether ``answer`` repeats the one that was accepted."""
    return ended.kind == EntryKind.ANSWERED and ended.label == answer.kind and ended.payload == bytes(answer.value)
