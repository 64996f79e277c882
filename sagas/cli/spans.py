"""Lengths of time as they are typed: ``30d``, ``12h``, ``1d12h``, ``P30D``, ``PT12H``, or seconds.

Invariant: what could be meant in two ways is refused, for things are deleted by it.
"""

import re
from datetime import timedelta

import typer

UNITS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
FOREVER = "forever"
LONGEST = timedelta(days=36_500)
EXAMPLES = "write it as 30d, 12h, 90s, 1d12h, P30D, or as a number of seconds"

_PLAIN = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_PARTS = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.ASCII)
_ISO = re.compile(
    r"P(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<min>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)


def span_of(text: str, option: str) -> timedelta:
    """The length of time that was typed behind ``option``.

    Raises:
        BadParameter: it is none, could be meant in two ways, or is longer than a hundred years.
    """
    seconds = _seconds(text.strip(), option)
    if seconds > LONGEST.total_seconds():
        raise typer.BadParameter(f"{text!r} is longer than a hundred years; {EXAMPLES}", param_hint=option)
    return timedelta(seconds=seconds)


def retention_of(text: str, option: str) -> timedelta | None:
    """How long something is kept; None where ``forever`` was typed."""
    return None if text == FOREVER else span_of(text, option)


def _seconds(text: str, option: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    iso = _ISO.fullmatch(text.upper())
    if iso is not None and any(iso.groups()):
        return sum(float(number) * UNITS[unit] for unit, number in iso.groupdict().items() if number)
    parts = _PARTS.findall(text.lower())
    if re.fullmatch(rf"(?:{_PARTS.pattern} ?)+", text.lower(), re.ASCII) is None:
        raise typer.BadParameter(f"{text!r} is no length of time; {EXAMPLES}", param_hint=option)
    units = [unit for _, unit in parts]
    for unit in units:
        if unit not in UNITS:
            why = "could be minutes or months; write 5min, or 150d" if unit == "m" else f"is none of {', '.join(UNITS)}"
            raise typer.BadParameter(f"{text!r}: {unit!r} {why}", param_hint=option)
    if len(set(units)) < len(units):
        raise typer.BadParameter(f"{text!r} has a unit twice; {EXAMPLES}", param_hint=option)
    return sum(float(number) * UNITS[unit] for number, unit in parts)
