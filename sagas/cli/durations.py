"""Durations as people type them, and durations and times as people read them.

They type ``30d``, ``12h``, ``1d12h``, ``P30D``, ``PT12H``, or seconds. Invariant: an ambiguous duration is refused,
because sagas are deleted by it.
"""

import re
from datetime import UTC, datetime, timedelta

import typer

SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
SHOWN_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
FOREVER = "forever"
LONGEST = timedelta(days=36_500)
EXAMPLES = "write it as 30d, 12h, 90s, 1d12h, P30D, or as a number of seconds"

_PLAIN = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_PARTS = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.ASCII)
_ISO = re.compile(
    r"P(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<min>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)


def duration_of(text: str, option: str) -> timedelta:
    """The duration that was typed after ``option``.

    Raises:
        BadParameter: it is no duration, is ambiguous, or is longer than a hundred years.
    """
    seconds = _seconds(text.strip(), option)
    if seconds > LONGEST.total_seconds():
        raise typer.BadParameter(f"{text!r} is longer than a hundred years; {EXAMPLES}", param_hint=option)
    return timedelta(seconds=seconds)


def since_of(text: str, option: str) -> datetime | timedelta:
    """The time that was typed after ``option``, or how long ago it was.

    Raises:
        BadParameter: it is neither; or a time without a zone.
    """
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return duration_of(text, option)
    if when.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone; write it as {text.strip()}Z", param_hint=option)
    return when


def retention_of(text: str, option: str) -> timedelta | None:
    """How long something is kept; None for ``forever``."""
    return None if text == FOREVER else duration_of(text, option)


def _seconds(text: str, option: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    iso = _ISO.fullmatch(text.upper())
    if iso is not None and any(iso.groups()):
        return sum(float(number) * SECONDS[unit] for unit, number in iso.groupdict().items() if number)
    parts = _PARTS.findall(text.lower())
    if re.fullmatch(rf"(?:{_PARTS.pattern} ?)+", text.lower(), re.ASCII) is None:
        raise typer.BadParameter(f"{text!r} is not a duration; {EXAMPLES}", param_hint=option)
    units = [unit for _, unit in parts]
    for unit in units:
        if unit not in SECONDS:
            why = (
                "could be minutes or months; write 5min, or 150d"
                if unit == "m"
                else f"is not one of {', '.join(SECONDS)}"
            )
            raise typer.BadParameter(f"{text!r}: {unit!r} {why}", param_hint=option)
    if len(set(units)) < len(units):
        raise typer.BadParameter(f"{text!r} repeats a unit; {EXAMPLES}", param_hint=option)
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def moment(at: datetime) -> str:
    """``2026-08-01 10:00:00 UTC``."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def minute(at: datetime) -> str:
    """``2026-08-01 10:00``, in UTC, for a column whose title says so."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def shown(duration: timedelta) -> str:
    """``12 ms``, ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 0.9995:  # noqa: PLR2004 - what would round to 1000 ms is shown in seconds
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:  # noqa: PLR2004 - what would round to 60.0 s is shown in minutes
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, part, part_name in SHOWN_UNITS:
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{whole} s"
