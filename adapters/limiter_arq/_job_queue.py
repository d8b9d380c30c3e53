"""What the adapter does in arq's own Redis: jobs are taken, parked and brought forward there.

arq's queue is a sorted set of job ids by the time they are due, in milliseconds since the epoch.
A job that waits stays in it, with a time far ahead; so `Job.status()`, `Job.abort()`, the dedupe
by job id and burst mode see it. Times of ours end in a half, arq's are whole: that is how a parked
job is told from one that its user deferred.
"""

from __future__ import annotations

import enum
import json
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from arq.connections import ArqRedis
from arq.constants import (
    abort_jobs_ss,
    in_progress_key_prefix,
    job_key_prefix,
    retry_key_prefix,
)
from arq.utils import timestamp_ms

_PLACE_KEY = "arq:limiter:place"
_PLACE_LASTS = 30 * 24 * 3600
"""Seconds; far longer than a ticket waits. Each worker begins them again now and then."""

_TAKE = """
-- Take jobs, as arq's `Worker.start_jobs` does, and read all that the gate asks for.
-- KEYS: the queue, the set of aborts, then for each job: in-progress, job, retry.
-- ARGV: now (ms), life of in-progress (ms), the age (ms) from which that is the mark of a dead
--   worker, or "", then for each job: its id, its new score or "".
-- Reply: for each job {0} it is gone, {2} somebody runs it, {3} it is not due, or
--   {1, score, job or false, its life (ms), tries or false, score of its abort or false}.
local replies = {}
for i = 1, (#KEYS - 2) / 3 do
  local running, job, retry = KEYS[3 * i], KEYS[3 * i + 1], KEYS[3 * i + 2]
  local id, moved = ARGV[2 * i + 2], ARGV[2 * i + 3]
  local score = redis.call("ZSCORE", KEYS[1], id)
  local left = redis.call("PTTL", running)
  local stale = tonumber(ARGV[3]) and ARGV[2] - left > tonumber(ARGV[3])
  if not score then
    replies[i] = {0}
  elseif left ~= -2 and not stale then
    replies[i] = {2}
  else
    if moved ~= "" then
      redis.call("ZADD", KEYS[1], "XX", moved, id)
      score = moved
    end
    if tonumber(score) > tonumber(ARGV[1]) then
      replies[i] = {3}
    else
      redis.call("SET", running, "1", "PX", ARGV[2])
      replies[i] = {
        1, score, redis.call("GET", job), redis.call("PTTL", job),
        redis.call("GET", retry), redis.call("ZSCORE", KEYS[2], id)
      }
    end
  end
end
return replies
"""


class Absent(enum.Enum):
    """Why a job was not taken."""

    GONE = 0
    RUNNING = 2
    NOT_DUE = 3
    NO_ROOM = 4
    """It was not tried: the worker has no room."""


class Taken(NamedTuple):
    """A job that is this worker's until it is finished, parked or put back.

    Attributes:
        job_id: arq's.
        score: when it was due.
        raw: the job, serialized; None if it expired.
        life: milliseconds until it expires, below zero if it does not.
        tries: the tries that it has spent.
        aborted: whether its abort was asked for.
    """

    job_id: str
    score: float
    raw: bytes | None
    life: int
    tries: int
    aborted: bool


class Parked(NamedTuple):
    """How a job that waits is found again: its ticket's payload.

    Attributes:
        queue: the name of its queue.
        job_id: arq's.
        score: the place in the queue that it comes back to.
    """

    queue: str
    job_id: str
    score: int

    def payload(self) -> bytes:
        """Return it as a ticket carries it."""
        return json.dumps(self).encode()

    @classmethod
    def from_payload(cls, payload: bytes) -> Parked:
        """Return what a ticket carried."""
        queue, job_id, score = json.loads(payload)
        return cls(str(queue), str(job_id), int(score))


def is_parked(score: float) -> bool:
    """Whether a score in the queue is one of ours."""
    return score % 1 == 0.5


def channel_of(queue: str, database: int) -> str:
    """Return the channel on which the workers of a queue hear of jobs brought forward.

    Channels belong to the server: the queue of that name in another database is another one.
    """
    return f"{queue}:limiter-wake:{database}"


class Shelf:
    """The queue of one worker, in arq's Redis."""

    def __init__(self, pool: ArqRedis, queue: str) -> None:
        self._pool: Any = pool  # redis-py's own types leave much open
        self._queue = queue
        self.database = int(self._pool.connection_pool.connection_kwargs.get("db") or 0)
        # On a connection of its own: getting one from redis-py's pool costs more than the command.
        self._line = self._pool.client()
        self._take = self._line.register_script(_TAKE)

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._line.aclose(close_connection_pool=False)

    async def place(self) -> str:
        """Return what names this Redis, whatever address it has: all its workers read the same."""
        await self._pool.set(_PLACE_KEY, secrets.token_hex(4), ex=_PLACE_LASTS, nx=True)
        found: bytes = await self._pool.get(_PLACE_KEY)
        return found.decode()

    async def keep_place(self, place: str) -> None:
        """Have the name live on."""
        await self._pool.set(_PLACE_KEY, place, ex=_PLACE_LASTS)

    async def due(self, count: int) -> list[bytes]:
        """Return the ids of jobs that are due, as many as this; running ones are among them."""
        found: list[bytes] = await self._pool.zrangebyscore(
            self._queue, min=float("-inf"), max=timestamp_ms(), start=0, num=count
        )
        return found

    async def take(
        self,
        jobs: Sequence[tuple[str, int | None]],
        lasts: float,
        stale_after: float | None = None,
    ) -> list[Taken | Absent]:
        """Take jobs, all in one step.

        Args:
            jobs: ids, each with the score that it comes back to, or None to leave it.
            lasts: seconds after which arq counts a job as abandoned.
            stale_after: seconds after which we do, for jobs that are known not to run; None: never.
        """
        keys = [self._queue, abort_jobs_ss]
        stale: Any = "" if stale_after is None else int(stale_after * 1000)
        args: list[Any] = [timestamp_ms(), int(lasts * 1000), stale]
        for job_id, score in jobs:
            keys += [
                in_progress_key_prefix + job_id,
                job_key_prefix + job_id,
                retry_key_prefix + job_id,
            ]
            args += [job_id, "" if score is None else score]
        replies = await self._take(keys=keys, args=args)
        return [_taken(job_id, reply) for (job_id, _), reply in zip(jobs, replies, strict=True)]

    async def read(self, job_id: str, score: int) -> Taken:
        """Return what `take` would, of a job that arq has taken itself."""
        async with self._pool.pipeline(transaction=True) as pipe:
            pipe.get(job_key_prefix + job_id)
            pipe.pttl(job_key_prefix + job_id)
            pipe.get(retry_key_prefix + job_id)
            pipe.zscore(abort_jobs_ss, job_id)
            pipe.zscore(self._queue, job_id)
            raw, life, tries, abort, now_at = await pipe.execute()
        return _taken(job_id, [1, now_at or score, raw, life, tries, abort])

    async def let_go(self, job_id: str, until: float, life: int | None) -> None:
        """Let go of a job that was not run.

        Args:
            job_id: arq's.
            until: when it comes back, in milliseconds since the epoch; see `is_parked`.
            life: milliseconds that the job is to live from now on; None to leave that alone.
        """
        async with self._pool.pipeline(transaction=True) as pipe:
            # XX: a job that was finished elsewhere meanwhile does not rise from the dead.
            pipe.zadd(self._queue, {job_id: until}, xx=True)
            pipe.delete(in_progress_key_prefix + job_id)
            if life is not None:
                pipe.pexpire(job_key_prefix + job_id, life)
            await pipe.execute()

    async def bring_forward(self, parked: Parked, *, tell: bool) -> bool:
        """Make a parked job due; whether it is still there.

        Args:
            parked: the job, of any queue in this Redis.
            tell: whether to tell the workers of its queue, which else find it when they poll.
        """
        async with self._pool.pipeline(transaction=True) as pipe:
            pipe.zadd(parked.queue, {parked.job_id: parked.score}, xx=True)
            pipe.zscore(parked.queue, parked.job_id)
            if tell:
                pipe.publish(channel_of(parked.queue, self.database), parked.payload())
            _, score, *_ = await pipe.execute()
        return score is not None

    async def score(self, job_id: str) -> float | None:
        """Return where a job stands in the queue, None if it is gone."""
        found: float | None = await self._pool.zscore(self._queue, job_id)
        return found

    async def parked_to_abort(self) -> list[str]:
        """Return the ids of parked jobs whose abort was asked for."""
        ids: list[bytes] = await self._pool.zrange(abort_jobs_ss, 0, -1)
        if not ids:
            return []
        async with self._pool.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.zscore(self._queue, job_id)
            scores = await pipe.execute()
        return [
            job_id.decode()
            for job_id, score in zip(ids, scores, strict=True)
            if score is not None and is_parked(score)
        ]


def _taken(job_id: str, reply: Sequence[Any]) -> Taken | Any:
    if reply[0] != 1:
        return Absent(reply[0])
    _, score, raw, life, tries, abort = reply
    return Taken(job_id, float(score), raw, life, int(tries or 0), abort is not None)
