"""The events of a gate's jobs: one outcome per attempt, over all workers.

An attempt is named by its ticket, and may be delivered to several workers, one after the other. So
what a worker knows of it is sent only when the store says that it is the outcome: a grant, a
refusal, the removal of the ticket. A delivery that ends otherwise sends nothing: another follows.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar, cast

from limiter_core._event_log import LOG
from limiter_core._gate_state import REMEMBERED
from limiter_core._job_parts import Job, Waiting
from limiter_core._observed_call import BegunCall, ObservedCall
from limiter_core._observers import ObserverSet, is_in_observer, of_process
from limiter_core.errors import Evicted, StoreError, Superseded
from limiter_core.lease import Lease, SyncLease
from limiter_core.requests import Held
from limiter_core.tracing import Headers

logger = logging.getLogger("limiter")

V = TypeVar("V")


class ObservedJobCall(BegunCall, Protocol):
    """The part of a job's call that matters here."""

    id: str
    observed: ObservedCall | None


class JobEvents:
    """What a gate sends to the observers of this process, and to the log.

    Args:
        adapter: the framework that runs the jobs.
        now: the clock of the gate's store.
    """

    def __init__(self, adapter: str, now: Callable[[], float]) -> None:
        self._adapter = adapter
        self._now = now
        self._waiting: OrderedDict[str, ObservedCall] = OrderedDict()
        self._decided: OrderedDict[str, object] = OrderedDict()
        """Tickets whose outcome is known, though this process may be notified of it once more: the
        store keeps a refusal of a ticket for a while, beside the notice of it."""

    def of(self, job: Job) -> ObservedCall | None:
        """Return what sends the events of a delivery; None if nothing is to be sent."""
        return self._new(job.arguments.function_name, job.limits, job.headers)

    def confirmed(self, outcome: Lease | SyncLease | Waiting | Held) -> None:
        """Send that a job waits or runs, as `admit` returned it."""
        if isinstance(outcome, Waiting):
            call = cast(ObservedJobCall, outcome.request.listener)
            self._parked(outcome, call.observed)
        elif not isinstance(outcome, Held):
            self._running(cast(ObservedJobCall, outcome._call))  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  (of this package)

    def _parked(self, waiting: Waiting, observed: ObservedCall | None) -> None:
        """Send that a job waits, and remember it: this process may learn its outcome."""
        ticket = waiting.request.id
        self._decided.pop(ticket, None)
        if observed is not None:
            observed.queued(waiting)
            self._waiting.pop(ticket, None)
            _remember(self._waiting, ticket, observed)

    def _running(self, call: ObservedJobCall) -> None:
        """Send that a job runs: it was granted its slots, or admitted without."""
        ticket = call.id
        self._waiting.pop(ticket, None)
        self._decided.pop(ticket, None)
        if call.granted is None:
            self._decide(ticket)  # the store may have its ticket all the same
        if call.observed is not None:
            call.observed.begun(call)

    def ended(self, observed: ObservedCall | None, ticket: str, error: BaseException) -> None:
        """Send the outcome of a delivery that `admit` raised, if it is the attempt's.

        A store that failed, and a worker that stops, decide nothing: the job is delivered again.
        """
        if not isinstance(error, Exception) or isinstance(error, StoreError):
            return
        parked = self._waiting.pop(ticket, None)
        if isinstance(error, Superseded | Evicted) and not self._decide(ticket):
            return
        if observed is not None:
            if parked is not None:
                observed.note_wait(parked.waited)
            observed.ended(error)

    def removed(
        self,
        ticket: str,
        limits: Sequence[tuple[str, str]],
        error: Exception | None = None,
        function: str | None = None,
    ) -> None:
        """Send the outcome of a job whose ticket is gone.

        Args:
            ticket: names the attempt.
            limits: the keys on which it waited, each with the name of its limit, as far as they
                are known.
            error: the refusal; None if it was cancelled, or its job is gone.
            function: the full name of its function, if it is known.
        """
        observed = self._waiting.pop(ticket, None)
        if not self._decide(ticket):
            return
        if observed is None:
            observed = self._new(function)
            if observed is None:
                return
            observed.describe_ticket(ticket, limits)
        if error is None:
            observed.cancelled()
        else:
            observed.ended(error)

    def _decide(self, ticket: str) -> bool:
        """Note that the outcome of a ticket is known; whether it was not."""
        token = object()
        return _remember(self._decided, ticket, token) is token

    def lack_names(self, limits: Sequence[tuple[str, str]]) -> bool:
        """Whether an event would not say what the limits of some keys are called."""
        return not all(name for _, name in limits) and self._observers() is not None

    def _observers(self) -> ObserverSet | None:
        """Return the receiver of an event now; None without one."""
        if is_in_observer():
            return None
        observers = of_process.observers
        if logger.isEnabledFor(logging.WARNING):
            return _with_log(observers, losses_only=not logger.isEnabledFor(logging.INFO))
        return observers if observers.registered else None

    def _new(
        self, function: str | None, limits: object = (), headers: Headers | None = None
    ) -> ObservedCall | None:
        observers = self._observers()
        if observers is None:
            return None
        return ObservedCall(
            observers,
            self._now,
            function,
            self._adapter,
            limits,
            is_job=True,
            headers=headers,
        )


@functools.lru_cache(maxsize=2)
def _with_log(observers: ObserverSet, *, losses_only: bool) -> ObserverSet:
    """Return the observers of this process, which seldom change, and the log."""
    return observers.with_rare(LOG) if losses_only else observers.joined_by(LOG)


def _remember(notes: OrderedDict[str, V], ticket: str, note: V) -> V:
    """Note something of a ticket, unless there is a note; returns the one that counts."""
    found = notes.setdefault(ticket, note)
    if len(notes) > REMEMBERED:
        with suppress(KeyError):  # other threads do so, too
            notes.popitem(last=False)
    return found
