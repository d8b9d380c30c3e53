"""A call for a client ends when the client is gone while it waits, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from limiter_core import LIMIT_BY, ArgumentView, ConcurrencyLimit, Lease, Limiter
from limiter_core.store import Store
from limiter_core.streams import ClientGone, hold_for_client, runner_for_clients
from limiter_memory import MemoryStore

from ._stores import RemoteStore
from ._tools import until

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


class Client:
    """A client that is gone when the test says so."""

    def __init__(self) -> None:
        self.is_gone = False
        self.seen: list[str] = []
        self.wake: Callable[[], object] = lambda: None

    def begin_waiting(self, wake: Callable[[], object]) -> None:
        self.seen.append("waits")
        self.wake = wake

    def end_waiting(self) -> None:
        self.seen.append("has its slot")

    def leave(self) -> None:
        self.is_gone = True
        self.wake()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def hold(store: Store, client: Client) -> None:
    async with hold_for_client(Limiter(store), ONE, None, client):
        client.seen.append("runs")


async def test_without_waiting_the_client_is_not_asked(store: MemoryStore) -> None:
    client = Client()
    client.is_gone = True
    await hold(store, client)
    assert client.seen == ["runs"]


async def test_after_waiting_it_runs(store: MemoryStore) -> None:
    client = Client()
    async with Limiter(store).hold(ONE):
        task = asyncio.create_task(hold(store, client))
        await until(lambda: bool(client.seen), "it waits")
    await task
    assert client.seen == ["waits", "has its slot", "runs"]


async def test_a_client_that_is_gone_leaves_the_line(store: MemoryStore) -> None:
    client = Client()
    async with Limiter(store).hold(ONE):
        task = asyncio.create_task(hold(store, client))
        await until(lambda: bool(client.seen), "it waits")
        client.leave()
        with pytest.raises(ClientGone):
            await task
        assert store.inspect("one").waiting == 0
    assert client.seen == ["waits"]


@pytest.mark.parametrize("first", ["the slot", "the client"])
async def test_a_slot_that_comes_as_the_client_leaves_is_given_back(
    store: MemoryStore, first: str
) -> None:
    client = Client()
    async with Limiter(store).hold(ONE):
        task = asyncio.create_task(hold(store, client))
        await until(lambda: bool(client.seen), "it waits")
        if first == "the client":
            client.leave()
    assert store.inspect("one").in_use == 1  # it was handed over, and the task has not run since
    client.leave()
    with pytest.raises(ClientGone):
        await task
    assert client.seen == ["waits"]
    assert store.inspect("one").in_use == 0


async def test_a_client_that_leaves_while_the_store_answers_is_not_served() -> None:
    store, client = RemoteStore(steps=3, hints_only=True), Client()
    lease = await Limiter(store).acquire(ONE)
    task = asyncio.create_task(hold(store, client))
    await until(lambda: bool(client.seen), "it waits")
    asked = store.asked
    await lease.release()
    for _ in range(100):
        if store.asked > asked:
            break
        await asyncio.sleep(0)
    client.leave()
    with pytest.raises(ClientGone):
        await task
    assert store.asked == asked + 1
    assert client.seen == ["waits"]
    assert store.inner.inspect("one").in_use == 0


async def test_a_body_that_is_awaited_for_a_client_has_the_lease(store: MemoryStore) -> None:
    client = Client()

    run = runner_for_clients(Limiter(store), ONE, "a test")

    async def body(lease: Lease) -> str:
        client.seen.append("runs")
        assert store.inspect("one").holders[0].id == lease.id
        return "its result"

    async with Limiter(store).hold(ONE):
        task = asyncio.create_task(run(ArgumentView({}), body, client=client))
        await until(lambda: bool(client.seen), "it waits")
    assert await task == "its result"
    assert client.seen == ["waits", "has its slot", "runs"]
    assert store.inspect("one").in_use == 0
    client.seen.clear()
    async with Limiter(store).hold(ONE):
        task = asyncio.create_task(run(ArgumentView({}), body, client=client))
        await until(lambda: bool(client.seen), "it waits")
        client.leave()
        with pytest.raises(ClientGone):
            await task
    assert client.seen == ["waits"]
