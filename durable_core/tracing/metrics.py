"""The instruments: what is measured of runs, in OpenTelemetry's terms, and by which attributes; never by an id.

Names are without the prefix that the layer above gives them (``run``, ``saga``). Units are UCUM's, with braces around
what is only counted; times are in seconds, as OpenTelemetry's conventions ask.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import attrs

Attribute = str | int
THINGS = "{{{prefix}}}"
"""The unit of what counts runs: ``{run}``, or ``{saga}``."""
SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Bounds of histograms of what takes milliseconds, and should not take minutes."""
LONG_S = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)
"""Bounds of histograms of what may take weeks."""


class Measure(NamedTuple):
    """One thing to count or to record."""

    name: str
    """Of ``METRICS`` or the vocabulary's, without the prefix."""
    value: float
    attributes: Mapping[str, Attribute]
    """Names without the prefix."""


@attrs.frozen
class Metric:
    """One instrument."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    attributes: tuple[str, ...]
    description: str
    bounds_s: tuple[float, ...] | None = None
    """Of a histogram: the upper bounds of its buckets."""

    def unit_of(self, prefix: str) -> str:
        """The unit, where runs are called this."""
        return self.unit.format(prefix=prefix) if self.unit == THINGS else self.unit


STEP = ("name", "step.name", "step.kind", "step.outcome")
METRICS = (
    Metric("started", "counter", THINGS, ("name", "version"), "Those that have begun"),
    Metric("ended", "counter", THINGS, ("name", "version", "status"), "Those that have ended, by how"),
    Metric(
        "step.attempts",
        "counter",
        "{attempt}",
        STEP,
        "Attempts of steps that have ended, by outcome; compensations and probes by their kind",
    ),
    Metric("duration", "histogram", "s", ("name", "status"), "From start to end", LONG_S),
    Metric("step.duration", "histogram", "s", STEP, "Of one attempt", SHORT_S),
    Metric("start.lag", "histogram", "s", ("name",), "From start to the first thing that was done for it", SHORT_S),
    Metric("timer.lag", "histogram", "s", ("name",), "By how much a sleep, a timeout or a retry came late", SHORT_S),
    Metric("commit.duration", "histogram", "s", (), "Of one commit to the store", SHORT_S),
    Metric("spans.sent", "counter", "{span}", (), "Spans that the collector has taken"),
    Metric("spans.dropped", "counter", "{span}", (), "Spans that the collector has refused for good"),
    Metric("active", "gauge", THINGS, ("status",), "Those that have not ended, by how they stand; of the whole store"),
    Metric(
        "oldest_runnable.age",
        "gauge",
        "s",
        (),
        "For how long the one has been due that waits longest for a worker; 0 where none does; of the whole store",
    ),
)
