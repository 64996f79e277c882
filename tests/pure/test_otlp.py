"""OTLP written by hand says what the library's own encoder says."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from durable_core.tracing.otel import Converter
from durable_core.tracing.otlp import _MOST_KEPT, keep
from durable_core.tracing.span import SpanEvent, SpanLink, SpanRecord, Value

texts = st.text(max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
values = texts | st.booleans() | numbers | st.lists(texts, max_size=3).map(tuple) | st.lists(numbers).map(tuple)
attributes = st.dictionaries(texts.filter(bool) | st.just("saga.step.kind"), values, max_size=6)
span_ids = st.integers(1, 2**64 - 1)
trace_ids = st.integers(1, 2**128 - 1)
times = st.integers(0, 2**63)
spans = st.builds(
    SpanRecord,
    name=texts,
    trace_id=trace_ids,
    span_id=span_ids,
    parent_id=st.none() | span_ids,
    start_ns=times,
    end_ns=times,
    attributes=attributes,
    links=st.lists(st.builds(SpanLink, trace_ids, span_ids), max_size=2).map(tuple),
    events=st.lists(st.builds(SpanEvent, texts, times, attributes), max_size=2).map(tuple),
    failed=st.booleans(),
    remote_parent=st.booleans(),
).map(lambda span: span._replace(remote_parent=span.remote_parent and span.parent_id is not None))
RESOURCE = Resource(
    {"service.name": "shop", "deployment.environment": "test", "replicas": 3, "zones": ["a", "b"]},
    "https://schema.example",
)


KEPT = "saga.step.kind"
keep([KEPT])


def span_of(value: Value) -> SpanRecord:
    return SpanRecord("x", 1, 2, None, 3, 4, {KEPT: value})


@given(st.lists(spans, min_size=1, max_size=3))
@example([span_of("long" * 100), span_of(("é" * 100, "x" * 20_000))])
@example([span_of(1), span_of(True), span_of(1.0), span_of("1"), span_of(1)])  # noqa: FBT003
def test_our_bytes_say_what_the_library_says(given: list[SpanRecord]):
    """Any spans, written by hand, are read as the very message that the library makes of them."""
    converter = Converter(RESOURCE, "sagas")
    ours = ExportTraceServiceRequest.FromString(converter.encoder()(given))
    theirs = ExportTraceServiceRequest.FromString(
        encode_spans([converter(span) for span in given]).SerializePartialToString()
    )
    assert ours == theirs


def test_an_attribute_with_many_values_is_written_all_the_same():
    """Where an attribute that should have few values has many, each is written as it is, and not all are kept."""
    encode = Converter(RESOURCE, "sagas").encoder()
    for number in (*range(_MOST_KEPT + 2), 0):
        assert f"value {number}".encode() in encode([span_of(f"value {number}")])


@pytest.mark.parametrize("bad", [{"start_ns": 3.0}, {"end_ns": 4.5}])
def test_a_time_that_is_no_whole_number_is_refused(bad: dict[str, float]):
    """A float for a time is refused before anything is written."""
    span = SpanRecord("x", 1, 2, None, 3, 4, {})._replace(**bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole nanoseconds"):
        Converter(RESOURCE, "sagas").encoder()([span])
