"""The observer: turns the events of calls and jobs into counts, measurements and spans."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
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
    """A call that waits, of the sample.

    Attributes:
        series: counts it.
        key: the key for which it waits.
        blocker: the `traceparent` of the oldest holder.
        context: the context in which it was made; None if it becomes no span.
        end: counts that it waits no more, where a process counts that.
        call: forgets it with the call, should its outcome never come; None of a job.
    """

    series: Series
    key: str
    blocker: str
    context: Context | None
    end: Callable[[], object] = lambda: None
    call: weakref.ref[events.Queued] | None = None


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

    def forget(self) -> None:
        """Forget all waits: in a forked process, whose parent goes on with them."""
        self._waits.clear()
        self._jobs.clear()

    # -- waits -------------------------------------------------------------------------------------

    def begin_wait(self, name: str, adapter: str | None) -> Callable[[], object] | None:
        """Count a wait; only those of the sample send their events."""
        series = self._counts.named(name, adapter)
        if series.waits.takes():
            return None
        return series.begin_wait()

    def _queued(self, event: events.Queued) -> None:
        if event.is_job:
            # Its wait ends where it is granted, which may be another process: that makes the span.
            self._jobs[event.id] = event.key, event.blocker
            if len(self._jobs) > MOST_JOBS:
                self._jobs.popitem(last=False)
            return
        series, context = self._series_of(event, event.key), None
        if len(self._waits) < MOST_SPANS and is_instrumentation_enabled():
            # An event is sent where it happened, so this is the context of the call itself.
            context = get_current()
        call = weakref.ref(event, partial(_forget, self._waits, event.id))
        end = series.begin_wait()
        self._waits[event.id] = _Wait(series, event.key, event.blocker, context, end, call)

    def _waited(self, event: _Outcome, outcome: str, *, error: str | None = None) -> None:
        """End the wait of a call or job, if there was one.

        Args:
            event: its outcome.
            outcome: the same, as metrics name it.
            error: what the caller was refused with, None if it was not.
        """
        if event.is_job:
            wait = self._wait_of_job(event)
        else:
            wait = self._waits.pop(event.id, None)
            if wait is not None:
                wait.end()
        if wait is None:
            return
        attributes = wait.series.with_outcome(outcome)
        self._metrics.waited(event.waited, attributes)
        if wait.context is not None:
            self._spans.add(
                wait.series.name,
                {**attributes, KEY: wait.key},
                parent=wait.context,
                blocker=wait.blocker,
                ended_at=event.time,
                waited=event.waited,
                error=error,
            )

    def _wait_of_job(self, event: _Outcome) -> _Wait | None:
        """Return the wait of a job that is over now, if it is part of the sample."""
        key, blocker = self._jobs.pop(event.id, ("", ""))
        if not event.waited:
            return None
        key = key or next(iter(event.keys), "")
        series = self._series_of(event, key)
        if not series.waits.takes():
            return None
        context = get_current() if is_instrumentation_enabled() else None
        return _Wait(series, key, blocker, context)

    def _series_of(self, event: Event, key: str) -> Series:
        """Return the series of the limit in whose queue a call waits."""
        series = self._counts.of(event.names, event.adapter)
        if len(event.names) <= 1:
            return series[0]
        name = dict(zip(event.keys, event.names, strict=False)).get(key)
        return next((each for each in series if each.name == name), series[0])

    # -- outcomes ----------------------------------------------------------------------------------

    def granted(self, names: tuple[str, ...], adapter: str | None) -> None:
        """Count a grant without an event."""
        counts = self._counts
        series = counts.by_names.get((names, adapter)) or counts.of(names, adapter)
        for each in series:
            each.granted.add()

    def _granted(self, event: events.Granted) -> None:
        self.granted(event.names, event.adapter)
        self._waited(event, "granted")

    def _refused(self, event: events.Refused) -> None:
        reason = event.reason.value
        self._counts.outcome(self._counts.of(event.names, event.adapter), reason)
        # A caller gets an error; a job ends as its queue has it, and nobody gets one.
        self._waited(event, reason, error=None if event.is_job else reason)

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
        counts = self._counts
        series = counts.by_names.get((names, adapter)) or counts.of(names, adapter)
        for each in series:
            each.ended.add()
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


def _forget(waits: dict[str, _Wait], call: str, event: object) -> None:  # noqa: ARG001  (a weak reference's callback gets it)
    """Forget a wait whose call was collected; may be called by the garbage collector."""
    waits.pop(call, None)


def _reason_of(loss: Loss | None) -> str:
    return "collected" if loss is None else loss.name.lower()


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
