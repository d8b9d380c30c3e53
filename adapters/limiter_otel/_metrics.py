"""The instruments: their names, units and descriptions, and what they report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from limiter_otel._counts import Attributes, Counts

BOUNDARIES = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)
"""Seconds, from a hand-off on one machine to a job that waits for a batch to end."""

WAIT = "limiter.wait.duration"
HOLD = "limiter.hold.duration"
CALLS = "limiter.calls"
LOST = "limiter.leases.lost"
STORE_ERRORS = "limiter.store.errors"
HELD = "limiter.held"
WAITING = "limiter.waiting"

_Counted = Callable[[], Iterator[tuple[int, Attributes]]]


class Metrics:
    """The instruments of one meter. They report while `enabled`.

    Attributes:
        counts: what the observable instruments report.
        enabled: whether they report anything.
    """

    def __init__(self, meter: Meter) -> None:
        self.counts = counts = Counts()
        self.enabled = True
        self._wait = _histogram(
            meter, WAIT, "Time that calls and jobs waited for their slots; only of those that did."
        )
        self._hold = _histogram(meter, HOLD, "Time for which slots were held.")
        meter.create_observable_counter(
            CALLS,
            [self._callback(counts.all_calls)],
            unit="{call}",
            description="Calls and attempts of jobs that have an outcome.",
        )
        meter.create_observable_counter(
            LOST,
            [self._callback(counts.all_lost)],
            unit="{lease}",
            description="Leases that ended before their holders released them.",
        )
        meter.create_observable_counter(
            STORE_ERRORS,
            [self._callback(counts.all_store_errors)],
            unit="{error}",
            description="Outages of a store that this process noticed.",
        )
        meter.create_observable_up_down_counter(
            HELD,
            [self._callback(counts.all_held)],
            unit="{lease}",
            description="Leases that this process holds.",
        )
        meter.create_observable_up_down_counter(
            WAITING,
            [self._callback(counts.all_waiting)],
            unit="{call}",
            description="Calls of this process that wait for slots.",
        )

    def waited(self, seconds: float, attributes: Attributes) -> None:
        """Record a wait."""
        self._wait.record(seconds, attributes)

    def held(self, seconds: float, attributes: Attributes) -> None:
        """Record a hold."""
        self._hold.record(seconds, attributes)

    def _callback(self, counted: _Counted) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observations(options: CallbackOptions) -> Iterable[Observation]:  # noqa: ARG001
            if self.enabled:
                for count, attributes in counted():
                    yield Observation(count, attributes)

        return observations


def _histogram(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name,
        unit="s",
        description=description,
        explicit_bucket_boundaries_advisory=BOUNDARIES,
    )
