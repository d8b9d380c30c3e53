"""One run of a task: admitted, parked or refused; stopped when its lease is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from docket import Execution, ExecutionState, Worker
from docket.dependencies import AdmissionBlocked
from redis.exceptions import RedisError

from limiter_core import ArgumentView, ConcurrencyLimit, Lease, LimitReached, StoreError, Superseded
from limiter_core.jitter import jitter
from limiter_core.jobs import Job, JobGate, Waiting, loss_text
from limiter_core.requests import Loss
from limiter_core.system_clock import system_clock as time
from limiter_docket._claims import waited_on
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
        self._task = cast(Any, asyncio.current_task())
        self._outcome: Lease | BaseException = RuntimeError("this run was not admitted yet")
        self._has_ended = False
        self._stopped = False
        runs[execution] = self
        self._task.add_done_callback(partial(_forget, execution))

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

    def release_at_completion(self) -> None:
        """Give the slots back while Docket records that the task has completed, not after that.

        The next task then begins a round trip earlier. For a task of which nothing runs any more
        when its body has ended.
        """
        record = self._execution.mark_as_completed

        async def mark_as_completed(result_key: str | None = None) -> None:
            if self._stopped:  # the release distinguishes why it is cancelled
                await record(result_key)
                return
            release = asyncio.ensure_future(self.finish(None))
            try:
                await asyncio.sleep(0)  # the release is sent first
                await record(result_key)
            finally:
                await release

        # Docket has no hook there; `store_reason` does the same for a task that is cancelled.
        self._execution.mark_as_completed = mark_as_completed  # type: ignore[method-assign]

    def cancel(self, ticket: str) -> None:
        """Stop the run, if it has this ticket and its worker does not list it any more.

        That happens when the next poll after a task was parked already brings the task back.
        """
        if ticket == self._ticket and not self._has_ended:
            known = self._worker._tasks_by_key  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
            if known.get(self._execution.key) is not self._task:
                self._cancel_as_docket_does("it was cancelled")

    async def _admit(self, gate: JobGate, view: ArgumentView, backstop: float) -> Lease:
        execution, payload = self._execution, f"{self._when} {self._execution.key}".encode()
        label = f"{execution.function_name}({execution.key})"
        outcome, seconds, keys = None, _ASK_AGAIN_AFTER, tuple[str, ...]()
        try:
            order, waited = order_of(execution), waited_on(execution)
            job = Job(self._ticket, self._limits, view, payload, order, label, keys=waited)
            outcome = await gate.admit(job, self._on_lost)
        except (LimitReached, Superseded) as refusal:
            store_reason(execution, str(refusal))
            raise AdmissionBlocked(execution, str(refusal), reschedule=False) from refusal
        except asyncio.CancelledError:
            if self._task in self._cancelled_by_docket:
                await gate.finish(self._leave(gate))
            raise
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

    async def _leave(self, gate: JobGate) -> None:
        """Leave the queue, for a task that was cancelled while it asked: the answer is unknown."""
        with suppress(StoreError):  # else its ticket is dropped when it is granted
            if not await gate.drop(self._ticket, function=self._execution.function_name):
                gate.report_removed(self._ticket, function=self._execution.function_name)

    async def _park(self, gate: JobGate, keys: tuple[str, ...], seconds: float) -> AdmissionBlocked:
        """Park the task; returns the exception that reports it to Docket."""
        execution, reply = self._execution, ""
        counts = self._worker._execution_counts  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  (no hook)
        if execution.key in counts:  # of `Worker.run_at_most`: to wait is no iteration
            counts[execution.key] -= 1
        try:
            reply = await park(execution, keys or waited_on(execution), time.time() + seconds)
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
        if self._task in self._cancelled_by_docket:
            return
        if loss is Loss.PREEMPTED:  # as by `docket.cancel`, also if a newer run has the key
            lease = self._outcome
            store_reason(
                self._execution, loss_text(lease) if isinstance(lease, Lease) else loss.value
            )
            self._cancel_as_docket_does(f"the lease is lost: {loss.value}")
            return
        self._stopped = True
        if isinstance(self._outcome, Lease):  # else `admit` checks it
            self._task.cancel(f"the lease is lost: {loss.value}")

    def _cancel_as_docket_does(self, why: str) -> None:
        if self._task not in self._cancelled_by_docket:
            self._cancelled_by_docket.add(self._task)
            self._task.cancel(why)

    @property
    def _cancelled_by_docket(self) -> set[Any]:
        """The tasks of the worker that end as cancelled, also while it shuts down."""
        return self._worker._cancelled_by_docket  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001


def store_reason(execution: Execution, reason: str) -> None:
    """Have Docket store why, when it marks a run as cancelled: `Execution.error`, and its event."""
    ends: Any = execution._mark_as_terminal  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
    mark = partial(ends, ExecutionState.CANCELLED, error=reason)
    execution.mark_as_cancelled = mark  # type: ignore[method-assign]


def _forget(execution: Execution, _: object) -> None:
    runs.pop(execution, None)


runs: dict[Execution, TaskRun] = {}
"""The runs in this process, until the tasks of their workers have ended."""
