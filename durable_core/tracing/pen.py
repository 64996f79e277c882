"""Writes the spans of one run: what they all share, and the times that no clock may spoil.

Invariant: time does not go back within a trace, even where a run moves between machines whose clocks differ.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from durable_core.model.failure import describe
from durable_core.model.run import RunRecord
from durable_core.model.trace import origin_of, span_id_of, trace_id_of
from durable_core.tracing.span import SHORT_NS, SpanEvent, SpanLink, SpanRecord, Value
from durable_core.tracing.vocabulary import Vocabulary

LONGEST_TEXT = 16 << 10


class Names(NamedTuple):
    """The attributes of a step's spans, with their prefix: put together once, for they are written for every span."""

    id: str
    step_name: str
    step_key: str
    step_kind: str
    attempt: str
    outcome: str
    idempotency_key: str
    worker: str


@lru_cache
def names_of(prefix: str) -> Names:
    """The names that begin with this prefix."""
    step = f"{prefix}.step"
    return Names(
        id=f"{prefix}.id",
        step_name=f"{step}.name",
        step_key=f"{step}.key",
        step_kind=f"{step}.kind",
        attempt=f"{step}.attempt",
        outcome=f"{step}.outcome",
        idempotency_key=f"{step}.idempotency_key",
        worker=f"{prefix}.worker.id",
    )


class Pen:
    """One run's ids, attributes and time."""

    __slots__ = ("began_ns", "names", "now_ns", "origin", "prefix", "run_id", "trace_id", "uid")

    def __init__(self, record: RunRecord, vocabulary: Vocabulary) -> None:
        self.uid = record.uid
        self.origin = origin_of(record.traceparent)
        self.trace_id = trace_id_of(record.uid, self.origin)
        self.run_id = record.id
        self.prefix = vocabulary.prefix
        self.names = names_of(vocabulary.prefix)
        self.began_ns = self.now_ns = record.created_at_ns

    def advance(self, at_ns: int) -> None:
        """An entry was made at this time, by whichever clock."""
        if at_ns > self.now_ns:  # noqa: PLR1730 - a call of max() for each entry is felt
            self.now_ns = at_ns

    def id(self, kind: str, key: str = "", attempt: int = 0, seq: int = 0) -> int:
        """The id of a span; see ``span_id_of``."""
        return span_id_of(self.uid, kind, key, attempt, seq)

    def attributes(self, **own: Value | None) -> dict[str, Value]:
        """The attributes of a span: the run's id, and its own under the prefix; two underscores stand for a dot."""
        found: dict[str, Value] = {self.names.id: self.run_id}
        for name, value in own.items():
            if value is not None:
                found[f"{self.prefix}.{name.replace('__', '.')}"] = value
        return found

    def span(
        self,
        name: str,
        span_id: int,
        parent_id: int | None,
        attributes: Mapping[str, Value],
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        links: tuple[SpanLink, ...] = (),
        events: tuple[SpanEvent, ...] = (),
        failed: bool = False,
    ) -> SpanRecord:
        """A span; without an end a short one, without a start one that begins now."""
        start_ns = self.now_ns if start_ns is None else start_ns
        end_ns = start_ns + SHORT_NS if end_ns is None else max(start_ns, end_ns)
        return SpanRecord(name, self.trace_id, span_id, parent_id, start_ns, end_ns, attributes, links, events, failed)

    def link(self, span_id: int | None) -> tuple[SpanLink, ...]:
        """A link within the trace."""
        return () if span_id is None else (SpanLink(self.trace_id, span_id),)

    def exception(self, stored: bytes | None) -> tuple[SpanEvent, ...]:
        """A stored failure as the event that OpenTelemetry has for it: the one place where its texts appear."""
        if stored is None:
            return ()
        told = describe(stored)
        texts: dict[str, Value] = {
            "exception.type": told.type_name,
            "exception.message": told.message[:LONGEST_TEXT],
        }
        if told.traceback:
            texts["exception.stacktrace"] = told.traceback[:LONGEST_TEXT]
        return (SpanEvent("exception", self.now_ns, texts),)
