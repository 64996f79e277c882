"""What a run waits for, kept in its row while nobody drives it, so that a list of runs needs no journal."""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import msgspec

from durable_core.model.duration import moment

SHOWN = 3
"""So many of the things that a waiting run waits for are kept, the earliest first."""
PERSON: Final = "person"


class Awaited(NamedTuple):
    """One thing that a run waits for."""

    kind: Literal["retry", "sleep", "callback", "deadline", "person"]
    key: str
    """Of the wait; of the step, for a retry and for a person."""
    due_at_ns: int | None = None
    """When it ends by itself; None if it does not."""
    attempt: int = 0
    """Of a step: the attempt that failed."""


class _Kept(msgspec.Struct, array_like=True):
    """The stored form. The order of the fields is part of the stored format."""

    awaited: list[Awaited]
    more: int = 0


def write_awaits(awaited: Iterable[Awaited]) -> str | None:
    """The stored form; None where there is nothing. The deadline of a part is left out: it only limits the rest."""
    found = sorted(
        (each for each in awaited if each.kind != "deadline"),
        key=lambda each: (each.due_at_ns is None, each.due_at_ns or 0, each.key),
    )
    if not found:
        return None
    kept = [each for place, each in enumerate(found) if place < SHOWN or each.kind == PERSON]
    return msgspec.json.encode(_Kept(kept, len(found) - len(kept))).decode()


def waits_for(stored: str | None) -> str | None:
    """What a waiting run waits for, as a text for people.

    >>> waits_for(write_awaits([Awaited("sleep", "cooling-off", 1_800_000_000_000_000_000)]))
    "waits for sleep 'cooling-off' until 2027-01-15 08:00:00 UTC"
    """
    if stored is None:
        return None
    kept = msgspec.json.decode(stored, type=_Kept)
    more = f", and {kept.more} more" if kept.more else ""
    return f"waits for {', '.join(map(_text, kept.awaited))}{more}"


def _text(each: Awaited) -> str:
    when = "" if each.due_at_ns is None else moment(each.due_at_ns)
    if each.kind == "retry":
        return f"attempt {each.attempt + 1} of step {each.key!r} at {when}"
    return f"{each.kind} {each.key!r}{f' until {when}' if when else ''}"


def waits_for_person(stored: str | None) -> tuple[str, ...]:
    """The steps that a stuck run is stuck on."""
    kept = [] if stored is None else msgspec.json.decode(stored, type=_Kept).awaited
    return tuple(each.key for each in kept if each.kind == PERSON)
