"""Letting tasks in: into the pool, into the store to wait, or not at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from limiter_celery import _celery
from limiter_celery._delivery import Passage, job_of
from limiter_core import LimitReached, StoreError, Superseded
from limiter_core.jobs import Held, Waiting
from limiter_core.lease import SyncLease
from limiter_core.system_clock import system_clock as time

if TYPE_CHECKING:
    from limiter_celery._worker_limiter import Porter

logger = logging.getLogger("limiter")

PAUSE = 1.0
"""Seconds before a task is tried again that could not be admitted, since the store was away."""

_HELD_PAUSE = 5.0
"""Seconds, at most, before a delivery is tried again whose task still runs elsewhere."""


class Admission:
    """Decides for each delivery of a limited task."""

    def __init__(self, porter: Porter) -> None:
        self._porter = porter
        self._away_until = 0.0

    def enter(self, request: Any) -> None:
        """Let a task in, if it may run now; never raises anything else than that it may not.

        Raises:
            TaskRevokedError: it may not; all that has to be done for it has been done.
        """
        try:
            admitted = self._may_enter(request)
        except Exception:
            logger.exception("could not admit %s", request.id)
            self._porter.aside.put(request, PAUSE)
            admitted = False
        if not admitted:
            raise _celery.TaskRevokedError(request.id)

    def _may_enter(self, request: Any) -> bool:
        passage: Passage = request.passage
        if passage.overtaken or request.revoked():
            return False
        if passage.is_reserved():
            return True
        if passage.local:
            # It came too late: the slot may be another's by now, and its ticket tells of it.
            passage.overtaken = True
            _celery.state.task_ready(request)
            return False
        if passage.refused is not None:
            request._announce_revoked(passage.refused, False, None, False)  # noqa: SLF001
            return False
        admits = self._porter.settings.on_store_error == "admit"
        if time.monotonic() < self._away_until and not admits:
            self._porter.aside.put(request, PAUSE)
            return False
        try:
            return self._ask(request)
        except StoreError:
            # Its ticket may wait all the same, or have the slot: then it is woken besides.
            passage.unsure = True
            self._away_until = time.monotonic() + PAUSE
            self._porter.aside.put(request, PAUSE)
        except (LimitReached, Superseded) as error:
            logger.info("%s[%s] is not run: %s", request.name, request.id, error)
            request._announce_revoked(str(error), False, None, False)  # noqa: SLF001
        return False

    def _ask(self, request: Any) -> bool:
        """Ask for the slots of a task; whether it got them.

        Raises:
            StoreError: the store could not be used.
            LimitReached, Superseded: it is not to run.
        """
        porter = self._porter
        passage: Passage = request.passage
        try:
            job = job_of(request)
            if job is None:
                return True  # without a slot: its arguments do not fit, as its body will say
            outcome = porter.gate.admit(job, porter.endings.stopper(request))
        except (LimitReached, Superseded, StoreError):
            raise
        except Exception as error:  # noqa: BLE001  # of a strategy, or a function of the call
            _fail(request, error)
            return False
        if isinstance(outcome, Held):
            self._meet_holder(request, outcome)
            return False
        try:
            if passage.woken and not porter.revocations.learned:
                porter.revocations.learn()  # the store was away when this worker began
                if request.revoked():
                    self.leave(outcome)
                    return False
            if isinstance(outcome, SyncLease) and not outcome.fencing_token:
                passage.unsure = True  # admitted without the store, which may have heard of it
            elif passage.suspicious:
                # Asked with the slot, or the place in line, in hand: nobody ends it meanwhile.
                if self._is_over(passage):
                    self.leave(outcome)
                    _give_up(request)
                    return False
            elif isinstance(outcome, Waiting) or request.task.acks_late:
                porter.marks.clear(passage.ticket)
        except StoreError:
            if isinstance(outcome, SyncLease):
                outcome.release()
            raise
        if isinstance(outcome, Waiting):
            porter.waiting_room.enter(request, job, outcome)
            _give_up(request)
            return False
        porter.endings.hold(request, outcome)
        return True

    def _is_over(self, passage: Passage) -> bool:
        """Whether a delivery is a copy of one that came to its end."""
        ago = self._porter.marks.set_ago(passage.ticket)
        if ago is None:
            return False
        # Else an end from before it came is that of a task of the same id, sent earlier.
        copied = passage.woken or passage.redelivered
        return copied or ago < time.monotonic() - passage.made_at

    def _meet_holder(self, request: Any, held: Held) -> None:
        """Deal with a delivery of a task that another delivery runs."""
        passage: Passage = request.passage
        if passage.woken and not passage.redelivered and not passage.unsure:
            _give_up(request)  # the delivery that runs has a message of its own
        else:
            left = _HELD_PAUSE if held.expires_in is None else held.expires_in + 0.1
            self._porter.aside.put(request, min(left, _HELD_PAUSE))

    def leave(self, outcome: SyncLease | Waiting) -> None:
        """Give back what a task got that is not to run."""
        if isinstance(outcome, SyncLease):
            outcome.release()
        else:
            keys = tuple(demand.key for demand in outcome.request.demands)
            self._porter.gate.drop(outcome.request.id, keys)


def _fail(request: Any, error: Exception) -> None:
    """Have the task fail, as if its body had raised."""
    try:
        raise error
    except Exception:  # noqa: BLE001  # it is raised for its traceback
        info = _celery.ExceptionInfo()
    request.on_failure(info)
    request.acknowledge()


def _give_up(request: Any) -> None:
    """Let go of a message that is not this worker's any more."""
    request.acknowledge()
    _celery.state.task_ready(request)
