"""Waking tasks whose turn has come, here if this worker can run them at once, else by the broker.

Only a task that is acknowledged when it begins is woken here: what no broker has is not delivered
again if this process is killed while it runs.
"""

from __future__ import annotations

import collections
import logging
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from limiter_celery import _celery
from limiter_celery._delivery import Passage
from limiter_celery._parked_message import Parcel, unpack
from limiter_celery._queues import QueueMissing
from limiter_core import StoreError
from limiter_core.jobs import error_of
from limiter_core.requests import Granted, Notice
from limiter_core.system_clock import system_clock as time

if TYPE_CHECKING:
    from limiter_celery._worker_limiter import Porter

logger = logging.getLogger("limiter")

_SPARE = 0.8
"""The part of the claim time in which a task woken here may begin without asking again."""

_LAST_POLL = 1.5
"""Seconds for which a worker that is about to end may still take a message off a Redis broker, with
the question for messages that was under way when it stopped to listen to the answer."""

_OFFERS = 3
"""How often a task is sent to a queue that ends with its consumers, and of which this worker does
not know whether it is there; nobody who came for its slot is nobody who is there."""

_LONGEST_PAUSE = 30.0
"""Seconds, at most, between two attempts to tell of the end of a task."""


class Waking:
    """Brings tasks back that waited."""

    def __init__(self, porter: Porter) -> None:
        self._porter = porter
        self._lock = threading.Lock()
        self._coming = 0
        self._own = threading.local()
        self._closed_at = 0.0
        self._offered: collections.Counter[str] = collections.Counter()
        self._here: weakref.WeakKeyDictionary[Any, Parcel] = weakref.WeakKeyDictionary()

    def close(self) -> None:
        """Hand on what was woken here and did not begin: this worker is about to end."""
        self._closed_at = time.monotonic()
        self.hand_on()

    def hand_on(self) -> None:
        """Have what was woken here, and did not begin, begin elsewhere."""
        for request, parcel in list(self._here.items()):
            passage: Passage = request.passage
            if not passage.over and not passage.overtaken and passage.hand_on():
                self._send_later(passage.ticket, parcel)

    def _send_later(self, ticket: str, parcel: Parcel) -> None:
        left = self._closed_at + _LAST_POLL - time.monotonic() if self._closed_at else 0.0
        self._porter.errands.add(lambda: self._send(ticket, parcel), max(left, 0.0))

    @contextmanager
    def own_step(self) -> Generator[None]:
        """Mark a step of this process: of what it wakes, nobody else is told.

        Of a step of a process that cannot wake tasks, all workers may be told.
        """
        self._own.step = True
        try:
            yield
        finally:
            self._own.step = False

    def wake(self, notice: Notice) -> None:
        """Deliver a task whose waiting is over; from any thread."""
        porter = self._porter
        if porter.post.is_elsewhere():
            porter.post(lambda: self.wake(notice))
            return
        error = error_of(notice)
        parcel = unpack(notice.payload)
        porter.waiting_room.forget(notice.id)
        if error is not None:
            logger.info("%s is not run: %s", notice.id, error)
            porter.errands.add(lambda: self.refuse(notice.id, parcel, str(error)))
        elif (
            isinstance(notice.answer, Granted)
            and getattr(self._own, "step", False)
            and self._serves(parcel)
        ):
            token = notice.answer.fencing_token
            until = time.monotonic() + porter.settings.claim * _SPARE
            with self._lock:
                self._coming += 1
            porter.post(lambda: self._deliver(notice.id, parcel, token, until))
        else:
            self._send_later(notice.id, parcel)

    def _serves(self, parcel: Parcel) -> bool:
        """Whether a task can begin here and now."""
        porter = self._porter
        consumer = porter.consumer
        if consumer is None or porter.closing:
            return False
        if parcel.task not in porter.classes or not porter.revocations.learned:
            return False
        if consumer.blueprint.state != _celery.RUN or porter.app.tasks[parcel.task].acks_late:
            return False
        if parcel.queue not in porter.app.amqp.queues.consume_from:
            return False
        busy = len(_celery.state.reserved_requests) + self._coming
        return bool(busy < consumer.pool.num_processes)

    def _deliver(self, ticket: str, parcel: Parcel, token: int, until: float) -> None:
        """Deliver a task in this process, in the thread of its event loop."""
        with self._lock:
            self._coming -= 1
        if not self._serves(parcel):
            self._send_later(ticket, parcel)
            return
        request = self._request(parcel)
        passage: Passage = request.passage
        passage.local = True
        passage.order = parcel.order
        passage.reserved_until = until
        request.request_dict["limiter_fencing_token"] = token
        weakref.finalize(request, self._vanished, passage, parcel).atexit = False
        self._here[request] = parcel
        if request.revoked():
            return
        _celery.state.task_reserved(request)
        self._porter.consumer.on_task_request(request)

    def _request(self, parcel: Parcel) -> Any:
        porter = self._porter
        consumer = porter.consumer
        message = parcel.message(porter.app)
        return porter.classes[parcel.task or ""](
            message,
            app=porter.app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=porter.app.tasks[parcel.task],
            connection_errors=consumer.connection_errors,
            headers=message.headers,
            body=message.body,
            utc=porter.app.uses_utc_timezone(),
        )

    def _vanished(self, passage: Passage, parcel: Parcel) -> None:
        """A request is gone that never began: the connection to the broker broke."""
        if passage.began_at is None and not passage.over and not passage.overtaken:
            self._send_later(passage.ticket, parcel)

    def _send(self, ticket: str, parcel: Parcel) -> None:
        """Deliver a task through the broker, to whichever worker is free."""
        try:
            if parcel.temporary and parcel.queue not in self._porter.app.amqp.queues:
                self._offered[ticket] += 1
                if self._offered[ticket] > _OFFERS:
                    raise QueueMissing(f"nobody takes tasks from the queue {parcel.queue}")
            parcel.send(self._porter.app)
        except QueueMissing as error:
            if not parcel.temporary:
                logger.warning("could not wake a task, will try again: %s", error)
                return
            # A queue of one worker, as for broadcasts: what is left in it ends with it.
            logger.warning("%s is dropped: %s", ticket, error)
            del self._offered[ticket]
            with suppress(StoreError):  # it is offered again
                self._porter.gate.drop(ticket)
        except Exception as error:  # noqa: BLE001  # its ticket is offered again
            logger.warning("could not wake a task, will try again: %r", error)

    def refuse(self, ticket: str, parcel: Parcel, reason: str, pause: float = 0.5) -> None:
        """Tell of the end of a task that waited in vain: it is REVOKED.

        Nobody else knows of it any more: so it is tried until it is told.
        """
        try:
            self._refuse(ticket, parcel, reason)
        except Exception as error:  # noqa: BLE001  # of the broker's driver, or the backend's
            logger.warning("could not tell of the end of %s, will try again: %r", ticket, error)
            longer = min(pause * 2, _LONGEST_PAUSE)
            self._porter.errands.add(lambda: self.refuse(ticket, parcel, reason, longer), pause)

    def _refuse(self, ticket: str, parcel: Parcel, reason: str) -> None:
        porter = self._porter
        if parcel.task not in porter.classes:
            parcel.refused(reason).send(porter.app)
            return
        try:
            porter.marks.set(ticket)
        except StoreError:
            logger.debug("the end of %s is not noted", ticket)
        request = self._request(parcel)
        request.passage.over = True  # it has no ticket any more
        request._announce_revoked(reason, False, None, reason == "expired")  # noqa: SLF001
