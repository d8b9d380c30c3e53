"""OpenTelemetry: metrics and traces of limits.

    from limiter_otel import LimiterInstrumentor

    LimiterInstrumentor().instrument()

or start the program by `opentelemetry-instrument`, which finds it. `docs/observability.md` lists
the metrics, and says how to read the spans.
"""

from limiter_otel._instrumentor import LimiterInstrumentor

__all__ = ("LimiterInstrumentor",)
