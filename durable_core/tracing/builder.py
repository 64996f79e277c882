"""Writes the spans of one run: what they all share, and the times that no clock may spoil.

Invariant: time does not go back within a trace, even where a run moves between machines whose clocks differ.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from durable_core.model.failure import describe
from durable_core.model.run import RunRecord
from durable_core.model.tags import read_tags
from durable_core.model.trace import SpanIds, origin_of, trace_id_of
from durable_core.model.worker import place_of
from durable_core.tracing.span import SHORT_NS, Holder, SpanEvent, SpanLink, SpanRecord, Value
from durable_core.tracing.vocabulary import Vocabulary

LONGEST_TEXT = 16 << 10


class Names(NamedTuple):
    """The attributes that are often written, with their prefix: put together once."""

    id: str
    run_name: str
    step_name: str
    step_key: str
    step_kind: str
    attempt: str
    outcome: str
    idempotency_key: str
    retry_in_ms: str
    left_out: str
    worker: str


@lru_cache
def names_of(prefix: str) -> Names:
    """The names that begin with this prefix."""
    step = f"{prefix}.step"
    return Names(
        id=f"{prefix}.id",
        run_name=f"{prefix}.name",
        step_name=f"{step}.name",
        step_key=f"{step}.key",
        step_kind=f"{step}.kind",
        attempt=f"{step}.attempt",
        outcome=f"{step}.outcome",
        idempotency_key=f"{step}.idempotency_key",
        retry_in_ms=f"{step}.retry_in_ms",
        left_out=f"{step}.left_out",
        worker=f"{prefix}.worker.id",
    )


@lru_cache(1_000)
def written_by(prefix: str, worker: str) -> Mapping[str, Value]:
    """What is said of a worker: its id, and its machine and process where its name has them."""
    found: dict[str, Value] = {f"{prefix}.worker.id": worker}
    place = place_of(worker)
    if place is not None:
        found[f"{prefix}.worker.host"], found[f"{prefix}.worker.pid"] = place
    return found


@lru_cache(1_000)
def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name.replace('__', '.')}"


class SpanBuilder:
    """One run's ids, attributes and time."""

    __slots__ = ("_ids", "began_ns", "names", "now_ns", "origin", "prefix", "shared", "trace_id", "uid")

    def __init__(self, record: RunRecord, vocabulary: Vocabulary) -> None:
        self.uid = record.uid
        self._ids = SpanIds(record.uid)
        self.origin = origin_of(record.traceparent)
        self.trace_id = trace_id_of(record.uid, self.origin)
        self.prefix = vocabulary.prefix
        self.names = names_of(vocabulary.prefix)
        self.shared: dict[str, Value] = {self.names.id: record.id, self.names.run_name: record.name}
        """What every span of the run says from now on: also its tags."""
        for key, value in read_tags(record.tags).items():
            self.tag(key, value)
        self.began_ns = self.now_ns = record.created_at_ns

    def tag(self, key: str, value: str) -> None:
        """From now on every span says this tag."""
        self.shared[f"{self.prefix}.tag.{key}"] = value

    def id(self, kind: str, key: str = "", attempt: int = 0, seq: int = 0) -> int:
        """The id of a span; see ``span_id_of``."""
        return self._ids.of(kind, key, attempt, seq)

    def attributes(self, by: str = "", /, **own: Value | None) -> dict[str, Value]:
        """The attributes of a span: what all have, the worker ``by``, and its own under the prefix.

        Two underscores stand for a dot.
        """
        prefix = self.prefix
        found: dict[str, Value] = {**self.shared, **written_by(prefix, by)} if by else {**self.shared}
        for name, value in own.items():
            if value is not None:
                found[_dotted(prefix, name)] = value
        return found

    def span(
        self,
        name: str,
        span_id: int,
        holder: Holder | None,
        attributes: Mapping[str, Value],
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        links: tuple[SpanLink, ...] = (),
        events: tuple[SpanEvent, ...] = (),
        failed: bool = False,
        holds: bool = False,
        tells: tuple[int, ...] = (),
    ) -> SpanRecord:
        """A span; without an end a short one, without a start one that begins now. None is as short as its parent."""
        if holder is None:
            parent_id, least_ns = None, SHORT_NS
        else:
            parent_id, least_ns = holder
        if start_ns is None:
            start_ns = self.now_ns
        least_ns += start_ns
        if end_ns is None or end_ns < least_ns:
            end_ns = least_ns
        return SpanRecord(
            name,
            self.trace_id,
            span_id,
            parent_id,
            start_ns,
            end_ns,
            attributes,
            links,
            events,
            failed,
            False,  # noqa: FBT003 - by position: called for every span
            holds,
            tells,
        )

    def link(self, span_id: int | None) -> tuple[SpanLink, ...]:
        """A link within the trace."""
        return () if span_id is None else (SpanLink(self.trace_id, span_id),)

    def type_of(self, stored: bytes | None) -> str | None:
        """The type of a stored failure."""
        return None if stored is None else describe(stored).type_name

    def exception(self, stored: bytes | None) -> tuple[SpanEvent, ...]:
        """A stored failure as the event that OpenTelemetry has for it: the one place where its texts appear."""
        if stored is None:
            return ()
        text = describe(stored)
        texts: dict[str, Value] = {
            "exception.type": text.type_name,
            "exception.message": text.message[:LONGEST_TEXT],
        }
        if text.traceback:
            texts["exception.stacktrace"] = text.traceback[:LONGEST_TEXT]
        return (SpanEvent("exception", self.now_ns, texts),)
