"""How a call finds the trace of the call that it waits for, across processes.

While a trace source is set, each request carries the trace in which it was made behind its label,
and the store returns that of the oldest holder to the waiters (`Queued.blocker`). Without a
source no request is longer, and none costs more than a check::

    set_trace_source(lambda: current_traceparent())

A job that its queue delivers may bring the trace of its producer in the headers of its message.
With a second function, what happens to it happens in that trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

from limiter_core._held_leases import without_held
from limiter_core.signal_errors import reraise_if_of_signal

__all__ = (
    "carries_trace",
    "in_trace_of",
    "labelled",
    "set_trace_source",
    "split_label",
    "trace_headers",
    "with_trace",
)

logger = logging.getLogger("limiter")

MAX_TRACE_LENGTH = 200
"""Characters. A `traceparent` of the W3C has 55."""

MAX_HEADER_LENGTH = 8192
"""Characters. As many bytes may the `baggage` of the W3C have; a `tracestate` has fewer."""

SEPARATOR = "\x1f"
"""Between a label and a trace. The labels that callers give do not contain it."""

Headers = Mapping[str, object]
"""Those of a job's message, by name."""

Fields = Callable[[], Iterable[str]]
"""Returns the names of the headers that may have a trace."""

source: Callable[[], str] | None = None
"""The trace source of this process. Read it as `tracing.source`: it changes."""

_enter: Callable[[Headers], Callable[[], object]] | None = None
_fields: Fields = tuple[str, ...]

_has_failed = False

_last: tuple[str, str, str] = "", "", ""
"""The last trace that was asked for, a label, and both together: a request often makes several
calls."""


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


def set_trace_source(
    new: Callable[[], str] | None,
    enter: Callable[[Headers], Callable[[], object]] | None = None,
    fields: Fields = tuple[str, ...],
) -> None:
    """Have the requests of this process carry traces, of all limiters and gates.

    What the functions raise is logged once, and the call then carries no trace.

    Args:
        new: returns the trace of the moment, a `traceparent` of W3C Trace Context; "" if there is
            none. Called where a call is made, in its task or thread. It must be quick. None: no
            traces any more.
        enter: makes the trace in the headers of a job's message that of the moment, and returns
            what brings back the one before. Of the headers it gets those of `fields`.
        fields: returns the names of the headers that may have a trace.
    """
    global source, _enter, _fields, _has_failed
    source, _enter, _fields, _has_failed = new, enter, fields, False


def trace_headers(headers: Headers | None) -> Headers | None:
    """Return those of a job's headers that may have a trace; None if there are none.

    The others are not kept: there are many jobs that wait, and users may send anything.
    """
    if _enter is None or not headers:
        return None
    found: dict[str, str] = {}
    try:
        for name in _fields():
            value = headers.get(name)
            if isinstance(value, str) and len(value) <= MAX_HEADER_LENGTH:
                found[name] = value
    except Exception:  # noqa: BLE001  (a trace source's; it is logged)
        _log_failure()
    return found or None


@contextmanager
def in_trace_of(headers: Headers | None) -> Generator[None]:
    """Make the trace in the headers of a job's message that of the moment, for a block."""
    leave: Callable[[], object] | None = None
    enter = _enter  # another thread may end tracing at any moment
    if enter is not None and headers:
        try:
            leave = enter(headers)
        except Exception:  # noqa: BLE001  (a trace source's; it is logged)
            _log_failure()
    try:
        yield
    finally:
        if leave is not None:
            try:
                leave()
            except Exception:  # noqa: BLE001  (as above)
                _log_failure()


def _log_failure() -> None:
    """Log an exception of the trace source that is being handled, the first time."""
    global _has_failed  # noqa: PLW0603  (there is one source in a process)
    reraise_if_of_signal()
    if not _has_failed:
        _has_failed = True
        logger.error(
            "the trace source failed: calls carry no trace while it does",
            exc_info=True,  # noqa: LOG014  (each caller handles one)
        )


def with_trace(label: str) -> str:
    """Return the label of a new request, with the trace of the moment if there is one."""
    get_trace = source
    if get_trace is None:
        return label
    global _last  # noqa: PLW0603  (replaced as a whole, so that threads need no lock)
    known, of_label, text = _last
    try:
        trace = get_trace()
        if trace is known and label is of_label:
            return text
        is_allowed = trace.isascii() and trace.isprintable() and len(trace) <= MAX_TRACE_LENGTH
    except Exception:  # noqa: BLE001  (a trace source's; it is logged)
        _log_failure()
        return label
    text = labelled(label, trace) if is_allowed else label
    _last = trace, label, text
    return text
