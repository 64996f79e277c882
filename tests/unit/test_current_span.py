"""The span that is current while a step runs."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from durable_core.tracing.otel import OtelContext


def test_ids_are_worked_out_once_they_are_asked_for() -> None:
    """A step that starts no span of its own costs no ids; whoever asks gets the same ones each time."""
    asked: list[int] = []

    def told() -> tuple[int, int, bool]:
        asked.append(1)
        return 7, 9, True

    context = OtelContext(TracerProvider())
    token = context.enter(told)
    span = trace.get_current_span()
    assert not span.is_recording()
    assert not asked
    within = span.get_span_context()
    assert (within.trace_id, within.span_id, within.trace_flags.sampled, within.is_remote) == (7, 9, True, False)
    assert span.get_span_context() is within
    assert asked == [1]
    context.leave(token)
    assert not trace.get_current_span().get_span_context().is_valid
    assert "0x00000000000000000000000000000007" in repr(span)
