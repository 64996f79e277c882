"""Nanoseconds since the epoch: from a datetime, and as ISO 8601."""

from datetime import UTC, datetime, timedelta

NS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_of(when: object) -> int | None:
    """An aware datetime in nanoseconds since the epoch; None where it is none: a date, a text, one without a zone."""
    if not isinstance(when, datetime) or when.utcoffset() is None:
        return None
    return (when - EPOCH) // timedelta(microseconds=1) * 1000


def iso(at_ns: int) -> str:
    """``2026-08-01T10:00:00.123456789Z``: all nine digits, so that nothing is lost.

    >>> iso(1)
    '1970-01-01T00:00:00.000000001Z'
    """
    seconds, rest = divmod(at_ns, NS)
    try:
        whole = EPOCH + timedelta(seconds=seconds)
    except OverflowError:  # after the year 9999: such a time means never
        return "9999-12-31T23:59:59.999999999Z"
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def moment(at_ns: int) -> str:
    """``2026-08-01 10:00:00 UTC``, for messages."""
    return f"{iso(at_ns)[:19].replace('T', ' ')} UTC"
