"""One run of a task: admitted, or parked, or refused; stopped when its lease is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import Sequence
from typing import Any

from docket import Execution
from docket.dependencies import AdmissionBlocked
from redis.exceptions import RedisError

from limiter_core.errors import ConfigurationError, LimitReached, StoreError, Superseded
from limiter_core.jobs import Held, Job, JobGate, Waiting
from limiter_core.lease import Lease
from limiter_core.limits import ConcurrencyLimit as Limit
from limiter_core.requests import Loss
from limiter_core.store import Store
from limiter_docket._gates import Gates, ticket_of
from limiter_docket._plan import view_of
from limiter_docket._queue import bring_forward, park

logger = logging.getLogger("limiter")

_COME_BACK = 2.0
"""Seconds after which a task asks again while the store cannot be reached."""


class Run:
    """One delivery of a task, from its first limit to the end of its dependencies.

    Attributes:
        owner: the limit that was entered first, and is left last.
    """

    def __init__(self, owner: object, execution: Execution, gates: Gates) -> None:
        self.owner = owner
        self._execution = execution
        self._gates = gates
        self._task = asyncio.current_task()
        self._limits: list[Limit] = []
        self._outcome: Lease | BaseException | None = None
        self._over = False
        self._stopped = False

    @property
    def lease(self) -> Lease:
        """The lease; raises, for a further limit of the task, what the first one did."""
        if isinstance(self._outcome, Lease):
            return self._outcome
        raise self._outcome or RuntimeError("the limit was left before it was entered")

    def key_of(self, limit: Limit) -> str:
        """Return the key that one of the limits has in this run."""
        return self.lease.keys[self._limits.index(limit)]

    async def admit(self, limits: Sequence[tuple[Limit, Store | None]]) -> None:
        """Get the slots of all limits, each of which may name a store.

        Raises:
            AdmissionBlocked: the task was parked, or is not to run.
            LimiterError: the task fails with it.
        """
        try:
            store, *others = {store for _, store in limits}
            if others:
                raise ConfigurationError(
                    "the limits of one task, and those of its worker, need one store"
                )
            self._limits = list(dict(limits))  # one limit in two places is one
            self._outcome = await self._admit(await self._gates.gate(store))
        except BaseException as error:
            self._outcome, self._over = error, True
            raise

    async def finish(self, error: BaseException | None) -> None:
        """Give the slots back.

        Raises:
            LeaseLost: the body was cancelled because the lease is lost.
        """
        if self._over:
            return
        self._over = True
        # Take back our own cancellation; unless somebody else's came, too.
        ours = self._stopped and self._task is not None and self._task.uncancel() == 0
        try:
            if ours and isinstance(error, asyncio.CancelledError):
                self.lease.check()
        finally:
            await self.lease.release()

    async def _admit(self, gate: JobGate) -> Lease:
        execution, when = self._execution, self._execution.when.isoformat()
        message: Any = execution.message_id
        milliseconds, sequence = bytes(message).decode().split("-")
        job = Job(
            ticket_of(execution.docket, execution.key, when),
            self._limits,
            view_of(execution),
            payload=f"{when} {execution.key}".encode(),
            order=int(milliseconds) * 1000 + min(int(sequence), 999),
            label=f"{execution.function_name}({execution.key})",
        )
        try:
            outcome = await gate.admit(job, self._lost)
        except (LimitReached, Superseded) as refusal:
            raise AdmissionBlocked(execution, str(refusal), reschedule=False) from refusal
        except StoreError as error:
            if execution.redelivered:  # its first run may go on
                raise self._left_alone(error) from error
            outcome, seconds = None, _about(_COME_BACK)
        else:
            if isinstance(outcome, Lease):
                return outcome
            seconds = _about(self._gates.settings.backstop)
            if isinstance(outcome, Waiting):
                seconds = min(seconds, outcome.patience or seconds)
            elif execution.redelivered:
                # The run that holds the slots acknowledges the message; if it dies, it comes again.
                raise AdmissionBlocked(execution, "its own run, which goes on", handled=True)
            else:  # it was granted before, and nobody heard the answer
                seconds = outcome.expires_in or seconds
        raise await self._gates.errands.finish(self._wait(gate, job.ticket, outcome, seconds))

    async def _wait(
        self, gate: JobGate, ticket: str, outcome: Waiting | Held | None, seconds: float
    ) -> AdmissionBlocked:
        """Park the task; returns what tells Docket so."""
        execution = self._execution
        waiting = isinstance(outcome, Waiting)
        keys = tuple(each.key for each in outcome.request.demands) if waiting else ()
        try:
            said = await park(execution, keys, time.time() + seconds)
            gone = said in ("cancelled", "gone")
            if said == "offered":
                gone = not await bring_forward(execution.docket, execution.key, execution.when)
            if gone and waiting:
                await gate.drop(ticket, keys)
        except RedisError as error:
            return self._left_alone(error)
        except StoreError as error:
            logger.warning("could not look after %s, it is offered again: %s", ticket, error)
            said = "parked"
        why = f"the limit on {outcome.key}" if waiting else "a concurrency limit"
        return AdmissionBlocked(execution, why, handled=said != "cancelled", reschedule=False)

    def _left_alone(self, error: RedisError | StoreError) -> AdmissionBlocked:
        """Leave the message where it is: it is delivered again."""
        logger.warning("could not park %s, it is delivered again: %s", self._execution.key, error)
        return AdmissionBlocked(self._execution, "Redis, which is away", handled=True)

    def _lost(self, loss: Loss) -> None:
        # What has ended is not turned into a failure.
        if self._over or getattr(self._execution, "_ended", False) or self._task is None:
            return
        if loss is Loss.PREEMPTED:
            self._gates.errands.begin(self._give_way(self._task))
        else:
            self._stopped = True
            self._task.cancel(f"the lease is lost: {loss.value}")

    async def _give_way(self, task: asyncio.Task[Any]) -> None:
        """Cancel this run for a newer one; which may have its key, and is to live."""
        if not await self._execution.is_superseded():
            await self._execution.docket.cancel(self._execution.key)
        elif not self._over:
            task.cancel("a newer call takes the slot")


def _about(seconds: float) -> float:
    """Return a duration that is not the same for all."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311


runs: weakref.WeakKeyDictionary[Execution, Run] = weakref.WeakKeyDictionary()
"""The runs of this process."""
