"""Traces of a real worker of arq: a job carries no context of its producer."""

from __future__ import annotations

from pathlib import Path

from arq.connections import ArqRedis

from tests._traced_jobs import named, spans_of_two_jobs
from tests.faults._jobs import Framework
from tests.redis._servers import Server

_MODULE = "tests.arq.workers.traced_jobs"
ARQ = Framework(
    _MODULE, ("limiter_arq", f"{_MODULE}.WorkerSettings"), ("limiter_arq", "limiter_redis")
)


async def test_a_wait_is_in_no_trace_of_another_job(
    pool: ArqRedis, server: Server, tmp_path: Path
) -> None:
    """It is in the span of its own run; a slot is taken before that, so there is no link."""

    async def add(name: str) -> None:
        await pool.enqueue_job("work", _job_id=name)

    spans = await spans_of_two_jobs(ARQ, server.url, tmp_path, add)
    (wait,) = named(spans, "wait billing")
    assert wait.parent == named(spans, "job second")[-1].id
    assert wait.links == []
    assert all(span.parent is None for span in spans if span.name.startswith("job "))
