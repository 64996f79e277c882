"""Tokens of callbacks in what is stored: each is replaced by a mask, and put back when its run is loaded.

A token leaves a body as an argument of the step that hands it out, and arguments are journalled. So is whatever comes
back: results, messages of exceptions. Invariant: what a run writes to its journal holds no token of its own callbacks,
and what it reads is what it would have written unmasked. A mask is made of nothing secret and proves nothing.
"""

import re
from collections.abc import Mapping, Sequence

from durable_core.model.callback import token_of
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.keys import idempotency_key

_TOKEN = rb"%x-[A-Za-z0-9_-]{43}"
_MASK = rb"%x-callback\.[0-9a-f]{32}"


class Masks:
    """The tokens of one run that must not be stored, and what is stored instead."""

    __slots__ = ("_masks", "_pattern")

    def __init__(self, num: int) -> None:
        self._masks: dict[bytes, bytes] = {}
        self._pattern = re.compile(_TOKEN % num)

    def add(self, num: int, uid: bytes, key: str, token: str) -> None:
        """Hide ``token``, that of the callback at ``key``, from here on."""
        self._masks[token.encode()] = _mask_of(num, uid, key)

    def hide(self, entry: Entry) -> Entry:
        """The entry as it is stored."""
        return _replaced(entry, self._pattern, self._masks)


def revealed(secret: bytes, num: int, uid: bytes, entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries of a run as it wrote them, from those that are stored."""
    keys = [entry.key for entry in entries if entry.kind == EntryKind.ARMED and entry.label == "callback"]
    if not keys:
        return entries
    tokens = {_mask_of(num, uid, key): token_of(secret, num, uid, key).encode() for key in keys}
    pattern = re.compile(_MASK % num)
    return [_replaced(entry, pattern, tokens) for entry in entries]


def _mask_of(num: int, uid: bytes, key: str) -> bytes:
    return f"{num:x}-callback.{idempotency_key(uid, key)}".encode()


def _replaced(entry: Entry, pattern: re.Pattern[bytes], by: Mapping[bytes, bytes]) -> Entry:
    if entry.payload is None and entry.error is None:
        return entry
    payload, error = (
        None if text is None else pattern.sub(lambda found: by.get(found[0], found[0]), text)
        for text in (entry.payload, entry.error)
    )
    return entry._replace(payload=payload, error=error)
