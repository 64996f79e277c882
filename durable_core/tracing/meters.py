"""Hands measurements to OpenTelemetry's meter. Imported only where the program has set a provider of them."""

from collections.abc import Callable

from opentelemetry import metrics
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider

from durable_core.tracing.metrics import METRICS, Measure, Metric
from durable_core.tracing.otel import version_here
from durable_core.tracing.vocabulary import Vocabulary


class Meters:
    """The instruments of ``METRICS`` and of a vocabulary, each under its prefix."""

    def __init__(self, provider: MeterProvider, vocabulary: Vocabulary) -> None:
        meter, prefix = provider.get_meter(vocabulary.scope, version_here()), vocabulary.prefix
        metrics = METRICS + vocabulary.metrics
        self._record = {metric.name: _instrument(meter, metric, prefix) for metric in metrics}
        self._names = {name: f"{prefix}.{name}" for metric in metrics for name in metric.attributes}

    def record(self, measure: Measure) -> None:
        """Count or record one thing."""
        names = self._names
        attributes = {names[name]: value for name, value in measure.attributes.items()}
        self._record[measure.name](measure.value, attributes)


def meters_in_use(vocabulary: Vocabulary) -> Meters | None:
    """The instruments of the global provider, where it is one of the SDK."""
    provider = metrics.get_meter_provider()
    return Meters(provider, vocabulary) if isinstance(provider, MeterProvider) else None


def _instrument(meter: Meter, metric: Metric, prefix: str) -> Callable[[float, dict[str, str | int]], None]:
    name, unit, description = f"{prefix}.{metric.name}", metric.unit_of(prefix), metric.description
    match metric.kind:
        case "counter":
            return meter.create_counter(name, unit, description).add
        case "histogram":
            bounds = metric.bounds_s  # the library's own are meant for milliseconds
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds).record
        case "gauge":
            return meter.create_gauge(name, unit, description).set
