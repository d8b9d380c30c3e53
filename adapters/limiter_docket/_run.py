"""One run of a task: admitted, parked or refused; stopped when its lease is lost."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from docket import Execution, Worker
from docket.dependencies import AdmissionBlocked
from redis.exceptions import RedisError

from limiter_core import ArgumentView, ConcurrencyLimit, Lease, LimitReached, StoreError, Superseded
from limiter_core.jitter import jitter
from limiter_core.jobs import Job, JobGate, Waiting
from limiter_core.requests import Loss
from limiter_core.system_clock import system_clock as time
from limiter_docket._queue import order_of, park, ticket_of, when_of

logger = logging.getLogger("limiter")

_ASK_AGAIN_AFTER = 2.0
"""Seconds after which a task asks again whose answer was lost, or that got none."""


class TaskRun:
    """One delivery of a task, from its first limit to the end of its dependencies.

    Attributes:
        owner: the limit that is entered first, and left last.
    """

    def __init__(self, owner: object, execution: Execution, worker: Worker) -> None:
        self.owner = owner
        self._limits: list[ConcurrencyLimit] = []
        self._execution = execution
        self._worker = worker
        self._when = when_of(execution)
        self._ticket = ticket_of(execution.docket, execution.key, self._when)
        self._task: Any = asyncio.current_task()
        self._outcome: Lease | BaseException = RuntimeError("this run was not admitted yet")
        self._has_ended = False
        self._stopped = False

    @property
    def lease(self) -> Lease:
        """The lease; raises, for a further limit of the task, the error of the first."""
        if isinstance(self._outcome, Lease):
            return self._outcome
        raise self._outcome

    def key_of(self, limit: ConcurrencyLimit) -> str:
        """Return the key that one of the limits has in this run."""
        return self.lease.keys[self._limits.index(limit)]

    async def admit(
        self, gate: JobGate, limits: Iterable[ConcurrencyLimit], view: ArgumentView, backstop: float
    ) -> None:
        """Get the slots of all limits.

        Raises:
            AdmissionBlocked: the task was parked, or is not to run.
            LimiterError: the task fails with it.
        """
        for each in limits:
            if each not in self._limits:  # a limit that is listed twice counts once
                self._limits.append(each)
        try:
            self._outcome = await self._admit(gate, view, backstop)
            if self._stopped:
                await self.finish(asyncio.CancelledError())  # before the cancellation arrived
        except BaseException as error:
            self._outcome, self._has_ended = error, True
            raise

    async def finish(self, error: BaseException | None) -> None:
        """Give the slots back.

        Raises:
            LeaseLost: the body was cancelled because the lease is lost.
        """
        if self._has_ended:
            return
        self._has_ended = True
        # Take back our own cancellation, unless there was another one.
        ours = self._stopped and self._task.uncancel() == 0
        try:
            if ours and isinstance(error, asyncio.CancelledError):
                self.lease.check()
        finally:
            await self.lease.release()

    def cancel(self, ticket: str) -> None:
        """Stop the run, if it has this ticket and its worker does not list it any more.

        That happens when the next poll after a task was parked already brings the task back.
        """
        if ticket == self._ticket and not self._has_ended:
            known = self._worker._tasks_by_key  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
            if known.get(self._execution.key) is not self._task:
                self._on_lost(Loss.PREEMPTED)

    async def _admit(self, gate: JobGate, view: ArgumentView, backstop: float) -> Lease:
        execution, payload = self._execution, f"{self._when} {self._execution.key}".encode()
        label = f"{execution.function_name}({execution.key})"
        outcome, seconds, keys = None, _ASK_AGAIN_AFTER, tuple[str, ...]()
        try:
            job = Job(self._ticket, self._limits, view, payload, order_of(execution), label)
            outcome = await gate.admit(job, self._on_lost)
        except (LimitReached, Superseded) as refusal:
            raise AdmissionBlocked(execution, str(refusal), reschedule=False) from refusal
        except StoreError:
            pass  # the gate has logged it
        if isinstance(outcome, Lease):
            return outcome
        if isinstance(outcome, Waiting):
            keys, seconds = outcome.keys, backstop * jitter.uniform(0.9, 1.1)
            seconds = min(seconds, outcome.patience or seconds)
        elif execution.redelivered:
            # Its first run may go on and acknowledge the message; else it is delivered again.
            raise AdmissionBlocked(execution, "its first run, which may go on", handled=True)
        raise await gate.finish(self._park(gate, keys, seconds))

    async def _park(self, gate: JobGate, keys: tuple[str, ...], seconds: float) -> AdmissionBlocked:
        """Park the task; returns the exception that reports it to Docket."""
        execution, reply = self._execution, ""
        try:
            reply = await park(execution, keys, time.time() + seconds)
        except RedisError as error:
            logger.warning("could not park %s, it is delivered again: %s", self._ticket, error)
        if keys and reply in ("cancelled", "gone"):
            with suppress(StoreError):  # else it is dropped when it is granted
                await gate.drop(self._ticket, keys)
        why = f"the limit on {' and '.join(keys)}" if keys else "a store that did not answer"
        return AdmissionBlocked(execution, why, handled=reply != "cancelled", reschedule=False)

    def _on_lost(self, loss: Loss) -> None:
        # A run that has ended does not become a failure.
        if self._has_ended or getattr(self._execution, "_ended", False):
            return
        cancelled: set[Any] = self._worker._cancelled_by_docket  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
        if self._task in cancelled:
            return
        if loss is Loss.PREEMPTED:  # as by `docket.cancel`, also if a newer run has the key
            cancelled.add(self._task)
        else:
            self._stopped = True
            if not isinstance(self._outcome, Lease):
                return  # `admit` checks it
        self._task.cancel(f"the lease is lost: {loss.value}")


runs: weakref.WeakKeyDictionary[Execution, TaskRun] = weakref.WeakKeyDictionary()
"""The runs in this process."""
