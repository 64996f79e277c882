"""What a run waits for, as a text for people: kept in its row, so that a list of runs needs no journal."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from durable_core.model.duration import moment

SHOWN = 3
"""So many of the things that a run waits for are named, the earliest first."""


class Awaited(NamedTuple):
    """One thing that a run waits for."""

    kind: Literal["retry", "sleep", "callback", "deadline"]
    key: str
    due_at_ns: int | None
    """When it ends by itself; None if it does not."""
    attempt: int = 0
    """Of a step: the attempt that failed."""


def awaits_of(awaited: Iterable[Awaited]) -> str | None:
    """Names them; None where there are none. The deadline of a part is none: it only limits what is waited for.

    >>> awaits_of([Awaited("sleep", "cooling-off", 1_800_000_000_000_000_000)])
    "waits for sleep 'cooling-off' until 2027-01-15 08:00:00 UTC"
    """
    found = sorted(
        (each for each in awaited if each.kind != "deadline"),
        key=lambda each: (each.due_at_ns is None, each.due_at_ns or 0, each.key),
    )
    if not found:
        return None
    texts = [_text(each) for each in found[:SHOWN]]
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"waits for {', '.join(texts)}{more}"


def _text(each: Awaited) -> str:
    when = "" if each.due_at_ns is None else moment(each.due_at_ns)
    if each.kind == "retry":
        return f"attempt {each.attempt + 1} of step {each.key!r} at {when}"
    return f"{each.kind} {each.key!r}{f' until {when}' if when else ''}"
