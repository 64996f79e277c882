"""Durations as people give them: a timedelta, or seconds as a number.

Invariant: what is taken for a duration here can be added to any time that a store keeps.
"""

from datetime import timedelta

Span = timedelta | float
"""A duration: a timedelta, or seconds."""
LONGEST_S = 100 * 366 * 86_400.0
"""A wait may take a hundred years; longer ones are mistakes, and break the arithmetic of clocks."""
LONGEST_SHOWN = 80
"""Characters of a wrong value that a message repeats."""


def seconds_of(value: object, *, zero: bool = False) -> float | None:
    """A duration in seconds; None where it is none: another type, below zero, above a century, NaN, True.

    Args:
        value: what the code gave.
        zero: whether no time at all is a duration too.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_S:
        return None
    return float(seconds) if seconds or zero else None


def shown(value: object) -> str:
    """A wrong value for a message: its repr, cut where it is long."""
    try:
        told = repr(value)
    except Exception as error:  # noqa: BLE001 - a repr may be the user's own code, and an int may be too long for one
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return told if len(told) <= LONGEST_SHOWN else f"{told[:LONGEST_SHOWN]}..."
