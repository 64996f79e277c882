"""What Jaeger, and whoever reads it, asks of a trace: ``broken_rules``."""

from collections.abc import Iterator, Mapping, Sequence

from durable_core.tracing.span import SpanRecord

LONGEST_ID = 1 << 64


def broken_rules(spans: Sequence[SpanRecord]) -> list[str]:
    """What is wrong with one run's spans, in the order in which they are exported; empty where nothing is.

    One trace id and one root, first. Every parent and every link's span comes before. No id twice. No span that ends
    before it starts, or starts before its parent, or that Jaeger would take for the work of a wrong clock. Whole
    numbers for times, and attributes that OTLP can say.
    """
    if not spans:
        return []
    root = spans[0]
    found = [f"{root.name!r} is first and has a parent here"] if root.parent_id and not root.remote_parent else []
    known: dict[int, SpanRecord] = {}
    for span in spans:
        what = f"{span.name!r} ({span.span_id:016x})"
        found += [f"{what} {why}" for why in _wrong(span, root, known)]
        known[span.span_id] = span
    return found


def _wrong(span: SpanRecord, root: SpanRecord, known: Mapping[int, SpanRecord]) -> Iterator[str]:
    if span.trace_id != root.trace_id:
        yield f"is in another trace than {root.name!r}"
    if span.span_id in known:
        yield f"has the id of {known[span.span_id].name!r}"
    if not 0 < span.span_id < LONGEST_ID:
        yield "has an id that is none"
    if not span.name or not span.name.isprintable():
        yield "has a name that cannot be shown"
    yield from _wrong_times(span)
    if span is not root:
        yield from _wrong_place(span, known)
    for name, value in span.attributes.items():
        parts = value if isinstance(value, tuple) else (value,)
        if any(type(part) not in (str, int, bool, float) for part in parts):
            yield f"has an attribute {name!r} of {value!r}"


def _wrong_place(span: SpanRecord, known: Mapping[int, SpanRecord]) -> Iterator[str]:
    parent = known.get(span.parent_id or 0)
    if parent is None:
        yield "is an orphan: its parent has not come before"
    elif span.start_ns < parent.start_ns:
        yield f"starts before its parent {parent.name!r}"
    elif _seems_skewed(span, parent):
        yield f"lies outside of its parent {parent.name!r} and is not longer: Jaeger takes its clock for wrong"
    for link in span.links:
        if link.trace_id != span.trace_id or link.span_id not in known:
            yield "links to a span that has not come before"


def _seems_skewed(span: SpanRecord, parent: SpanRecord) -> bool:
    """Whether Jaeger would warn of this span, or move it, as it does where no machine is known.

    A child that is longer than its parent goes on after it, which is fair. One that is not must lie within its parent;
    else Jaeger believes that another clock has made its times. Stores keep whole microseconds, so both are looked at.
    """
    for unit in (1, 1_000):
        start, end = span.start_ns // unit, span.end_ns // unit
        above, below = parent.start_ns // unit, parent.end_ns // unit
        if end - start <= below - above and not above <= start <= end <= below:
            return True
    return False


def _wrong_times(span: SpanRecord) -> Iterator[str]:
    times = [span.start_ns, span.end_ns, *(event.at_ns for event in span.events)]
    if any(type(at_ns) is not int for at_ns in times):
        yield "has a time that is no whole number of nanoseconds"
    if span.end_ns < span.start_ns:
        yield "ends before it starts"
    if any(not span.start_ns <= event.at_ns <= span.end_ns for event in span.events):
        yield "has an event outside of its time"
