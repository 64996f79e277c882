"""What the journal says of a saga, to hold against what Jaeger shows."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from durable_core.layer import SpanRecord
from sagas import Entry, Orchestrator, SagaInfo, tracing
from tests.real_jaeger.server import Span
from tests.traces import spans

SKEWS_S = (0, 5)
"""Values of ``max_clock_skew_adjust``: Jaeger's default, which warns, and one with which it moves spans."""


@attrs.frozen
class Told:
    """A saga, as its store has it."""

    info: SagaInfo
    history: list[Entry]
    spans: list[SpanRecord]
    """Those that its workers send."""
    exported: dict[str, Any]
    """The document of ``sagas trace export --format otlp``."""
    as_jaeger: dict[str, Any]
    """The document of ``sagas trace export``, in Jaeger's own form."""

    @property
    def trace_id(self) -> str:
        """As Jaeger writes it."""
        return f"{self.spans[0].trace_id:032x}"

    def places(self) -> "set[Place]":
        """Where each of its spans has to be."""
        return {
            Place(
                f"{span.span_id:016x}",
                None if span.parent_id is None else f"{span.parent_id:016x}",
                span.name,
                span.start_ns // 1000,
                (span.end_ns - span.start_ns) // 1000,
            )
            for span in self.spans
        }


@attrs.frozen
class Place:
    """A span's place in its trace."""

    id: str
    parent_id: str | None
    name: str
    start_us: int
    duration_us: int


def places(shown: Iterable[Span]) -> set[Place]:
    """Where Jaeger shows spans."""
    return {Place(span.id, span.parent_id, span.name, span.start_us, span.duration_us) for span in shown}


def warned(about: str, shown: Iterable[Span]) -> list[str]:
    """The warnings that Jaeger's page shows with these spans."""
    return [f"{about}: {span.name}: {warning}" for span in shown for warning in span.warnings]


def roots(shown: Iterable[Span]) -> list[str]:
    """The names of the spans whose parent is not there."""
    spans = list(shown)
    known = {span.id for span in spans}
    return [span.name for span in spans if span.parent_id not in known]


def in_lines(found: list[str]) -> str:
    """Warnings, for a message."""
    return "\n".join([f"{len(found)} warnings:", *found])


async def told_of(stores: Mapping[str, str]) -> "dict[str, Told]":
    """What its store has on each of these sagas."""
    found: dict[str, Told] = {}
    for id, address in stores.items():
        async with Orchestrator(address, worker=False) as looking:
            found[id] = await _told(looking, id)
    return found


async def _told(looking: Orchestrator, id: str) -> Told:
    handle = await looking.get(id)
    (record,) = await looking.engine.store.runs.find([id])
    return Told(
        await handle.info(),
        await handle.history(),
        spans(record, await looking.engine.journal(record.num)),
        await tracing.document(looking, id, form="otlp", service_name="exported"),
        await tracing.document(looking, id, service_name="exported"),
    )
