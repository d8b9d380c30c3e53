"""Two deployments whose stores are databases of one server: neither runs tasks of the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis._servers import Process, binary

from ._worker_processes import MakeWorkers


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of another server, for the other deployment's broker and results."""
    program = binary()
    assert program is not None
    server = Process(program)
    yield server.url.removesuffix("/0")
    server.close()


def test_a_task_runs_where_it_was_sent(
    url: str, elsewhere: str, make_workers: MakeWorkers, user: str
) -> None:
    """An operator lets a task run: the workers of the other database are not notified."""
    production = make_workers(concurrency=3)
    staging = make_workers(url=elsewhere, store=f"{url}/5")
    for each in (staging, production):
        each.start()
    holders = [each.send("by_user", user, 3.0) for each in (staging, production)]
    production.until_began(holders[1])
    staging.until_began(holders[0])
    waiting = production.send("by_user", user)
    production.until(lambda: production.limiter.inspect(f"user={user}").waiting == 1, "it waits")
    production.limiter.set_limit(f"user={user}", 2)
    production.until_ended(waiting)
    last = staging.send("free")  # it would have run what it was notified of by then
    staging.until_ended(last, holders[0])
    assert {each["id"] for each in staging.log()} == {holders[0].id, last.id}
    assert len(production.log("begin", waiting.id)) == 1
    production.until_ended(holders[1])
    production.limiter.reset_limit(f"user={user}")
