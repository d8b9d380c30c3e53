"""The operations of the adapter on arq's own Redis: fetch, park and bring forward jobs.

arq's queue is a sorted set of job ids by the time they are due, in milliseconds since the epoch.
A waiting job stays in it, parked: with a time far ahead. So `Job.status()`, `Job.abort()`, the
check for duplicate job ids and burst mode see it. The score of a parked job ends in a half, arq's
are whole: that distinguishes a parked job from one that its user deferred.
"""

from __future__ import annotations

import enum
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, NamedTuple

from arq.connections import ArqRedis
from arq.constants import (
    abort_jobs_ss,
    in_progress_key_prefix,
    job_key_prefix,
    retry_key_prefix,
)
from arq.utils import timestamp_ms
from redis.exceptions import RedisError

_REDIS_ID_KEY = "arq:limiter:place"
_REDIS_ID_LIFE = 30 * 24 * 3600
"""Seconds; far longer than a ticket waits. Each worker extends it now and then."""

_TICKET = "arq:limiter:ticket:"
_TICKET_LIFE = 24 * 3600
"""Seconds; a job that waits for longer asks again meanwhile. Of use while one is parked, and left
behind only by one that expires or is deleted."""

_FETCH = (resources.files("limiter_arq") / "lua" / "fetch.lua").read_text("utf-8")


class NotFetched(enum.Enum):
    """Why a job was not fetched."""

    GONE = 0
    RUNNING = 2
    NOT_DUE = 3
    NO_FREE_SLOT = 4
    """Redis was not asked: the worker runs as many jobs as it may."""


class Ticket(NamedTuple):
    """The ticket of a job that was parked.

    Attributes:
        id: the store's.
        keys: those on which it waits; the job's function may have others by now, or none.
    """

    id: str
    keys: tuple[str, ...]


class FetchedJob(NamedTuple):
    """A job that is this worker's until it is finished, parked or put back.

    Attributes:
        job_id: arq's.
        score: when it was due.
        raw: the job, serialized; None if it expired.
        life: milliseconds until it expires, below zero if it does not.
        tries: the tries that it has spent.
        aborted: whether its abort was requested.
        ticket: with which it was parked; None if it was not.
    """

    job_id: str
    score: float
    raw: bytes | None
    life: int
    tries: int
    aborted: bool
    ticket: Ticket | None = None

    @property
    def waited_on(self) -> tuple[str, ...]:
        """The keys on which it waited."""
        return () if self.ticket is None else self.ticket.keys


class ParkedJob(NamedTuple):
    """What is needed to bring a parked job forward: the payload of its ticket.

    Attributes:
        queue: the name of its queue.
        job_id: arq's.
        score: its score when it is brought forward.
    """

    queue: str
    job_id: str
    score: int

    def payload(self) -> bytes:
        """Return it as a ticket carries it."""
        return json.dumps(self).encode()

    @classmethod
    def from_payload(cls, payload: bytes) -> ParkedJob:
        """Return what a ticket carried."""
        queue, job_id, score = json.loads(payload)
        return cls(str(queue), str(job_id), int(score))


def is_parked(score: float) -> bool:
    """Whether a score in the queue is that of a parked job."""
    return score % 1 == 0.5


def parked_for(seconds: float) -> float:
    """Return the score of a job that is parked for so long."""
    return timestamp_ms() + max(0, int(seconds * 1000)) + 0.5


class JobQueue:
    """The queue of one worker, in arq's Redis.

    Attributes:
        name: the name of the queue.
    """

    def __init__(self, pool: ArqRedis, name: str) -> None:
        self.name = name
        self._pool: Any = pool  # redis-py's own types leave much open
        self._database = int(self._pool.connection_pool.connection_kwargs.get("db") or 0)
        # On a connection of its own: getting one from redis-py's pool costs more than the command.
        self._connection = self._pool.client()
        self._fetch = self._connection.register_script(_FETCH)

    def _channel_of(self, queue: str) -> str:
        # Channels belong to the server: a queue of this name may be in another of its databases.
        return f"{queue}:limiter-wake:{self._database}"

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._connection.aclose(close_connection_pool=False)

    async def share_redis_id(self, known: str | None = None) -> str:
        """Return the ID of this Redis: all workers read the same, whatever address they use.

        Args:
            known: the ID that was read before: its life is extended.
        """
        new = secrets.token_hex(4) if known is None else known
        await self._pool.set(_REDIS_ID_KEY, new, ex=_REDIS_ID_LIFE, nx=known is None)
        found: bytes = await self._pool.get(_REDIS_ID_KEY)
        return found.decode()

    async def due(self, count: int) -> list[bytes]:
        """Return the ids of up to `count` jobs that are due; running ones are among them."""
        found: list[bytes] = await self._pool.zrangebyscore(
            self.name, min=float("-inf"), max=timestamp_ms(), start=0, num=count
        )
        return found

    async def fetch(
        self,
        jobs: Sequence[tuple[str, int | None]],
        in_progress: float,
        stale_after: float | None = None,
    ) -> list[FetchedJob | NotFetched]:
        """Fetch jobs, all in one step.

        Args:
            jobs: ids, each with its new score, or None to leave it.
            in_progress: seconds after which arq counts a job as abandoned.
            stale_after: seconds after which the adapter does, for jobs that are known not to run;
                None: never.
        """
        keys = [self.name, abort_jobs_ss]
        stale: Any = "" if stale_after is None else int(stale_after * 1000)
        args: list[Any] = [timestamp_ms(), int(in_progress * 1000), stale]
        for job_id, score in jobs:
            prefixes = in_progress_key_prefix, job_key_prefix, retry_key_prefix, _TICKET
            keys += [prefix + job_id for prefix in prefixes]
            args += [job_id, "" if score is None else score]
        replies = await self._fetch(keys=keys, args=args)
        return [_fetched(job_id, reply) for (job_id, _), reply in zip(jobs, replies, strict=True)]

    async def read(self, job_id: str, score: int) -> FetchedJob:
        """Return what `fetch` would, of a job that arq has fetched itself."""
        async with self._pool.pipeline(transaction=True) as pipe:
            pipe.zscore(self.name, job_id)
            pipe.get(job_key_prefix + job_id)
            pipe.pttl(job_key_prefix + job_id)
            pipe.get(retry_key_prefix + job_id)
            pipe.zscore(abort_jobs_ss, job_id)
            pipe.get(_TICKET + job_id)
            pipe.delete(_TICKET + job_id)
            found, *rest, _ = await pipe.execute()
        return _fetched(job_id, [1, found or score, *rest])

    async def put_back(
        self,
        job_id: str,
        score: float,
        life: int | None = None,
        ticket: Ticket | None = None,
    ) -> None:
        """Put back a job that was fetched and not run.

        Args:
            job_id: arq's.
            score: its new score; see `parked_for`.
            life: milliseconds until it expires from now on; None to leave that alone.
            ticket: its ticket, if it has one.
        """
        async with self._pool.pipeline(transaction=True) as pipe:
            # XX: a job that another worker finished meanwhile is not added again.
            pipe.zadd(self.name, {job_id: score}, xx=True)
            pipe.delete(in_progress_key_prefix + job_id)
            if life is not None:
                pipe.pexpire(job_key_prefix + job_id, life)
            if ticket is not None:
                words = json.dumps([ticket.id, *ticket.keys])
                pipe.set(_TICKET + job_id, words, ex=_TICKET_LIFE)
            await pipe.execute()

    async def bring_forward(self, parked: ParkedJob, *, notify: bool) -> bool:
        """Make a parked job due; returns whether it is still there.

        Args:
            parked: the job, of any queue in this Redis.
            notify: whether to notify the workers of its queue, which else find it when they poll.
        """
        async with self._pool.pipeline(transaction=True) as pipe:
            pipe.zadd(parked.queue, {parked.job_id: parked.score}, xx=True)
            pipe.zscore(parked.queue, parked.job_id)
            if notify:
                pipe.publish(self._channel_of(parked.queue), parked.payload())
            _, score, *_ = await pipe.execute()
        return score is not None

    async def subscribe(self) -> AsyncIterator[ParkedJob]:
        """Yield the jobs of this queue that other workers bring forward."""
        pubsub = self._pool.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(self._channel_of(self.name))
            async for message in pubsub.listen():
                yield ParkedJob.from_payload(message["data"])
        finally:
            with suppress(RedisError, OSError):
                await pubsub.aclose()

    async def score(self, job_id: str) -> float | None:
        """Return the score of a job, None if it is gone."""
        found: float | None = await self._pool.zscore(self.name, job_id)
        return found

    async def parked_to_abort(self) -> list[str]:
        """Return the ids of parked jobs whose abort was requested."""
        ids: list[bytes] = await self._pool.zrange(abort_jobs_ss, 0, -1)
        if not ids:
            return []
        async with self._pool.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.zscore(self.name, job_id)
            scores = await pipe.execute()
        return [
            job_id.decode()
            for job_id, score in zip(ids, scores, strict=True)
            if score is not None and is_parked(score)
        ]


def _fetched(job_id: str, reply: Sequence[Any]) -> FetchedJob | Any:
    if reply[0] != 1:
        return NotFetched(reply[0])
    _, score, raw, life, tries, abort, words = reply
    ticket = None
    if words:
        ticket_id, *keys = json.loads(words)
        ticket = Ticket(ticket_id, tuple(keys))
    return FetchedJob(job_id, float(score), raw, life, int(tries or 0), abort is not None, ticket)
