"""The span in which something was asked for, kept as text until it is done elsewhere, later.

Invariant: a program that has no OpenTelemetry pays nothing, and loads nothing.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager

from durable_core.model.trace import origin_of, traceparent


def caller() -> str | None:
    """The span that is current here, as the header ``traceparent`` holds it; None where there is none."""
    if "opentelemetry.trace" not in sys.modules:
        return None  # who has begun a span has loaded it
    from opentelemetry import trace  # noqa: PLC0415 - only for those who have

    span = trace.get_current_span().get_span_context()
    return traceparent(span.trace_id, span.span_id, sampled=span.trace_flags.sampled) if span.is_valid else None


@contextmanager
def called_by(stored: str | None) -> Generator[None]:
    """Within the block the span of this ``traceparent`` is the current one; without it, none is."""
    if "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context, trace  # noqa: PLC0415 - as above

    around = context.Context()
    origin = origin_of(f"link:{stored}")
    if origin is not None:
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if origin.sampled else trace.TraceFlags.DEFAULT)
        span = trace.SpanContext(origin.trace_id, origin.span_id, is_remote=True, trace_flags=flags)
        around = trace.set_span_in_context(trace.NonRecordingSpan(span), around)
    token = context.attach(around)
    try:
        yield
    finally:
        context.detach(token)
