"""SAQ's queue on Redis with a gate in front of its workers.

`dequeue` asks the gate, before SAQ counts an attempt. A job that has to wait is parked: as SAQ's
own `scheduled`, with a time far ahead. SAQ brings it back at that time, if it was not woken before.

A slot is free when SAQ records the end of the job. A body that cannot be cancelled at its `timeout`
(a function that is no coroutine) runs on: SAQ does not wait for it.

What a lost slot does to a body: see `stop_body`. SAQ's own `abort` looks once a second, and only at
bodies that have run for a second; so bodies are stopped here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from redis.exceptions import RedisError
from saq.job import Job as SaqJob
from saq.job import Status

from limiter_core import (
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    Lease,
    LimitReached,
    StoreError,
    Superseded,
)
from limiter_core.arguments import Binder
from limiter_core.brief import brief
from limiter_core.jobs import (
    CLAIM,
    BackgroundTasks,
    Held,
    Job,
    JobGate,
    check_limits,
    loss_text,
)
from limiter_core.limits import check_seconds
from limiter_core.requests import Loss, Notice
from limiter_core.store import Store
from limiter_core.system_clock import system_clock as time
from limiter_saq._limits import binder_of
from limiter_saq._parking import ParkingQueue, waited_on
from limiter_saq._stopping import stop_body
from limiter_saq._workers import check_new_workers, worker_of

logger = logging.getLogger("limiter")

RECHECK_AFTER = 300.0
"""Seconds after which a parked job asks again, even if it was not woken."""


class LimitedQueue(ParkingQueue):
    """A `saq.queue.redis.RedisQueue` whose jobs keep limits.

    Args:
        redis: as for `RedisQueue`; a connection's `socket_timeout` has to be None there.
        limits: for a job's function, by its name or itself, a limit or a list of them.
        limiter: the store of the limits, or its URL; None for the queue's own Redis. Queues of one
            name in several Redises need one each, or a namespace of it.
        claim: seconds that a job has to start once a slot is kept for it. More than your workers
            may be busy with other jobs.
        settings: those of `RedisQueue`.

    Raises:
        ConfigurationError: what is given for a function is no limit, or needs an argument that the
            function does not have. With a name alone, it is the worker that is refused; so it is
            if it does not have a function of that name.
    """

    def __init__(
        self,
        redis: Any,
        *,
        limits: Mapping[str | Callable[..., Any], Any],
        limiter: str | Store | None = None,
        claim: float = CLAIM,
        **settings: Any,
    ) -> None:
        super().__init__(redis, **settings)
        self._limits: dict[str, tuple[ConcurrencyLimit, ...]] = {}
        self._binders: dict[str, Binder] = {}
        for function, given in limits.items():
            name = function if isinstance(function, str) else getattr(function, "__qualname__", "")
            if not name:
                raise ConfigurationError(
                    f"limits= takes functions and their names, got {brief(function)}"
                )
            self._limits[name] = check_limits(given, f"limits= of the function {name!r}")
            if not isinstance(function, str):
                self._binders[name] = binder_of(function, self._limits[name])
        self._limiter = limiter
        self._claim = check_seconds(claim, "claim")
        self._leases: dict[int, tuple[SaqJob, Lease]] = {}  # by the id() of the delivery
        self._opened: tuple[JobGate, BackgroundTasks] | None = None
        self._watchers: dict[
            asyncio.Event, asyncio.Task[None]
        ] = {}  # by the stop event of a worker
        self._sweeper: asyncio.Task[None] | None = None
        self._asking = 0
        self._left_waiting: set[str] = set()  # for a worker in burst mode: jobs that it has parked

    def check_worker(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        """Refuse a worker that would ignore a limit; called when one is made for this queue.

        Args:
            functions: those of the worker, by name. From now on their defaults count, too.

        Raises:
            ConfigurationError: there is a limit for none of them; or one needs an argument that its
                function does not have.
        """
        for name, limits in self._limits.items():
            function = functions.get(name)
            if function is None:
                raise ConfigurationError(
                    f"limits= names {brief(name)}, which is no function of this worker; "
                    f"there are: {', '.join(sorted(functions)) or 'none'}"
                )
            if name not in self._binders:
                self._binders[name] = binder_of(function, limits, name)

    # -- the gate ----------------------------------------------------------------------------------

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> SaqJob | None:
        """Return the next job that may run; park those that have to wait."""
        gate, background = self._open()  # now: the jobs of a dead worker may be waiting for a sweep
        worker = worker_of(asyncio.current_task())
        stopping = None if worker is None else worker.event
        if stopping is None or not stopping.is_set():
            gate.arrive()
        if stopping is not None and stopping not in self._watchers:
            self._watchers[stopping] = asyncio.create_task(self._leave_after(stopping, gate))
        try:
            return await self._dequeue(background, worker, timeout, poll_interval)
        except asyncio.CancelledError:
            if stopping is None and not self._watchers:  # a fetcher that is no worker of SAQ stops
                background.begin(gate.leave())
            raise

    async def _leave_after(self, stopping: asyncio.Event, gate: JobGate) -> None:
        """Leave the gate when the last worker stops; its jobs may run on."""
        await stopping.wait()
        if all(other.is_set() for other in self._watchers):
            await gate.leave()
        del self._watchers[stopping]

    async def _dequeue(
        self, background: BackgroundTasks, worker: Any, timeout: float, poll_interval: float
    ) -> SaqJob | None:
        in_burst: bool = getattr(worker, "burst", False)
        while True:
            job = await super().dequeue(timeout, poll_interval)
            if job is None and in_burst and not worker.event.is_set() and await self._has_waiting():
                continue  # without a job, the worker would end
            if job is not None and job.status is Status.ACTIVE:
                continue  # a sweep put it back, but it began all the same: its own worker ends it
            if job is None:
                return None
            keys, limits = waited_on(job), self._limits.get(job.function)
            if limits is None:
                if keys or (worker is not None and job.function not in worker.functions):
                    # It waited where its function had a limit: its slot is for the next.
                    background.begin(self._open()[0].drop(_ticket_of(job), keys))
                return job
            dequeued_at = time.monotonic()
            self._asking += 1
            try:
                task = asyncio.current_task()
                if await background.finish(self._admit(job, limits, keys, task)):
                    if await self._is_still_ours(job, time.monotonic() - dequeued_at):
                        if id(job) in self._leases:
                            self._open()[0].confirm(self._leases[id(job)][1])
                        return job
                    await self._releasing(job).aclose()  # a sweep put it back meanwhile
                if in_burst:
                    self._left_waiting.add(job.id)
            except asyncio.CancelledError:  # the worker stops, whatever the gate answered
                if id(job) in self._leases:  # its slot is free when this task has ended
                    await background.finish(self._park(job, 1.0))
                raise
            finally:
                self._asking -= 1

    async def _has_waiting(self) -> bool:
        """Whether jobs that were due wait for their slots, or were woken and not dequeued yet."""
        if self._asking:
            return True
        for job_id in list(self._left_waiting):
            parked_until = await self.redis.zscore(self._incomplete, job_id)
            if not parked_until:  # it was woken, or has ended
                self._left_waiting.discard(job_id)
            if parked_until is not None:
                return True
        return False

    async def _admit(self, job: SaqJob, limits: Any, keys: tuple[str, ...], worker: Any) -> bool:
        try:
            return await self._ask(job, limits, keys, worker)
        except (StoreError, RedisError):  # the gate has logged it; or the queue's Redis was away
            await self._park(job, 1.0, keys)
        except (LimitReached, Superseded) as refusal:
            await self.finish(job, Status.ABORTED, error=str(refusal))
        except Exception as error:  # a strategy, or a function of the limit  # noqa: BLE001
            await self.finish(job, Status.FAILED, error=repr(error))
        return False

    async def _ask(
        self, job: SaqJob, limits: Any, keys: tuple[str, ...], worker: asyncio.Task[Any]
    ) -> bool:
        gate, background = self._open()
        ticket = _ticket_of(job)
        # The wait of a job that ran before begins now, or its `timeout` would have passed long ago.
        enqueued = None if job.attempts else max(job.queued * 1000, job.scheduled * 1_000_000)
        label = f"{job.function}[{job.key}]"
        view, payload = self._view(job), job.id.encode()
        ask = Job(ticket, limits, view, payload, enqueued, label, keys=keys)
        outcome = await gate.admit(
            ask,
            lambda loss: background.begin_soon(lambda: self._stop(job, loss, worker)),
            confirmed=False,
        )
        if isinstance(outcome, Lease):
            self._leases[id(job)] = job, outcome
            # However SAQ's task for this job ends, even if SAQ does not report that to the queue.
            worker.add_done_callback(lambda _: background.begin(self._releasing(job).aclose()))
        elif isinstance(outcome, Held):
            await self._park(job, outcome.expires_in or RECHECK_AFTER, keys)
        else:
            seconds = min(outcome.patience or RECHECK_AFTER, RECHECK_AFTER)
            if not await self._park(job, seconds, outcome.keys):  # it was aborted meanwhile
                await gate.drop(ticket, outcome.keys, function=view.function_name)
                return False
            gate.confirm(outcome)
            with suppress(StoreError, RedisError):  # it is parked, and its slot is offered again
                if await gate.handed_over(outcome) and not await self._wake(job.id):
                    await gate.drop(ticket, outcome.keys)
        return id(job) in self._leases

    async def _on_notice(self, notice: Notice) -> bool:
        return await self._wake(notice.payload.decode())

    def _view(self, job: SaqJob) -> ArgumentView:
        binder = self._binders.get(job.function)
        if binder is None:
            return ArgumentView(job.kwargs or {}, job.function)
        try:
            return ArgumentView(binder((None,), job.kwargs or {}), binder.name)
        except TypeError:  # they do not fit: the call of the body raises that
            return ArgumentView(job.kwargs or {}, binder.name)

    def _open(self) -> tuple[JobGate, BackgroundTasks]:
        if self._opened is None:
            store, is_own = self._limiter, self._limiter is None
            if store is None:
                from limiter_redis import RedisStore  # noqa: PLC0415

                store = RedisStore(client=self.redis)
            gate = JobGate(
                store,
                f"saq:{self.name}",
                self._on_notice,
                claim=self._claim,
                owns_store=is_own,
                fetches=False,
            )
            self._opened = gate, BackgroundTasks()
            self._sweeper = asyncio.create_task(gate.keep_sweeping())
        return self._opened

    # -- release and loss --------------------------------------------------------------------------

    async def _retry(self, job: SaqJob, error: str | None) -> None:
        async with self._releasing(job):
            await super()._retry(job, error)

    async def _finish(self, job: SaqJob, status: Status, **ended: Any) -> None:
        async with self._releasing(job):
            await super()._finish(job, status, **ended)

    async def _stop(self, job: SaqJob, loss: Loss, worker: asyncio.Task[Any]) -> None:
        if id(job) in self._leases:  # else it has ended
            await stop_body(self, job, loss, loss_text(self._leases[id(job)][1]), worker)

    async def abort(self, job: SaqJob, error: str, ttl: float = 5) -> None:
        """Abort a job; one that waits for its slot, too, which SAQ would not: it is scheduled."""
        stored = await self.job(job.key)  # the caller's may be from before an attempt
        keys = waited_on(stored or job)
        if not keys and job.function not in self._limits:
            await super().abort(job, error, ttl)
            return
        ticket = _ticket_of(stored or job)
        waits = await self._unpark(job.id)
        await super().abort(job, error, ttl)
        if waits:
            await self.finish_abort(job)
        with suppress(StoreError):  # else it is dropped when it is granted
            # And that of a job that was just woken.
            function = self._view(stored or job).function_name
            await self._open()[0].drop(ticket, keys, function=function)

    def _releasing(self, job: SaqJob) -> AsyncExitStack:
        # Only the lease of the delivery that was admitted here. A sweep ends another object: that
        # body may still run, and if its worker is dead its lease ends by itself.
        end = AsyncExitStack()
        _, lease = self._leases.pop(id(job), (None, None))
        if lease is not None:
            end.push_async_callback(lease.release)
        return end

    async def disconnect(self) -> None:
        """Release the leases that are left, and close the gate and the connections."""
        if self._opened is not None and self._sweeper is not None:
            gate, background = self._opened
            for task in (self._sweeper, *self._watchers.values()):
                task.cancel()
            self._watchers.clear()
            for job, _ in list(self._leases.values()):
                await self._releasing(job).aclose()
            await asyncio.sleep(0)  # jobs that were woken begin
            await background.done(5.0)
            self._opened = None  # only now: a job that is woken last may need the gate
            await gate.aclose()
        await super().disconnect()


def _ticket_of(job: SaqJob) -> str:
    # The key of a job that ended may be enqueued again before its slot is released.
    return f"{job.id}#{job.queued}#{job.attempts}"


check_new_workers(LimitedQueue)
