"""Traces of a real `saq` worker: a job carries no context of its producer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from limiter_saq import ConcurrencyLimit, LimitedQueue
from tests._traced_jobs import STRATEGY, named, spans_of_two_jobs
from tests.faults._jobs import Framework
from tests.redis._servers import Server

_MODULE = "tests.saq.workers.traced_jobs"
SAQ = Framework(
    _MODULE, ("saq", f"{_MODULE}.settings", "-v"), ("saq.worker", "limiter_saq", "limiter_redis")
)


async def test_a_wait_is_in_no_trace_of_another_job(server: Server, tmp_path: Path) -> None:
    """A slot is taken before the job runs, and so in no span: its wait is a root."""
    client: Any = Redis.from_url(server.url, socket_timeout=None)
    queue = LimitedQueue(client, limits={"work": ConcurrencyLimit(STRATEGY, 1, name="billing")})

    async def add(name: str) -> None:
        await queue.enqueue("work", key=name, timeout=0)

    try:
        spans = await spans_of_two_jobs(SAQ, server.url, tmp_path, add)
    finally:
        await queue.disconnect()
    (wait,) = named(spans, "wait billing")
    assert (wait.parent, wait.links) == (None, [])
    assert all(span.parent is None for span in spans)
