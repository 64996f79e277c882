"""Whether anybody wants spans or measurements: the one question that those are asked who do not."""

import sys

PROVIDED_BY = ("opentelemetry.trace", "opentelemetry.metrics")
"""What a program has loaded that has set a global provider."""


def spans_wanted(tracer_provider: object) -> bool:
    """Whether a provider is given, or the program may have set a global one; see ``tracing_with``."""
    return tracer_provider is not None or any(module in sys.modules for module in PROVIDED_BY)
