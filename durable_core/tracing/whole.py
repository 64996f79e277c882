"""A trace as a document, made once all is known: what has ended is one span, with its true times.

Spans that are sent come in order, each after its parent; so what holds others is a short span at its beginning, and a
further one tells how it ended. A document need not wait for anything: it has both in one.

Invariant: it is made of the very spans that are sent, and of the time of asking where something is still under way.
"""

from collections.abc import Iterable, Sequence

from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord
from durable_core.tracing.fold import RunTrace
from durable_core.tracing.span import SpanRecord
from durable_core.tracing.vocabulary import CORE, Vocabulary


def whole_spans(
    record: RunRecord, entries: Iterable[Entry], *, now_ns: int, vocabulary: Vocabulary = CORE
) -> list[SpanRecord]:
    """One run's spans, each part that has ended as one of them; with the attempts under way, up to now.

    Args:
        record: the run's row.
        entries: its journal from the first entry on.
        now_ns: how far attempts under way are drawn; without any, it says nothing.
        vocabulary: the words of the layer above.
    """
    trace = RunTrace(record, vocabulary)
    spans = [trace.root()]
    for entry in entries:
        spans += trace.feed(entry)
    spans += trace.running(now_ns)
    return _contained(_merged(spans, trace.under_way()), over=trace.over)


def _merged(spans: Sequence[SpanRecord], under_way: set[int]) -> list[SpanRecord]:
    """Leave out what a later span tells too, and give its times, status and attributes to the part that it is about."""
    holders = {span.span_id for span in spans if span.holds}
    ends = {about: span for span in spans for about in span.tells if about not in under_way}
    told_whole = {end.span_id for about, end in ends.items() if about in holders}
    found: list[SpanRecord] = []
    for span in spans:
        end = ends.get(span.span_id)
        if span.holds and end is not None:
            found.append(_of_both(span, end))
        elif end is None and span.span_id not in told_whole:
            found.append(span)
    return found


def _of_both(begun: SpanRecord, end: SpanRecord) -> SpanRecord:
    return begun._replace(
        end_ns=end.end_ns,
        attributes={**begun.attributes, **end.attributes},
        events=begun.events + end.events,
        failed=end.failed,
        holds=False,
    )


def _contained(spans: Sequence[SpanRecord], *, over: bool) -> list[SpanRecord]:
    """Have every part that has ended last as long as what is in it.

    Moments last some microseconds, and evidence may come after a run's end. Of blocks the journal tells no end: once
    the run has ended, a block's is that of the last thing in it.
    """
    parts = {span.span_id for span in spans if not span.holds} if not over else {span.span_id for span in spans}
    last: dict[int, int] = {}
    found: list[SpanRecord] = []
    for span in reversed(spans):
        end_ns = max(span.end_ns, last.get(span.span_id, 0)) if span.span_id in parts else span.end_ns
        if span.parent_id is not None:
            last[span.parent_id] = max(last.get(span.parent_id, 0), end_ns)
        found.append(span if end_ns == span.end_ns else span._replace(end_ns=end_ns))
    return found[::-1]
