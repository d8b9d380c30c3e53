"""SAQ's queue on Redis with a gate in front of its workers: the whole adapter.

The gate stands in `dequeue`, before SAQ counts an attempt. A job that has to wait is parked as
SAQ's own `scheduled`, far ahead; SAQ brings it back by itself then, should nobody have woken it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from saq.job import Job as SaqJob
from saq.job import Status
from saq.queue.redis import RedisQueue

from limiter_core import ArgumentView, Lease, LimitReached, StoreError, Superseded
from limiter_core.arguments import Binder
from limiter_core.jobs import Errands, Held, Job, JobGate
from limiter_core.requests import Notice
from limiter_core.store import Store

BACKSTOP = 300.0
"""Seconds after which a parked job asks again even if nobody woke it."""

_LUA = resources.files("limiter_saq") / "lua"
_PARK, _WAKE = ((_LUA / f"{name}.lua").read_text("utf-8") for name in ("park", "wake"))


class LimitedQueue(RedisQueue):
    """A `saq.queue.redis.RedisQueue` whose jobs keep limits.

    Args:
        redis: as for `RedisQueue`; a connection's `socket_timeout` has to be None there.
        limits: for a job's function, by its name or itself, a limit or a list of them. Give the
            function where a strategy looks at an argument that has a default.
        limiter: the store of the limits, or its URL; None for the queue's own Redis.
        settings: those of `RedisQueue`.
    """

    def __init__(
        self,
        redis: Any,
        *,
        limits: Mapping[str | Callable[..., Any], Any],
        limiter: str | Store | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(redis, **settings)
        self._limits = {getattr(f, "__qualname__", f): limit for f, limit in limits.items()}
        self._binders = {f.__qualname__: Binder(f) for f in limits if not isinstance(f, str)}
        self._limiter = limiter
        self._leases: dict[str, tuple[SaqJob, Lease]] = {}
        self._open: tuple[JobGate, Errands] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    # -- the gate ----------------------------------------------------------------------------------

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> SaqJob | None:
        """Return the next job that may run. Parks those that have to wait, and looks on."""
        _, errands = self._opened()  # now: the jobs of a dead worker may be waiting for a sweep
        while True:
            job = await super().dequeue(timeout, poll_interval)
            limits = None if job is None else self._limits.get(job.function)
            if job is None or limits is None:
                return job
            try:
                if await errands.finish(self._admit(job, limits)):
                    return job
            except asyncio.CancelledError:  # the worker stops, whatever the answer was
                if job.key in self._leases:
                    await self._park(job, 1.0)
                    await self._let_go(job)
                raise

    async def _admit(self, job: SaqJob, limits: Any) -> bool:
        try:
            return await self._ask(job, limits)
        except StoreError:  # the gate has logged it
            await self._park(job, 1.0)
        except (LimitReached, Superseded) as refusal:
            await self.finish(job, Status.ABORTED, error=str(refusal))
        except Exception as error:  # a strategy, or a function of the limit  # noqa: BLE001
            await self.finish(job, Status.FAILED, error=repr(error))
        return False

    async def _ask(self, job: SaqJob, limits: Any) -> bool:
        gate, errands = self._opened()
        ticket = _ticket_of(job)
        enqueued = max(job.queued * 1000, job.scheduled * 1_000_000)
        ask = Job(ticket, limits, self._view(job), job.id.encode(), enqueued, job.function)
        outcome = await gate.admit(
            ask, lambda loss: errands.begin_soon(lambda: self.abort(job, loss.value))
        )
        if isinstance(outcome, Lease):
            self._leases[job.key] = job, outcome
        elif isinstance(outcome, Held):
            await self._park(job, outcome.expires_in or BACKSTOP)
        elif not await self._park(job, min(outcome.patience or BACKSTOP, BACKSTOP)):
            await gate.drop(ticket)  # it was aborted meanwhile
        elif await gate.handed_over(outcome):
            await self._wake(job.id, ticket)
        return job.key in self._leases

    async def _park(self, job: SaqJob, seconds: float) -> bool:
        arguments = (job.id, time.time() + max(1.0, seconds), self.serialize(job))
        return bool(await self.redis.eval(_PARK, 2, self._incomplete, self._active, *arguments))

    async def _wake(self, job_id: str, ticket: str) -> None:
        if not await self.redis.eval(_WAKE, 2, self._incomplete, self._queued, job_id):
            await self._opened()[0].drop(ticket)  # it is gone: the next

    def _view(self, job: SaqJob) -> ArgumentView:
        binder = self._binders.get(job.function)
        if binder is None:
            return ArgumentView(job.kwargs or {}, job.function)
        return ArgumentView(binder((None,), job.kwargs or {}), binder.name)

    def _opened(self) -> tuple[JobGate, Errands]:
        if self._open is None:
            errands = Errands()

            def noticed(notice: Notice) -> None:
                errands.begin_soon(lambda: self._wake(notice.payload.decode(), notice.id))

            store = self._limiter
            if store is None:
                from limiter_redis import RedisStore  # noqa: PLC0415

                store = RedisStore(client=self.redis)
            gate = JobGate(store, f"saq:{self.name}", noticed)
            self._open = gate, errands
            self._sweeper = asyncio.create_task(gate.keep_sweeping())
        return self._open

    # -- every way out -----------------------------------------------------------------------------

    async def _retry(self, job: SaqJob, error: str | None) -> None:
        await super()._retry(job, error)
        await self._let_go(job)

    async def _finish(
        self, job: SaqJob, status: Status, *, result: Any = None, error: str | None = None
    ) -> None:
        await super()._finish(job, status, result=result, error=error)
        await self._let_go(job)

    async def abort(self, job: SaqJob, error: str, ttl: float = 5) -> None:
        """Abort a job, also one that waits for its slot: nobody would, SAQ has it as scheduled."""
        at = await self.redis.zscore(self._incomplete, job.id)
        await super().abort(job, error, ttl)
        if at:
            await self.finish(job, Status.ABORTED, error=error)
            await self.redis.delete(job.abort_id)
            await self._opened()[0].drop(_ticket_of(job))

    async def _let_go(self, job: SaqJob) -> None:
        # Only of the delivery that was admitted here. What a sweep ends is another object: its body
        # may still run, and if its worker is dead its lease ends by itself.
        ours, lease = self._leases.get(job.key, (None, None))
        if ours is job and lease is not None:
            del self._leases[job.key]
            await lease.release()

    async def disconnect(self) -> None:
        """Give back what is left, and close the gate and the connections."""
        if self._open is not None and self._sweeper is not None:
            (gate, errands), self._open = self._open, None
            self._sweeper.cancel()
            for job, _ in list(self._leases.values()):
                await self._let_go(job)
            await errands.done(5.0)
            await gate.aclose()
            if self._limiter is None:
                await gate.store.async_face().aclose()
        await super().disconnect()


def _ticket_of(job: SaqJob) -> str:
    return f"{job.id}#{job.attempts}"
