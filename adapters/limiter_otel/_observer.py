"""The observer: turns the events of calls and jobs into counts, measurements and spans."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from limiter_core import events
from limiter_core.events import Event
from limiter_core.requests import Loss
from limiter_otel._counts import Series
from limiter_otel._metrics import Metrics
from limiter_otel._spans import KEY, WaitSpans

MOST_SPANS = 10_000
"""Waits at a time that become spans; each keeps the context of its call."""

MOST_JOBS = 1_000
"""Jobs at a time whose holder is remembered; they may be granted in another process."""


_Outcome = (
    events.Granted | events.Refused | events.Cancelled | events.Failed | events.AdmittedWithoutStore
)


class _Wait(NamedTuple):
    """A call that waits.

    Attributes:
        series: counts it.
        is_measured: whether it is part of the sample.
        key: the key for which it waits.
        blocker: the `traceparent` of the oldest holder.
        context: the context in which it was made; None if it becomes no span.
    """

    series: Series
    is_measured: bool
    key: str
    blocker: str
    context: Context | None


class OpenTelemetryObserver(events.CountingObserver):
    """Is called with the events of the process, and counts grants and releases without them.

    Args:
        metrics: what is counted and measured.
        spans: what is traced.
    """

    def __init__(self, metrics: Metrics, spans: WaitSpans) -> None:
        self._metrics = metrics
        self._counts = metrics.counts
        self._spans = spans
        self._waits: dict[str, _Wait] = {}
        self._jobs: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._handlers: dict[type[Event], Callable[[Any], object]] = {
            events.Queued: self._queued,
            events.Granted: self._granted,
            events.Lost: self._lost,
            events.Refused: self._refused,
            events.Cancelled: self._cancelled,
            events.Failed: self._failed,
            events.AdmittedWithoutStore: self._admitted,
            events.StoreFailed: self._store_failed,
        }

    def __call__(self, event: Event) -> None:
        """Handle an event; other classes of events are of no interest here."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def reset(self) -> None:
        """Forget all: in a forked process, whose parent goes on with it."""
        self._waits.clear()
        self._jobs.clear()
        self._counts.reset()

    # -- waits -------------------------------------------------------------------------------------

    def _queued(self, event: events.Queued) -> None:
        if event.adapter is not None:
            # Its wait ends where it is granted, which may be another process: that makes the span.
            self._jobs[event.id] = event.key, event.blocker
            if len(self._jobs) > MOST_JOBS:
                self._jobs.popitem(last=False)
            return
        series = self._series_of(event, event.key)
        is_measured, context = series.waits.takes(), None
        if is_measured and len(self._waits) < MOST_SPANS and is_instrumentation_enabled():
            # An event is sent where it happened, so this is the context of the call itself.
            context = get_current()
        self._waits[event.id] = _Wait(series, is_measured, event.key, event.blocker, context)
        self._counts.waits(series, 1)

    def _waited(self, event: Any, outcome: str, *, error: str | None = None) -> None:
        """End the wait of a call or job, if there was one.

        Args:
            event: its outcome.
            outcome: the same, as metrics name it.
            error: what the caller was refused with, None if it was not.
        """
        seconds = event.waited
        wait = self._waits.pop(event.id, None)
        if wait is not None:
            series, is_measured, key, blocker, context = wait
            self._counts.waits(series, -1)
            is_traced = context is not None
        elif event.adapter is not None:
            key, blocker = self._jobs.pop(event.id, ("", ""))
            if not seconds:
                return
            key = key or next(iter(event.keys), "")
            series, context, is_traced = self._series_of(event, key), None, True
            is_measured = series.waits.takes()
        else:
            return
        if not is_measured:
            return
        attributes = series.with_outcome(outcome)
        self._metrics.waited(seconds, attributes)
        if is_traced:
            self._spans.add(
                series.name,
                {**attributes, KEY: key},
                parent=context,
                blocker=blocker,
                ended_at=event.time,
                waited=seconds,
                error=error,
            )

    def _series_of(self, event: Event, key: str) -> Series:
        """Return the series of the limit in whose queue a call waits."""
        series = self._counts.of(event.names, event.adapter)
        if len(event.names) <= 1:
            return series[0]
        name = dict(zip(event.keys, event.names, strict=False)).get(key)
        return next((each for each in series if each.name == name), series[0])

    # -- outcomes ----------------------------------------------------------------------------------

    def granted(self, names: tuple[str, ...], adapter: str | None) -> None:
        """Count a grant without a wait."""
        self._counts.granted(names, adapter)

    def _granted(self, event: events.Granted) -> None:
        self._counts.granted(event.names, event.adapter)
        self._waited(event, "granted")

    def _refused(self, event: events.Refused) -> None:
        reason = event.reason.value
        self._counts.outcome(self._counts.of(event.names, event.adapter), reason)
        # A caller gets an error; a job ends as its queue has it, and nobody gets one.
        self._waited(event, reason, error=reason if event.adapter is None else None)

    def _cancelled(self, event: events.Cancelled) -> None:
        self._counts.outcome(self._counts.of(event.names, event.adapter), "cancelled")
        self._waited(event, "cancelled")

    def _failed(self, event: events.Failed) -> None:
        self._counts.outcome(self._counts.of(event.names, event.adapter), "failed")
        self._waited(event, "failed", error=_type_of(event.error))

    def _admitted(self, event: events.AdmittedWithoutStore) -> None:
        self._counts.outcome(self._counts.of(event.names, event.adapter), "admitted")
        self._waited(event, "admitted")

    # -- ends --------------------------------------------------------------------------------------

    def released(self, names: tuple[str, ...], adapter: str | None, held: float) -> None:
        """Count a release."""
        for each in self._counts.released(names, adapter):
            if each.holds.takes():
                self._metrics.held(held, each.with_outcome("released"))

    def _lost(self, event: events.Lost) -> None:
        reason = _reason_of(event.reason)
        series = self._counts.of(event.names, event.adapter)
        self._counts.lost(series, reason)
        for each in series:
            if each.holds.takes():
                self._metrics.held(event.held, each.with_outcome(reason))

    def _store_failed(self, event: events.StoreFailed) -> None:
        self._counts.store_failed(_type_of(event.error))


def _reason_of(loss: Loss | None) -> str:
    return "collected" if loss is None else loss.name.lower()


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
