"""SAQ's Redis behind TLS: it is the store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from limiter_saq import ConcurrencyLimit, LimitedQueue
from tests.redis._tls import Authority, TLSFront

from .conftest import SaqSetup, until


async def test_jobs_wait_for_their_turn_by_tls(setup: SaqSetup, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server: Any = setup.server
    with closing(TLSFront(authority, server.port)) as front:
        url = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.ca}"
        client: Any = Redis.from_url(url, socket_timeout=None)
        queue = LimitedQueue(client, limits={"job": ConcurrencyLimit("user")})
        for number in range(3):
            await queue.enqueue("job", user=1, name=number)
        worker = setup.work(queue)
        await until("all jobs ran", lambda: len(setup.ran) == 3)
        await until("nothing is left", lambda: not setup.left())
        await worker.stop()
        await queue.disconnect()
    assert setup.most == 1
