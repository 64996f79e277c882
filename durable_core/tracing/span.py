"""A span as data, before any library for tracing sees it.

Invariant: times are whole nanoseconds; one float would make an exporter drop the whole batch that it is in.
"""

from collections.abc import Mapping
from typing import NamedTuple

from durable_core.model.said import Plain, Value

__all__ = ["SHORT_NS", "Holder", "Plain", "SpanEvent", "SpanLink", "SpanRecord", "Value"]

SHORT_NS = 1_000
"""How long a span lasts that stands for a moment and has no parent: 1 µs, the least that Jaeger shows."""


class Holder(NamedTuple):
    """A short span that others are under.

    Where the machine is not known, Jaeger takes a span that is not longer than its parent, and lies outside of it, for
    the work of a wrong clock: it warns, or moves it. So what is under a short span lasts a microsecond longer.
    """

    span_id: int
    least_ns: int
    """How long a span under it lasts at least."""

    def holding(self, span_id: int) -> "Holder":
        """A short span under this one that others are under."""
        return Holder(span_id, self.least_ns + SHORT_NS)


class SpanLink(NamedTuple):
    """Another span that this one is about."""

    trace_id: int
    span_id: int


class SpanEvent(NamedTuple):
    """Something that happened within a span."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value]


class SpanRecord(NamedTuple):
    """One span, ended."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    """None for a root without a caller."""
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    links: tuple[SpanLink, ...] = ()
    events: tuple[SpanEvent, ...] = ()
    failed: bool = False
    """Whether its status is an error."""
    remote_parent: bool = False
    """Whether its parent is in another process's trace context: the caller's."""
    holds: bool = False
    """Whether it is short and stands for a part of the run that others are in."""
    tells: tuple[int, ...] = ()
    """The spans before it that say less than it does; see ``durable_core.tracing.whole``."""
