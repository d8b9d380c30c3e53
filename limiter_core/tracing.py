"""How a call finds the trace of the call that it waits for, across processes.

While a trace source is set, each request carries the trace in which it was made behind its label,
and the store returns that of the oldest holder to the waiters (`Queued.blocker`). Without a
source no request is longer, and none costs more than a check::

    set_trace_source(lambda: current_traceparent())
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from limiter_core._held_leases import without_held

__all__ = ("carries_trace", "labelled", "set_trace_source", "split_label", "with_trace")

logger = logging.getLogger("limiter")

MAX_TRACE_LENGTH = 200
"""Characters. A `traceparent` of the W3C has 55."""

SEPARATOR = "\x1f"
"""Between a label and a trace. The labels that callers give do not contain it."""

source: Callable[[], str] | None = None
"""The trace source of this process. Read it as `tracing.source`: it changes."""

_has_failed = False


def labelled(label: str, trace: str) -> str:
    """Return a label that carries a trace; the label alone if the trace is empty."""
    return f"{label}{SEPARATOR}{trace}" if trace else label


def split_label(text: str) -> tuple[str, str]:
    """Return the label and the trace that a request's label carries; "" without a trace."""
    label, _, trace = without_held(text).partition(SEPARATOR)
    return label, trace


def carries_trace(label: str) -> bool:
    """Whether a request's label carries a trace."""
    return SEPARATOR in label


def set_trace_source(new: Callable[[], str] | None) -> None:
    """Have the requests of this process carry traces, of all limiters and gates.

    Args:
        new: returns the trace of the moment, a `traceparent` of W3C Trace Context; "" if there is
            none. Called where a call is made, in its task or thread. It must be quick. What it
            raises is logged once, and the call then carries no trace. None: no traces any more.
    """
    global source, _has_failed
    source, _has_failed = new, False


def with_trace(label: str) -> str:
    """Return the label of a new request, with the trace of the moment if there is one."""
    global _has_failed  # noqa: PLW0603  (as above)
    get_trace = source
    if get_trace is None:
        return label
    try:
        trace = get_trace()
        is_allowed = trace.isascii() and trace.isprintable() and len(trace) <= MAX_TRACE_LENGTH
    except Exception:
        if not _has_failed:
            _has_failed = True
            logger.exception("the trace source failed: calls carry no trace while it does")
        return label
    return labelled(label, trace) if is_allowed else label
