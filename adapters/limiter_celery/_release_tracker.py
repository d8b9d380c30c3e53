"""While a body runs, and its end: the lease, which is given back once, on every way out."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from limiter_celery._delivery import Passage, job_of
from limiter_celery._pools import can_terminate
from limiter_core import StoreError
from limiter_core.jobs import Held
from limiter_core.lease import SyncLease
from limiter_core.requests import Loss
from limiter_core.system_clock import system_clock as time

if TYPE_CHECKING:
    from limiter_celery._worker_limiter import Porter

logger = logging.getLogger("limiter")

_PAUSE = 0.5
"""Seconds between two attempts to tell the store what it has to know."""


class Endings:
    """The leases of this worker's tasks."""

    def __init__(self, porter: Porter) -> None:
        self._porter = porter
        self._held: dict[int, tuple[Passage, Any]] = {}

    def hold(self, request: Any, lease: SyncLease) -> None:
        """Keep the lease of a task."""
        passage: Passage = request.passage
        passage.lease = lease
        request.request_dict["limiter_fencing_token"] = lease.fencing_token
        finalizer = weakref.finalize(request, self._vanished, passage)
        finalizer.atexit = False
        self._held[id(passage)] = passage, finalizer
        if passage.over:  # it ended while it was asked for
            self._let_go(passage)
            lease.release()

    def began(self, request: Any) -> None:
        """Note that a body began; a task that was woken in this process takes up its slot now.

        So the ticket keeps its message for as long as a broker would: until the pool has it.
        """
        passage: Passage = request.passage
        passage.began_at = time.monotonic()
        if passage.local and passage.lease is None:
            self._take_up(request)
        if passage.local or (passage.suspicious and not request.task.acks_late):
            # It runs once at most from here on, as Celery has it.
            self._mark(passage)

    def _take_up(self, request: Any) -> None:
        porter = self._porter
        job = job_of(request)
        if job is None:
            return
        try:
            outcome = porter.gate.admit(job, self.stopper(request))
        except StoreError:
            porter.errands.add(lambda: self._take_up(request), _PAUSE)
            return
        except Exception:
            logger.exception("%s runs without its slot", request.id)
            return
        if isinstance(outcome, SyncLease):
            self.hold(request, outcome)
            return
        logger.warning("%s came too late for its slot, and runs without one", request.id)
        if not isinstance(outcome, Held):
            porter.admission.leave(outcome)

    def ended(self, request: Any, *, done: bool = True, soon: bool = False) -> None:
        """Give the slot of a task back, once, and have who is next woken.

        Args:
            request: the task.
            done: whether it is over, as far as this delivery knows.
            soon: not now, but when the event loop comes around.
        """
        if request.passage.finish():
            if soon:
                self._porter.post(lambda: self._end(request, done))
            else:
                self._end(request, done)

    def _end(self, request: Any, done: bool) -> None:
        passage: Passage = request.passage
        self._let_go(passage)
        if done and request.acknowledged and not passage.requeued:
            if not passage.marked and self._may_have_copies(request):
                self._mark(passage)
        if passage.lease is not None:
            with self._porter.waking.own_step():
                passage.lease.release()
        elif passage.local or passage.woken:
            # Its turn had come, but it is not to run: it was revoked, or has expired.
            self._porter.errands.add(lambda: self._discard(request))

    def _may_have_copies(self, request: Any) -> bool:
        passage: Passage = request.passage
        if passage.local or passage.suspicious:
            return True
        if not request.task.acks_late or passage.began_at is None:
            return False
        # The broker delivers again what is not acknowledged when the connection ends, or in time.
        ran = time.monotonic() - passage.began_at
        return self._porter.connection != passage.connection or ran > self._porter.visibility / 2

    def _mark(self, passage: Passage) -> None:
        try:
            self._porter.marks.set(passage.ticket)
            passage.marked = True
        except StoreError:
            logger.debug("the end of %s is not noted", passage.ticket)

    def _discard(self, request: Any) -> None:
        """Remove the ticket of a task that is not to run, and hand its slot on."""
        job = job_of(request)
        if job is None:
            return
        try:
            outcome = self._porter.gate.admit(job)
            if not isinstance(outcome, Held):
                self._porter.admission.leave(outcome)
        except StoreError:
            self._porter.errands.add(lambda: self._discard(request), _PAUSE)
        except Exception as error:  # noqa: BLE001  # refused: it is gone
            logger.debug("%s is gone: %s", request.id, error)

    def stopper(self, request: Any) -> _Stopper:
        """Return what stops the body of a task whose lease is lost."""
        return _Stopper(self, request)

    def stop_body(self, request: Any, loss: Loss) -> None:
        """End a body that has lost its slot, where the pool can."""
        if self._porter.post.is_elsewhere():
            self._porter.post(lambda: self.stop_body(request, loss))
            return
        logger.warning("%s[%s] lost its slot: %s", request.name, request.id, loss.value)
        self._porter.post(lambda: self._stop(request, loss))

    def _stop(self, request: Any, loss: Loss) -> None:
        passage: Passage = request.passage
        lease, pool = passage.lease, self._porter.worker.pool
        if passage.over:
            return
        if passage.submitted or lease is None:
            if can_terminate(pool):
                request.terminate(pool)
        elif loss is Loss.PREEMPTED:
            request._announce_revoked(loss.value, False, None, False)  # noqa: SLF001
        else:
            # It waits for a process, and asks once more when there is one.
            passage.lease = None
            self._let_go(passage)
            lease.release()

    def reconnected(self) -> None:
        """Give back the slots of tasks that did not begin, and whose messages are gone.

        Their broker delivers them again, on the new connection or to another worker.
        """
        for passage, _ in list(self._held.values()):
            if passage.connection != self._porter.connection and passage.hand_on():
                self._let_go(passage)
                if passage.finish() and passage.lease is not None:
                    self._porter.errands.add(passage.lease.release)

    def holds_any(self) -> bool:
        """Whether any task of this worker has a slot."""
        return bool(self._held)

    def release_all(self) -> None:
        """Give all slots back: the process ends, and no body runs any more.

        After a cold shutdown, in which the children are killed and nobody comes to say so.
        """
        for passage, _ in list(self._held.values()):
            if passage.finish() and passage.lease is not None:
                passage.lease.release()

    def _vanished(self, passage: Passage) -> None:
        """A request is gone without an end: the connection broke before its body began."""
        if self._held.pop(id(passage), None) is not None and passage.finish():
            if passage.lease is not None:
                self._porter.errands.add(passage.lease.release)

    def _let_go(self, passage: Passage) -> None:
        held = self._held.pop(id(passage), None)
        if held is not None:
            held[1].detach()


class _Stopper:
    """Called when a lease is lost. Keeps no request alive."""

    def __init__(self, endings: Endings, request: Any) -> None:
        self._endings = endings
        self._request = weakref.ref(request)

    def __call__(self, loss: Loss) -> None:
        request = self._request()
        if request is not None and not request.passage.over:
            self._endings.stop_body(request, loss)
