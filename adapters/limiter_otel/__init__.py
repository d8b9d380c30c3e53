"""OpenTelemetry: metrics and traces of limits.

    from limiter_otel import LimiterInstrumentor

    LimiterInstrumentor().instrument()

or start the program by `opentelemetry-instrument`, which finds it. `docs/how-to/observability.md`
lists the metrics, and says how to read the spans.
"""

from importlib import import_module

try:
    import_module("opentelemetry.instrumentation.instrumentor")
except ImportError as error:
    raise ImportError(
        'telemetry of limits needs opentelemetry: pip install "concurrency-limits[otel]"'
    ) from error

from limiter_otel._instrumentor import LimiterInstrumentor

__all__ = ("LimiterInstrumentor",)
