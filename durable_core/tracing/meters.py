"""Hands measurements to OpenTelemetry's meter. Imported only where the program has set a provider of them."""

from collections.abc import Callable

from opentelemetry import metrics
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider

from durable_core.tracing.counting import METRICS, Measure, Metric
from durable_core.tracing.otel import version_here


class Meters:
    """The instruments of ``METRICS``, each under a prefix."""

    def __init__(self, provider: MeterProvider, *, scope: str, prefix: str) -> None:
        meter = provider.get_meter(scope, version_here())
        self._record = {metric.name: _instrument(meter, metric, prefix) for metric in METRICS}
        self._names = {name: f"{prefix}.{name}" for metric in METRICS for name in metric.attributes}

    def record(self, measure: Measure) -> None:
        """Count or record one thing."""
        names = self._names
        told = {names[name]: value for name, value in measure.attributes.items()}
        self._record[measure.name](measure.value, told)


def meters_in_use(*, scope: str, prefix: str) -> Meters | None:
    """The instruments of the global provider, where it is one of the SDK."""
    provider = metrics.get_meter_provider()
    return Meters(provider, scope=scope, prefix=prefix) if isinstance(provider, MeterProvider) else None


def _instrument(meter: Meter, metric: Metric, prefix: str) -> Callable[[float, dict[str, str | int]], None]:
    name, unit, description = f"{prefix}.{metric.name}", metric.unit, metric.description
    match metric.kind:
        case "counter":
            return meter.create_counter(name, unit, description).add
        case "histogram":
            return meter.create_histogram(name, unit, description).record
        case "gauge":
            return meter.create_gauge(name, unit, description).set
