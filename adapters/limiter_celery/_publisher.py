"""Publishes granted tasks for any worker."""

from __future__ import annotations

import collections
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from limiter_celery._parked_message import ParkedMessage
from limiter_celery._queues import QueueMissing
from limiter_celery._scheduler import Scheduler
from limiter_core import StoreError
from limiter_core.jobs import SyncJobGate
from limiter_core.system_clock import system_clock as time

logger = logging.getLogger("limiter")

_LAST_POLL = 1.5
"""Seconds for which a worker that is about to end may still take a message off a Redis broker: its
last poll may be under way when it stops to read the reply."""

_ATTEMPTS = 3
"""How often a task is published to a queue that is deleted with its consumers, and of which this
worker does not know whether it exists. If its slot is not claimed, there are no consumers."""

_MOST = 10_000
"""Tasks whose attempts are counted; of more, the oldest are forgotten, and begin anew."""


class Publisher:
    """Publishes what the store has granted. What fails is offered again by the store.

    Args:
        app: the Celery app.
        scheduler: in which it publishes, and drops.
        gate: what drops a ticket.
    """

    def __init__(self, app: Any, scheduler: Scheduler, gate: SyncJobGate) -> None:
        self._app = app
        self._scheduler = scheduler
        self._gate = gate
        self._closed_at: float | None = None
        self._attempts: collections.OrderedDict[str, int] = collections.OrderedDict()

    def close(self) -> None:
        """This worker is about to end: publish from now on only what it cannot take itself."""
        self._closed_at = time.monotonic()

    def publish_later(self, ticket: str, message: ParkedMessage, keys: Sequence[str] = ()) -> None:
        """Publish the message of a task that was granted on these keys; from any thread."""
        wait = 0.0
        if self._closed_at is not None:
            wait = max(self._closed_at + _LAST_POLL - time.monotonic(), 0.0)
        self._scheduler.call_later(wait, lambda: self._publish(ticket, message, keys))

    def _publish(self, ticket: str, message: ParkedMessage, keys: Sequence[str]) -> None:
        try:
            if message.temporary and message.queue not in self._app.amqp.queues:
                self._count_attempt(ticket, message.queue)
            message.publish(self._app, keys)
        except QueueMissing as error:
            if not message.temporary:
                logger.warning("could not wake a task, will try again: %s", error)
                return
            # A queue of one worker, as for broadcasts: what is left in it ends with it.
            logger.warning("%s is dropped: %s", ticket, error)
            self._attempts.pop(ticket, None)
            with suppress(StoreError):  # it is offered again
                self._gate.drop(ticket)
        except Exception as error:  # noqa: BLE001  # its ticket is offered again
            logger.warning("could not wake a task, will try again: %r", error)

    def _count_attempt(self, ticket: str, queue: str) -> None:
        """Count that a task is published to a queue of which nobody here knows whether it exists.

        Raises:
            QueueMissing: it was published there before, and no worker took it.
        """
        attempts = self._attempts.pop(ticket, 0) + 1
        if attempts > _ATTEMPTS:
            raise QueueMissing(f"no worker consumes the queue {queue}")
        self._attempts[ticket] = attempts
        if len(self._attempts) > _MOST:  # that a task was claimed is not known here
            self._attempts.popitem(last=False)
