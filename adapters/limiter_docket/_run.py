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

from limiter_core.errors import (
    ConfigurationError,
    LimitReached,
    StoreError,
    Superseded,
)
from limiter_core.jobs import Held, Job, JobGate, Waiting
from limiter_core.lease import Lease
from limiter_core.limits import ConcurrencyLimit as Limit
from limiter_core.requests import Loss
from limiter_core.store import Store
from limiter_docket._gates import gates_of, ticket_of
from limiter_docket._parking import bring_forward, is_there, park
from limiter_docket._plan import view_of

logger = logging.getLogger("limiter")

_COME_BACK = 2.0
"""Seconds after which a task asks again while the store cannot be reached."""


class Run:
    """One delivery of a task, from its first limit to the end of its dependencies.

    Attributes:
        owner: the limit that was entered first, and is left last.
    """

    def __init__(self, owner: object, execution: Execution) -> None:
        self.owner = owner
        self._execution = execution
        self._limits: Sequence[Limit] = ()
        self._gates = gates_of(execution.docket)
        self._task = asyncio.current_task()
        self._lease: Lease | None = None
        self._error: BaseException | None = None
        self._over = False
        self._stopped = False

    async def admit(self, limits: Sequence[Limit], stores: Sequence[Store | None]) -> None:
        """Get the slots of all limits.

        Raises:
            AdmissionBlocked: the task was parked, or is not to run.
            LimiterError: the task fails with it.
        """
        self._gates.enter()
        try:
            if len(set(stores)) > 1:
                raise ConfigurationError(
                    "the limits of one task, and those of its worker, need one store"
                )
            self._limits = list(dict.fromkeys(limits))  # one limit in two places is one
            self._lease = await self._admit(await self._gates.gate(stores[0]))
        except BaseException as error:
            self._error = error
            self._over = True
            await self._gates.leave()
            raise

    def granted(self) -> Lease:
        """Return the lease; raise, for a further limit of the task, what the first one did."""
        if self._lease is None:
            assert self._error is not None
            raise self._error
        return self._lease

    def key_of(self, limit: Limit) -> str:
        """Return the key that one of the limits has in this run."""
        return self.granted().keys[self._limits.index(limit)]

    async def finish(self, error: BaseException | None) -> None:
        """Give the slots back.

        Raises:
            LeaseLost: the body was cancelled because the lease is lost.
        """
        if self._over:
            return
        self._over = True
        lease = self.granted()
        # Take back our own cancellation; unless somebody else's came, too.
        ours = self._stopped and self._task is not None and self._task.uncancel() == 0
        try:
            if ours and isinstance(error, asyncio.CancelledError):
                lease.check()
        finally:
            await lease.release()
            await self._gates.leave()

    async def _admit(self, gate: JobGate) -> Lease:
        execution = self._execution
        try:
            name = await self._name()
        except RedisError as error:
            raise self._left_alone(error) from error
        milliseconds, _, sequence = name.partition("-")
        job = Job(
            ticket=ticket_of(execution.docket, execution.key, name),
            limits=self._limits,
            arguments=view_of(execution),
            payload=f"{name} {execution.key}".encode(),
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
            work = self._wait(gate, name, None, _about(_COME_BACK))
            raise await self._gates.errands.finish(work) from error
        if execution.redelivered and not isinstance(outcome, Waiting):
            try:
                await self._refuse_what_ended()
            except BaseException:
                if isinstance(outcome, Lease):
                    await outcome.release()
                raise
        if isinstance(outcome, Lease):
            return outcome
        if isinstance(outcome, Held):
            if not execution.redelivered:  # it was granted before, and nobody heard the answer
                ends_in = outcome.expires_in or self._gates.settings.backstop
                work = self._wait(gate, name, None, time.time() + ends_in)
                raise await self._gates.errands.finish(work)
            # The run that holds the slots acknowledges the message; if it dies, it comes again.
            raise AdmissionBlocked(execution, "its own run, which goes on", handled=True)
        at = _about(self._gates.settings.backstop)
        if outcome.patience is not None:
            at = min(at, time.time() + outcome.patience)
        raise await self._gates.errands.finish(self._wait(gate, name, outcome, at))

    async def _refuse_what_ended(self) -> None:
        """Refuse a redelivery whose first run ended while it was on its way."""
        execution = self._execution
        try:
            if await is_there(execution):
                return
            # Docket's claim has put it down as running again.
            if execution.error is not None:
                await execution.mark_as_failed(execution.error, execution.result_key)
            elif execution.completed_at is not None:
                await execution.mark_as_completed(execution.result_key)
        except RedisError as error:
            logger.warning("could not look after %s: %s", execution.key, error)
        raise AdmissionBlocked(execution, "its own run, which has ended", handled=True)

    async def _name(self) -> str:
        """Return the message that names the ticket of this attempt: this one, or the first."""
        execution = self._execution
        if execution.generation > 1:
            name = await self._gates.name_of(execution.key, execution.generation)
            if name is not None:
                return name
        message: Any = execution.message_id
        return message.decode() if isinstance(message, bytes) else str(message)

    async def _wait(
        self, gate: JobGate, name: str, waiting: Waiting | None, at: float
    ) -> AdmissionBlocked:
        """Park the task, then look again; returns what tells Docket so."""
        execution = self._execution
        docket, key = execution.docket, execution.key
        keys = () if waiting is None else tuple(each.key for each in waiting.request.demands)
        try:
            said = await park(execution, name, keys, at)
            if waiting is not None:
                gone = said in ("cancelled", "gone")
                if said == "parked" and await gate.handed_over(waiting):
                    generation = await bring_forward(docket, key, name)
                    gone = generation is None
                    if generation:
                        self._gates.remember(key, name, generation)
                if gone:
                    await gate.drop(waiting.request.id, keys)
        except RedisError as error:
            return self._left_alone(error)
        except StoreError as error:
            logger.warning("could not look after %s, it is offered again: %s", key, error)
            said = "parked"
        why = "a concurrency limit" if waiting is None else f"the limit on {waiting.key}"
        return AdmissionBlocked(execution, why, handled=said != "cancelled", reschedule=False)

    def _left_alone(self, error: RedisError | StoreError) -> AdmissionBlocked:
        """Leave the message where it is: it is delivered again."""
        logger.warning("could not park %s, it is delivered again: %s", self._execution.key, error)
        return AdmissionBlocked(self._execution, "Redis, which is away", handled=True)

    def _lost(self, loss: Loss) -> None:  # from any thread
        self._gates.loop.call_soon_threadsafe(self._stop, loss)

    def _stop(self, loss: Loss) -> None:
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
    """Return a time so far ahead, and not the same for all."""
    return time.time() + seconds * random.uniform(0.9, 1.1)  # noqa: S311


runs: weakref.WeakKeyDictionary[Execution, Run] = weakref.WeakKeyDictionary()
"""The runs of this process."""
