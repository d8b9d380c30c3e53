"""The events of a gate's jobs: one outcome per attempt, over all workers.

An attempt is named by its ticket, and may be delivered to several workers, one after the other. So
what a worker knows of it is sent only when the store says that it is the outcome: a grant, a
refusal, the removal of the ticket. A delivery that ends otherwise sends nothing: another follows.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from limiter_core._event_log import LOG
from limiter_core._job_parts import REMEMBERED, Job
from limiter_core._observed_call import ObservedCall
from limiter_core._observers import is_in_observer, of_process
from limiter_core.errors import StoreError

logger = logging.getLogger("limiter")


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

    def of(self, job: Job) -> ObservedCall | None:
        """Return what sends the events of a delivery; None if nothing is to be sent."""
        return self._new(job.arguments.function_name)

    def wait(self, ticket: str, observed: ObservedCall | None) -> None:
        """Remember a job that waits: this process may learn its outcome."""
        if observed is not None:
            self._waiting[ticket] = observed
            if len(self._waiting) > REMEMBERED:
                self._waiting.popitem(last=False)

    def ended(self, observed: ObservedCall | None, ticket: str, error: BaseException) -> None:
        """Send the outcome of a delivery that `admit` raised, if it is the attempt's.

        A store that failed, and a worker that stops, decide nothing: the job is delivered again.
        """
        if isinstance(error, Exception) and not isinstance(error, StoreError):
            self._waiting.pop(ticket, None)
            if observed is not None:
                observed.ended(error)

    def granted(self, ticket: str) -> None:
        """Forget a job that waited."""
        self._waiting.pop(ticket, None)

    def removed(self, ticket: str, keys: Sequence[str], error: Exception | None = None) -> None:
        """Send the outcome of a job whose ticket is gone.

        Args:
            ticket: names the attempt.
            keys: the keys on which it waited, as far as they are known.
            error: the refusal; None if it was cancelled, or its job is gone.
        """
        observed = self._waiting.pop(ticket, None)
        if observed is None:
            observed = self._new(None)
            if observed is None:
                return
            observed.describe_ticket(ticket, keys)
        if error is None:
            observed.cancelled()
        else:
            observed.ended(error)

    def _new(self, function: str | None) -> ObservedCall | None:
        if is_in_observer():
            return None
        audience = of_process.audience
        if logger.isEnabledFor(logging.WARNING):
            audience = audience.joined_by(LOG)
        if not audience.registered:
            return None
        return ObservedCall(audience, self._now, function=function, adapter=self._adapter)
