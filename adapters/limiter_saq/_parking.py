"""Parking of jobs that wait: as SAQ's own `scheduled`, with a time far ahead.

The job carries on which keys it waits: its function may have others when it asks again, or none,
in the workers of another deployment.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from saq.job import Job, Status
from saq.utils import now

from limiter_core.system_clock import system_clock as time
from limiter_saq._sweep import SafeSweepQueue

_KEYS = "limiter_keys"
"""The name of the keys in the `meta` of a job that waits."""

_LUA = resources.files("limiter_saq") / "lua"
_PARK, _WAKE, _UNPARK = ((_LUA / f"{n}.lua").read_text() for n in ("park", "wake", "unpark"))


def waited_on(job: Job) -> tuple[str, ...]:
    """Return the keys on which a job waited, and remove them from it."""
    return tuple(map(str, job.meta.pop(_KEYS, ())))


class ParkingQueue(SafeSweepQueue):
    """A queue in which jobs can be parked, and brought forward."""

    async def _park(self, job: Job, seconds: float, waits_on: Sequence[str] = ()) -> bool:
        """Park a job that was dequeued; False if it is gone, or was aborted meanwhile."""
        job.touched = now()  # a sweep that saw it before sees the change
        if waits_on:
            job.meta[_KEYS] = list(waits_on)
        arguments = (job.id, time.time() + max(1.0, seconds), self.serialize(job))
        if await self.redis.eval(_PARK, 2, self._incomplete, self._active, *arguments):
            return True
        stored = await self.job(job.key)
        if stored is not None and stored.status is Status.ABORTING:  # since it was dequeued
            await self.finish_abort(stored)
        return False

    async def _wake(self, job_id: str) -> bool:
        """Bring a parked job forward; False if it is gone."""
        return bool(await self.redis.eval(_WAKE, 2, self._incomplete, self._queued, job_id))

    async def _unpark(self, job_id: str) -> bool:
        """Take a parked job away, so that nobody wakes it; False if it was not parked."""
        return bool(await self.redis.eval(_UNPARK, 1, self._incomplete, job_id))
