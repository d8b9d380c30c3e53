"""OpenTelemetry: metrics and traces of limits.

    from limiter_otel import LimiterInstrumentor

    LimiterInstrumentor().instrument()

or start the program by `opentelemetry-instrument`, which finds it. `docs/how-to/observability.md`
lists the metrics, and says how to read the spans.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("otel", "telemetry of limits needs opentelemetry"):
    import_module("opentelemetry.instrumentation.instrumentor")

from limiter_otel._instrumentor import LimiterInstrumentor

__all__ = ("LimiterInstrumentor",)
