"""The spans of waits, each with a link to the span of the holder that it waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.propagate import extract, get_global_textmap
from opentelemetry.trace import (
    Link,
    SpanContext,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

KEY = "limiter.key"

_propagator = TraceContextTextMapPropagator()


_last: tuple[Context | None, str] = None, ""
"""The last context that was asked for, and the text of its span: a request often makes several
calls. A context never changes, and neither does what names its span."""


def current_traceparent() -> str:
    """Return the W3C `traceparent` of the current span; empty if there is none that is sampled."""
    global _last  # noqa: PLW0603  (replaced as a whole, so that threads need no lock)
    context = get_current()
    known, text = _last
    if context is not known:
        text = _traceparent(get_current_span(context).get_span_context())
        _last = context, text
    return text


def _traceparent(context: SpanContext) -> str:
    if not (context.is_valid and context.trace_flags.sampled):
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def enter_trace_of(headers: Mapping[str, object]) -> Callable[[], object]:
    """Make the trace in the headers of a message current, as the global propagator reads it.

    Returns:
        What makes the context current again that was so before.
    """
    return partial(detach, attach(extract(headers, get_current())))


def trace_fields() -> set[str]:
    """Return the names of the headers that the global propagator reads."""
    return get_global_textmap().fields


def span_context_of(traceparent: str) -> SpanContext | None:
    """Return the span that a `traceparent` names, None if it names none."""
    if not traceparent:
        return None
    context = get_current_span(
        _propagator.extract({"traceparent": traceparent}, Context())
    ).get_span_context()
    return context if context.is_valid else None


class WaitSpans:
    """Makes the spans `wait NAME`, when the wait is over.

    Args:
        tracer: makes spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def add(
        self,
        name: str,
        attributes: Mapping[str, str],
        *,
        parent: Context,
        blocker: str,
        ended_at: float,
        waited: float,
        error: str | None,
    ) -> None:
        """Make a span.

        Args:
            name: of the limit.
            attributes: of the span.
            parent: the context in which the call was made.
            blocker: the `traceparent` of the holder; empty if there is none.
            ended_at: when the wait was over, in seconds since the epoch.
            waited: its seconds.
            error: what the caller was refused with, None if it was not.
        """
        linked = span_context_of(blocker)
        span = self._tracer.start_span(
            f"wait {name}",
            parent,
            attributes=attributes,
            links=None if linked is None else [Link(linked)],
            start_time=_nanoseconds(ended_at - waited),
        )
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(ended_at))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
