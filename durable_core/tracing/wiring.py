"""What an engine is given so that its runs are traced; nothing of OpenTelemetry is loaded unless spans are wanted."""

from typing import TYPE_CHECKING

import attrs

from durable_core.ports import SpanSink, TraceContext
from durable_core.tracing.vocabulary import CORE, Vocabulary
from durable_core.tracing.wanted import spans_wanted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter


@attrs.frozen
class Tracing:
    """Where spans go, in which words, and what the code of steps sees of it."""

    sink: SpanSink
    context: TraceContext
    vocabulary: Vocabulary = CORE
    failures: bool = False
    """Whether a run that was not sampled is exported in full once it fails."""


def tracing_with(tracer_provider: object = None, *, vocabulary: Vocabulary = CORE) -> Tracing | None:
    """Tracing by this provider of OpenTelemetry's SDK; by default the global one, where the program has set one.

    None where there is neither: then nothing is traced, and nothing is loaded.

    Raises:
        TypeError: what was given is no provider.
    """
    if not spans_wanted(tracer_provider):
        return None  # whoever has set a global provider has loaded the library
    from durable_core.tracing import otel  # noqa: PLC0415 - 100 ms that only those pay who want spans

    provider = otel.provider_of(tracer_provider)
    if provider is None:
        return None
    failures = otel.exports_failures(provider)
    sink = otel.OtelSink(provider, vocabulary.scope, vocabulary.prefix)
    return Tracing(sink, otel.OtelContext(provider), vocabulary, failures)


def export_directly(provider: "TracerProvider", exporter: "SpanExporter") -> None:
    """Where ``provider`` is in use, have the spans of runs go to ``exporter``, past the provider's processors.

    An exporter says what was taken: what was not stays in the journal and is offered again. A processor's queue drops.
    """
    from durable_core.tracing import otel  # noqa: PLC0415 - as above

    otel.export_directly(provider, exporter)


def export_failures(provider: "TracerProvider") -> None:
    """Where ``provider`` is in use, export a run in full that was not sampled, once it fails or is stuck."""
    from durable_core.tracing import otel  # noqa: PLC0415 - as above

    otel.export_failures(provider)
