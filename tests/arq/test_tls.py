"""arq's Redis behind TLS: it is the store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from arq.connections import RedisSettings, create_pool
from arq.worker import func

from limiter_arq import limited
from tests.redis._servers import Process
from tests.redis._tls import Authority, TLSFront

from ._local_worker import LocalWorker
from ._tools import ONE


async def test_jobs_wait_for_their_turn_by_tls(server: Process, tmp_path: Path) -> None:
    running: list[int] = []
    most: list[int] = []

    @limited(ONE)
    async def run(ctx: dict[Any, Any], number: int) -> int:
        running.append(number)
        most.append(len(running))
        running.remove(number)
        return number

    authority = Authority(tmp_path)
    with closing(TLSFront(authority, server.port)) as front:
        there = RedisSettings(
            host="127.0.0.1", port=front.port, ssl=True, ssl_ca_certs=str(authority.ca)
        )
        pool = await create_pool(there)
        async with LocalWorker(server.url, [func(run, name="run")], {"redis_settings": there}):
            jobs = [await pool.enqueue_job("run", number) for number in range(3)]
            for number, job in enumerate(jobs):
                assert job is not None
                assert await job.result(timeout=20, poll_delay=0.02) == number
        await pool.aclose()
    assert most == [1, 1, 1]
