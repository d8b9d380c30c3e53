"""SAQ's sweep, for a queue with a gate.

SAQ's own takes each job that a worker took and did not begin for a dead worker's: it aborts it, and
puts it back or ends it. A job at the gate looks the same, so it ended ABORTED or ran twice. Here
such a job has to stay as it is for a while; then it goes back to the queue as if never taken.
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
"""Seconds that a job may stand at the gate of a live worker before the worker has to say so. A
store answers within them, or the job is parked; a strategy of the user's may take longer."""

BEGIN = 3.0
"""Seconds from there until SAQ has noted that the job began: one command to the queue's own Redis.
Nothing bounds it, since SAQ wants no timeout of that connection, so this is chosen: what a busy
event loop takes, with a margin. A job noted later was put back, and runs once even so: until it is
noted its slot is held, and afterwards it is ACTIVE, which nobody begins."""

GRACE = UNTOUCHED + BEGIN
"""Seconds for which a job has to stand untouched before a sweep puts it back: no live worker leaves
one so for longer. Below the 60 s for which a sweep locks out the next."""

_LUA = resources.files("limiter_saq") / "lua"
_LOOK, _REQUEUE, _KEEP = ((_LUA / f"{n}.lua").read_text() for n in ("look", "requeue", "keep"))


class PatientQueue(RedisQueue):
    """A queue whose sweep leaves jobs alone that a worker is about to begin or to park."""

    def __init__(self, redis: Any, **settings: Any) -> None:
        super().__init__(redis, **settings)
        self._cleanup_script = self._look  # type: ignore[assignment]
        self._not_begun: list[tuple[Job, bytes]] = []

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:
        """As SAQ's; takes `GRACE` longer if there are jobs that may be a dead worker's."""
        self._not_begun = []
        swept = await super().sweep(lock, abort)
        not_begun, self._not_begun = self._not_begun, []
        if not_begun:
            await asyncio.sleep(GRACE)
        for job, seen in not_begun:
            job.touched = now()  # another sweep that saw it, too, sees that it was put back
            keys = self._active, self._queued
            if await self.redis.eval(_REQUEUE, 2, *keys, job.id, seen, self.serialize(job)):
                logger.info("%s was taken and never began: put back", job.id)
                swept.append(job.id)
        return swept

    async def _look(self, keys: list[str], args: list[int], client: Any) -> list[Any]:
        begun: list[Any] = []
        deserialize: Any = cast(Any, self).deserialize  # its type is but half told
        for job_id, seen in await client.eval(_LOOK, 2, *keys, *args):
            job: Job | None = deserialize(seen)
            if job is not None and job.status in (Status.NEW, Status.QUEUED):
                self._not_begun.append((job, seen))
            else:
                begun.append((job_id, seen))
        return begun

    async def _keep(self, job: Job, stood: float) -> bool:
        """Say that a job is still ours if it stood at the gate for so many seconds.

        Returns:
            False if a sweep put it back, or nobody knows.
        """
        if stood < UNTOUCHED:
            return True
        job.touched = now()
        try:
            return bool(await self.redis.eval(_KEEP, 1, self._active, job.id, self.serialize(job)))
        except RedisError:
            return False
