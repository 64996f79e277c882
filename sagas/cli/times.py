"""Moments and durations as people read them."""

from datetime import UTC, datetime, timedelta

UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def moment(at: datetime) -> str:
    """``2026-08-01 10:00:00 UTC``."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def minute(at: datetime) -> str:
    """``2026-08-01 10:00``, in UTC, for a column that says so."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def duration(span: timedelta) -> str:
    """``12 ms``, ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 0.9995:  # noqa: PLR2004 - what would round to 1000 ms is told in seconds
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:  # noqa: PLR2004 - what would round to 60.0 s is told in minutes
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, part, part_name in UNITS:
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part} {part_name}"
    return f"{whole} s"
