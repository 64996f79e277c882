"""Whether anybody wants spans: the one question that those are asked who do not."""

import sys


def spans_wanted(tracer_provider: object) -> bool:
    """Whether a provider is given, or the program may have set a global one; see ``tracing_with``."""
    return tracer_provider is not None or "opentelemetry.trace" in sys.modules
