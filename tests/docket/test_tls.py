"""A docket behind TLS: its own Redis is the store."""

# ruff: noqa: B008

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from docket import Docket

from limiter_docket import ConcurrencyLimit
from tests.docket._tools import TaskRecord, finish, most_at_once
from tests.redis._servers import Server
from tests.redis._tls import Authority, TLSFront


async def test_tasks_wait_for_their_turn_by_tls(server: Server, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    record = TaskRecord()

    async def bill(
        customer_id: int, c: ConcurrencyLimit = ConcurrencyLimit("customer_id", max_concurrent=1)
    ) -> None:
        await record.body(c.concurrency_key)

    with closing(TLSFront(authority, port)) as front:
        url = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.ca}"
        async with Docket(name="tls", url=url) as docket:
            for _ in range(3):
                await docket.add(bill)(customer_id=7)
            await finish(docket)
    assert len(record.began) == 3
    assert most_at_once(record.bodies) == 1
