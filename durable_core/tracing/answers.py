"""What a collector may answer, and what follows from it: a pure reading of OTLP's rules.

Invariant: only an answer about the spans themselves can cost a span; trouble of the collector, however long, cannot.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from durable_core.tracing.span import SpanRecord

RETRYABLE = frozenset({429, 502, 503, 504})
"""OTLP specification 1.x, "Retryable Response Codes": the same request may be taken later."""
ABOUT_SPANS = frozenset({400, 413, 422})
"""The request cannot be read, or is too long: the same one will never be taken, a part of it may."""
LONGEST_WAIT_S = 600.0
"""More than this is not waited for, even if a collector asks for it."""


class Accepted(NamedTuple):
    """The collector has them."""

    rejected: int = 0
    """How many of them it says it will not keep; which, it does not say (OTLP's partial success)."""
    why: str = ""


class Later(NamedTuple):
    """They are to be offered again."""

    why: str
    after_s: float | None = None
    """When, where the collector has said so."""


class Refused(NamedTuple):
    """They will not be taken as they stand."""

    why: str
    certain: bool
    """Whether the answer is about the spans; else it may as well be about the collector, as 500 and 401 are."""


Answer = Accepted | Later | Refused


class Posting(Protocol):
    """Takes a request of OTLP as bytes; see ``durable_core.tracing.collector``."""

    url: str
    """Where it goes to."""

    def post(self, data: bytes) -> Answer:
        """Send it. Called on a thread of its own: it may block."""
        ...


class SpanSink(Protocol):
    """Takes spans out of the process."""

    def send(self, spans: Sequence[SpanRecord]) -> Answer:
        """Send them, all at once. Called on a thread of its own: it may block."""
        ...


def answer_to(status: int, headers: Mapping[str, str]) -> Later | Refused:
    """What follows from a status that is no success; ``headers`` are looked up by their names in lower case."""
    why = f"it answered {status}"
    if status in RETRYABLE:
        return Later(why, _pause(headers))
    return Refused(why, certain=status in ABOUT_SPANS)


def _pause(headers: Mapping[str, str]) -> float | None:
    """The seconds that ``Retry-After`` asks for: as a number, or as a date measured by the collector's own clock."""
    header = headers.get("retry-after", "").strip()
    try:
        found = float(header) if header else None
    except ValueError:
        found = _until(header, headers.get("date", ""))
    if found is None or not math.isfinite(found):
        return None
    return min(max(found, 0.0), LONGEST_WAIT_S)


def _until(then: str, now: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - few collectors answer so, and it loads much

    try:
        return (parsedate_to_datetime(then) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError):  # no dates, or one of them without a zone
        return None
