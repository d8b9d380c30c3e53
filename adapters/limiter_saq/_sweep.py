"""SAQ's sweep, for a queue with a gate.

SAQ's own sweep takes each job that was dequeued and did not begin for that of a dead worker: it
aborts the job, and puts it back or ends it. A job at the gate looks the same, so it ended ABORTED
or ran twice. Here such a job has to stay unchanged for a while; then it goes back to the queue, as
if it had not been dequeued.

And a job that began and is stuck: SAQ takes its id out of all lists, waits for seconds until its
worker has ended it, and then puts it back. If the sweep ended meanwhile, with its worker or with
its connection, the job was in no list any more, and lost. Here the id stays where the next sweep
looks.
"""

from __future__ import annotations

import asyncio
import logging
from importlib import resources
from typing import Any, cast

from redis.exceptions import RedisError
from saq.job import Job, Status
from saq.queue.redis import RedisQueue
from saq.utils import now

from limiter_core.jobs import ANSWER_PATIENCE

logger = logging.getLogger("limiter")

UNTOUCHED = ANSWER_PATIENCE
"""Seconds for which a job may be at the gate of a live worker before the worker has to confirm it.
A store answers within them, or the job is parked; a strategy of the user's may take longer."""

BEGIN = 3.0
"""Seconds from then until SAQ has recorded that the job began: one command to the queue's Redis.
SAQ needs that connection without a timeout, so nothing bounds the command. This value is chosen:
what a busy event loop takes, with a margin. A job recorded later was put back, and still runs once:
until it is recorded its slot is held, and afterwards it is ACTIVE, which no worker begins."""

GRACE = UNTOUCHED + BEGIN
"""Seconds for which a job has to stay unchanged before a sweep puts it back: a live worker leaves
none unchanged for longer. Less than the 60 s for which a sweep locks out the next."""

_LUA = resources.files("limiter_saq") / "lua"
_LOOK, _REQUEUE, _KEEP = ((_LUA / f"{n}.lua").read_text() for n in ("look", "requeue", "keep"))


class SafeSweepQueue(RedisQueue):
    """A queue whose sweep leaves jobs alone that a worker is about to begin or to park."""

    def __init__(self, redis: Any, **settings: Any) -> None:
        super().__init__(redis, **settings)
        self._cleanup_script = self._find_swept  # type: ignore[assignment]
        self._not_begun: list[tuple[Job, bytes]] = []
        self._sweeps: set[asyncio.Task[Any] | None] = set()

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:
        """As SAQ's; takes `GRACE` longer if there are jobs that may be a dead worker's."""
        self._not_begun = []
        sweep = asyncio.current_task()
        self._sweeps.add(sweep)
        try:
            swept = await super().sweep(lock, abort)
        finally:
            self._sweeps.discard(sweep)
        not_begun, self._not_begun = self._not_begun, []
        if not_begun:
            await asyncio.sleep(GRACE)
        for job, seen in not_begun:
            job.touched = now()  # another sweep that saw it sees the change
            keys = self._active, self._queued
            if await self.redis.eval(_REQUEUE, 2, *keys, job.id, seen, self.serialize(job)):
                logger.info("%s was dequeued and never began: put back", job.id)
                swept.append(job.id)
        return swept

    async def abort(self, job: Job, error: str, ttl: float = 5) -> None:
        """As SAQ's; but of a sweep it takes the job out of no list: what follows does."""
        if asyncio.current_task() not in self._sweeps:
            await super().abort(job, error, ttl)
            return
        job.status, job.error = Status.ABORTING, error
        pipe: Any  # its types are those of single commands
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.lrem(self._queued, 0, job.id).set(job.id, self.serialize(job))
            await pipe.setex(job.abort_id, ttl, error).publish(job.id, job.status).execute()

    async def _find_swept(self, keys: list[str], args: list[int], client: Any) -> list[Any]:
        begun: list[Any] = []
        deserialize: Any = cast(Any, self).deserialize  # its type is incomplete
        for job_id, seen in await client.eval(_LOOK, 2, *keys, *args):
            job: Job | None = deserialize(seen)
            if job is not None and job.status in (Status.NEW, Status.QUEUED):
                self._not_begun.append((job, seen))
            else:
                begun.append((job_id, seen))
        return begun

    async def _is_still_ours(self, job: Job, seconds: float) -> bool:
        """Confirm a job that was at the gate for so many seconds.

        Returns:
            False if a sweep put it back, or if Redis did not answer.
        """
        if seconds < UNTOUCHED:
            return True
        job.touched = now()
        try:
            return bool(await self.redis.eval(_KEEP, 1, self._active, job.id, self.serialize(job)))
        except RedisError:
            return False
