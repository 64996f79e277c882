"""What a step's own code says on the span of its attempt: attributes and events, bounded, as the journal keeps them.

It is a ``noted`` entry with the label ``SAID``, in the commit of the attempt's end and right before it. So it is there
exactly where the end is: a crash loses none of what an ended attempt has said, and no replay says it again.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

SAID = "said"
"""The label of the entry. Its ``attempt`` is 0: releases that do not know the label then tell nothing of it."""

MOST_ATTRIBUTES = 16
LONGEST_NAME = 64
LONGEST_TEXT = 256
"""Characters of a value."""
MOST_ITEMS = 16
"""Of a list."""
MOST_EVENTS = 8
MOST_OF_AN_EVENT = 8
LONGEST_STACK = 4_096
"""Characters of a stack trace, the one text that may be longer. Its end is kept."""
STACK = "exception.stacktrace"
_WHOLE = 1 << 63

Plain = str | int | bool | float
Value = Plain | tuple[Plain, ...]
Event = tuple[str, int, dict[str, Value]]


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """The stored form. Field names are part of the stored format."""

    attributes: dict[str, Value] = {}
    events: tuple[Event, ...] = ()
    """Name, time in ns since the epoch, attributes."""
    left_out: int = 0
    """How many attributes and events were too many, or of a kind that no span can hold."""


NOTHING_SAID = Said()
_read = msgspec.json.Decoder(Said).decode


def said_in(payload: bytes | None) -> Said:
    """What a ``said`` entry holds."""
    return NOTHING_SAID if payload is None else _read(payload)


class Saying:
    """What the code of one attempt has said so far."""

    __slots__ = ("_attributes", "_events", "_left_out")

    def __init__(self) -> None:
        self._attributes: dict[str, Value] = {}
        self._events: list[Event] = []
        self._left_out = 0

    def attribute(self, name: str, value: object) -> None:
        """Set an attribute; again: replaces."""
        self._left_out += _put(self._attributes, name, value, most=MOST_ATTRIBUTES)

    def event(self, name: str, at_ns: int, attributes: Mapping[str, Any]) -> None:
        """Add an event."""
        if len(self._events) >= MOST_EVENTS:
            self._left_out += 1
            return
        kept: dict[str, Value] = {}
        for each, value in attributes.items():
            self._left_out += _put(kept, each, value, most=MOST_OF_AN_EVENT)
        self._events.append((_text(name, LONGEST_NAME), at_ns, kept))

    def stored(self) -> bytes | None:
        """As the journal keeps it; None where nothing was said."""
        said = Said(dict(self._attributes), tuple(self._events), self._left_out)
        return None if said == NOTHING_SAID else msgspec.json.encode(said)


def _put(found: dict[str, Value], name: str, value: object, *, most: int) -> int:
    """Keep one attribute; how many were left out."""
    name = _text(name, LONGEST_NAME)
    kept = _stack(value) if name == STACK and isinstance(value, str) else _value(value)
    if kept is None or not name or (name not in found and len(found) >= most):
        return 1
    found[name] = kept
    return 0


def _value(value: object) -> Value | None:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        parts = [_plain(part) for part in cast("Sequence[object]", value)[:MOST_ITEMS]]
        return tuple(part for part in parts if part is not None)
    return _plain(value)


def _plain(value: object) -> Plain | None:
    """A value that every form of a span can hold; None where there is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_WHOLE <= value < _WHOLE else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray):
        return _text(value.decode("utf-8", "replace"), LONGEST_TEXT)
    return _text(value, LONGEST_TEXT) if isinstance(value, str) else None


def _text(text: str, longest: int) -> str:
    """``text``, cut; what UTF-8 cannot say is escaped."""
    return text[:longest].encode("utf-8", "backslashreplace").decode()


def _stack(text: str) -> str:
    return text[-LONGEST_STACK:].encode("utf-8", "backslashreplace").decode()
