"""Who may run next is started: here at once if there is room, else by another worker.

The process whose step freed a slot hears of the job that got it, be it this worker's or one of
another queue in the same Redis. Nothing rests on it: a job that nobody woke is offered again by the
sweep when its claim time is over, and comes back by itself in the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from limiter_arq._job_fetcher import Intake
from limiter_arq._job_queue import Absent, Parked, Shelf, channel_of
from limiter_arq._log import logger
from limiter_core.jobs import Errands, JobGate
from limiter_core.requests import Notice

_GO_ON_AFTER = 1.0
_KEEP_PLACE_EVERY = 3600.0


class Wakes:
    """What one worker does with the jobs that may run next.

    Args:
        pool: arq's Redis.
        place: what names that.
        queue: the worker's queue.
        shelf: the same, to work with.
        intake: starts jobs.
        errands: for what is done beside.
        ending: says how many of the worker's jobs are about to leave it.
        stale_after: seconds after which arq's mark of a job that runs, on one whose slot is kept
            for it, is taken for a dead worker's; None: never.

    Attributes:
        gate: where tickets of jobs that are gone are dropped.
    """

    def __init__(  # noqa: PLR0917  (collaborators, each once)
        self,
        pool: ArqRedis,
        place: str,
        queue: str,
        shelf: Shelf,
        intake: Intake,
        errands: Errands,
        *,
        ending: Callable[[], int],
        stale_after: float | None,
    ) -> None:
        self._pool: Any = pool
        self._place = place
        self._queue = queue
        self._shelf = shelf
        self._errands = errands
        self._intake = intake
        self._ending = ending
        self._stale_after = stale_after
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._ready: dict[str, tuple[Parked, str]] = {}
        self.gate: JobGate | None = None

    # -- jobs that may run next -------------------------------------------------------------------

    def hear(self, notice: Notice) -> None:
        """Hear of a job whose waiting is over: it may run, or is to learn that it may not."""
        if threading.get_ident() == self._thread:
            self._hear(notice)
        else:
            with suppress(RuntimeError):  # the loop is closed, others will sweep
                self._loop.call_soon_threadsafe(self._hear, notice)

    def _hear(self, notice: Notice) -> None:
        self.wake(Parked.from_payload(notice.payload), notice.id)

    def wake(self, parked: Parked, ticket: str) -> None:
        """Start a job, or have it started."""
        self._errands.begin(self._wake(parked, ticket))

    def room_came(self) -> None:
        """Start one of those that wait for room in this worker."""
        if self._ready and self._intake.room():
            parked, ticket = self._ready.pop(next(iter(self._ready)))
            self._errands.begin(self._wake(parked, ticket))

    async def _wake(self, parked: Parked, ticket: str) -> None:
        mine = parked.queue == self._queue
        if mine and self._intake.runs(parked.job_id):
            return  # it lost its lease, and does not care: its next try has to wait for its end
        if mine and self._intake.room():
            # Its slot is still kept for it, so it does not run: if arq's mark says so for long, the
            # worker that set it died on the way. (If it is only slow, it will find the slot held.)
            stale_after = self._stale_after if ticket else None
            (found,) = await self._intake.start([(parked.job_id, parked.score)], stale_after)
            if found is Absent.GONE:
                await self._drop(ticket)
            if found is not Absent.NO_ROOM:
                return
        # It is due from now on, whoever dies. If a job of ours is about to end, we are the fastest.
        keep = mine and len(self._ready) < self._ending()
        if keep:
            self._ready[parked.job_id] = parked, ticket
        if not await self._shelf.bring_forward(parked, tell=not keep):
            self._ready.pop(parked.job_id, None)
            await self._drop(ticket)
        elif keep:
            self.room_came()  # if it was before we had noted the job

    async def _drop(self, ticket: str) -> None:
        """Hand on what was given to a job that is gone: expired, deleted, aborted elsewhere."""
        if self.gate is not None and ticket:
            await self.gate.drop(ticket)

    # -- the background ---------------------------------------------------------------------------

    def background(self, gate: JobGate) -> list[asyncio.Task[None]]:
        """Begin what goes on as long as the worker runs."""
        works = gate.keep_sweeping, self._listen, self._keep_place
        return [self._loop.create_task(_for_ever(work)) for work in works]

    async def _listen(self) -> None:
        """Hear from other workers of jobs of this queue that they brought forward."""
        channel = self._pool.pubsub(ignore_subscribe_messages=True)
        try:
            await channel.subscribe(channel_of(self._queue, self._shelf.database))
            async for message in channel.listen():
                parked = Parked.from_payload(message["data"])
                if self._intake.room():
                    self._errands.begin(self._start_told(parked))
        except (RedisError, OSError):
            logger.debug("listening again", exc_info=True)
        finally:
            with suppress(RedisError, OSError):
                await channel.aclose()

    async def _start_told(self, parked: Parked) -> None:
        await self._intake.start([(parked.job_id, parked.score)])

    async def _keep_place(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_PLACE_EVERY)
            with suppress(RedisError, OSError):
                await self._shelf.keep_place(self._place)


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  (no fault of one round ends all of them)
            logger.exception("%s goes on", getattr(work, "__name__", work))
        await asyncio.sleep(_GO_ON_AFTER)
