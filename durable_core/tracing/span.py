"""A span as data, before any library for tracing sees it.

Invariant: times are whole nanoseconds; one float would make an exporter drop the whole batch that it is in.
"""

from collections.abc import Mapping
from typing import NamedTuple

Value = str | int | bool | tuple[str, ...]
"""What an attribute may hold."""

SHORT_NS = 1_000
"""How long a span lasts that stands for a moment: 1 µs, the least that Jaeger shows."""


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
