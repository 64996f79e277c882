"""Durations and points in time: as people give them, and as the nanoseconds that stores and clocks count in.

Invariant: a duration that is accepted here can be added to any time that a store keeps.
"""

from datetime import UTC, datetime, timedelta

from durable_core.errors import DefinitionError

NS = 1_000_000_000
"""Nanoseconds in a second."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_NS = 2**63 - 1
"""The last time that a store can hold."""
Duration = timedelta | float
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


def duration_ns(value: object, *, what: str) -> int | None:
    """A duration above zero in nanoseconds; None where there is none.

    Raises:
        DefinitionError: it is no duration.
    """
    if value is None:
        return None
    seconds = seconds_of(value)
    if seconds is None:
        raise DefinitionError(
            f"{what}={shown(value)} is no duration", "Give a timedelta or seconds, above zero and at most 100 years"
        )
    return max(to_ns(seconds), 1)


def to_ns(value: Duration) -> int:
    """A duration, given as ``timedelta`` or seconds, in nanoseconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return round(seconds * NS)


def moment_of(when: object) -> int | None:
    """An aware datetime in nanoseconds since the epoch; None where it is none: a date, a text, one without a zone."""
    if not isinstance(when, datetime) or when.utcoffset() is None:
        return None
    return (when - EPOCH) // timedelta(microseconds=1) * 1000


def iso(at_ns: int) -> str:
    """``2026-08-01T10:00:00.123456789Z``: all nine digits, so that nothing is lost; up to ``LAST_NS``, in 2262.

    >>> iso(1)
    '1970-01-01T00:00:00.000000001Z'
    """
    seconds, rest = divmod(at_ns, NS)
    whole = EPOCH + timedelta(seconds=seconds)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def moment(at_ns: int) -> str:
    """``2026-08-01 10:00:00 UTC``, for messages."""
    return f"{iso(at_ns)[:19].replace('T', ' ')} UTC"


def at(at_ns: int) -> datetime:
    """Nanoseconds since the epoch as an aware datetime (microseconds, UTC)."""
    return EPOCH + timedelta(microseconds=at_ns // 1000)


def maybe_at(at_ns: int | None) -> datetime | None:
    """As ``at``; None where there is no such time, or it is past and forgotten."""
    return None if not at_ns else at(at_ns)


def not_before(at_ns: int | None) -> datetime | None:
    """As ``maybe_at``, rounded up: once that time has come, so has ``at_ns``."""
    return None if not at_ns else at(at_ns + 999)


def ns_of(when: datetime) -> int:
    """An aware datetime in nanoseconds since the epoch."""
    at_ns = (when - EPOCH) // timedelta(microseconds=1) * 1000
    return max(min(at_ns, LAST_NS), -LAST_NS)  # beyond what a store can hold lies nothing that ever happened


def shown(value: object) -> str:
    """A wrong value for a message: its repr, cut where it is long."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a repr may be the user's own code, and an int may be too long for one
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
