"""`AsyncLimitedTransport`: a slot from the request to the end of the response's body."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import anyio
import pytest

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    KeyDerivationError,
    Limiter,
    SyncLimiter,
    events,
)
from tests.core._tools import PATIENCE, until, until_waiting
from tests.http_clients._server import Server
from tests.http_clients.conftest import ONE, Client

# trio says it of each generator that is not exhausted, and the clients leave theirs so.
DROPPED = pytest.mark.filterwarnings("ignore::ResourceWarning")


async def test_the_slot_is_held_until_the_body_is_read(client: Client, server: Server) -> None:
    async with client.asynchronous() as http, http.stream("GET", f"{server.url}/drip") as response:
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"first"
        assert client.in_use() == 1
        server.let_go()
        assert [chunk async for chunk in chunks] == [b"last"]
        assert client.in_use() == 0  # at the end of the body, not of the block


async def test_a_whole_answer(client: Client, server: Server) -> None:
    async with client.asynchronous() as http:
        response = await http.get(f"{server.url}/whole")
        assert response.text == "whole"
        assert client.in_use() == 0


@DROPPED
async def test_a_response_that_is_closed_half_read(client: Client, server: Server) -> None:
    async with client.asynchronous() as http:
        async with http.stream("GET", f"{server.url}/drip") as response:
            chunks = response.aiter_bytes()
            assert await anext(chunks) == b"first"
            assert client.in_use() == 1
        assert client.in_use() == 0


async def test_a_response_that_is_closed_unread(client: Client, server: Server) -> None:
    async with client.asynchronous() as http:
        async with http.stream("GET", f"{server.url}/drip"):
            assert client.in_use() == 1
        assert client.in_use() == 0


async def test_a_waiting_request_has_no_connection(client: Client, server: Server) -> None:
    async with (
        client.asynchronous() as http,
        anyio.create_task_group() as tasks,
        http.stream("GET", f"{server.url}/drip"),
    ):
        tasks.start_soon(http.get, f"{server.url}/whole")
        await until_waiting(client.store, "one", 1)
        assert server.connections == 1
        assert server.requests == ["GET /drip"]


async def test_many_requests_stay_within_the_limit(client: Client, server: Server) -> None:
    two = ConcurrencyLimit("host", max_concurrent=2)
    async with (
        client.asynchronous(two, timeout=PATIENCE) as http,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(6):
            tasks.start_soon(http.get, f"{server.url}/stall")
        await until_waiting(client.store, "host=127.0.0.1", 4)
        await until(lambda: server.in_flight == 2, "the server has two requests")
        server.let_go()
    assert server.most_in_flight == 2
    assert len(server.requests) == 6


async def test_connections_are_kept_alive(client: Client, server: Server) -> None:
    async with client.asynchronous() as http:
        for _ in range(3):
            await http.get(f"{server.url}/whole")
        async with http.stream("GET", f"{server.url}/drip") as response:
            server.let_go()
            await response.aread()
        await http.get(f"{server.url}/whole")
    assert server.connections == 1


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("GET", "/empty"), ("GET", "/none")])
async def test_a_response_without_a_body_releases_at_once(
    client: Client, server: Server, method: str, path: str
) -> None:
    async with (
        client.asynchronous() as http,
        http.stream(method, server.url + path) as response,
    ):
        assert client.in_use() == 0
        assert await response.aread() == b""


async def test_a_response_that_is_made_with_its_content(client: Client) -> None:
    class Cache(client.module.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            return client.module.Response(200, content=b"kept", request=request)

    transport = client.adapter.AsyncLimitedTransport(Limiter(client.store), ONE, Cache())
    async with (
        client.module.AsyncClient(transport=transport) as http,
        http.stream("GET", "http://kept.example/") as response,
    ):
        assert client.in_use() == 0
        assert await response.aread() == b"kept"


# -- refusals --------------------------------------------------------------------------------------


async def test_the_pool_timeout_bounds_the_wait(client: Client, server: Server) -> None:
    timeout = client.module.Timeout(PATIENCE, pool=0.01)
    async with (
        client.asynchronous(timeout=timeout) as http,
        http.stream("GET", f"{server.url}/drip"),
    ):
        with pytest.raises(client.module.PoolTimeout) as caught:
            await http.get(f"{server.url}/whole")
    assert isinstance(caught.value, limiter_core.WaitTimeout)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.key == "one"
    assert caught.value.request.url.path == "/whole"
    assert str(caught.value) == "timed out waiting for 'one': 1 of 1 slots in use"
    assert server.requests == ["GET /drip"]


@pytest.mark.parametrize("own", [{"on_conflict": "cancel"}, {"max_waiting": 0}])
async def test_a_refusal_is_the_clients_timeout(
    client: Client, server: Server, own: dict[str, Any]
) -> None:
    kind = limiter_core.QueueFull if "max_waiting" in own else limiter_core.LimitReached
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, **own)
    async with client.asynchronous(limit) as http, http.stream("GET", f"{server.url}/drip"):
        with pytest.raises(client.module.TimeoutException) as caught:
            await http.get(f"{server.url}/whole")
    assert isinstance(caught.value, kind)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    assert copy.in_use == 1
    assert copy.request.url == f"{server.url}/whole"


async def test_an_operator_who_ends_the_waiting(client: Client, server: Server) -> None:
    async with client.asynchronous() as http, http.stream("GET", f"{server.url}/drip"):

        async def evict() -> None:
            await until_waiting(client.store, "one", 1)
            (waiter,) = client.store.inspect("one").waiters
            await Limiter(client.store).evict_waiter(waiter.id)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(evict)
            with pytest.raises(limiter_core.Evicted) as caught:
                await http.get(f"{server.url}/whole")
    assert isinstance(caught.value, client.module.PoolTimeout)


# -- other ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/stall", "/drip"])
async def test_a_read_timeout(client: Client, server: Server, path: str) -> None:
    async with client.asynchronous(timeout=client.module.Timeout(PATIENCE, read=0.05)) as http:
        with pytest.raises(client.module.ReadTimeout):
            await http.get(server.url + path)
        assert client.in_use() == 0


@pytest.mark.parametrize("path", ["/stall", "/drip"])
async def test_a_cancelled_request(client: Client, server: Server, path: str) -> None:
    async with client.asynchronous(timeout=PATIENCE) as http:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(http.get, server.url + path)
            await until(lambda: server.in_flight == 1, "the server has the request")
            tasks.cancel_scope.cancel()
        assert client.in_use() == 0


async def test_a_request_that_is_cancelled_while_it_waits(client: Client, server: Server) -> None:
    async with client.asynchronous() as http, http.stream("GET", f"{server.url}/drip"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(http.get, f"{server.url}/whole")
            await until_waiting(client.store, "one", 1)
            tasks.cancel_scope.cancel()
        assert client.store.inspect("one").waiting == 0


async def test_a_server_that_is_not_there(client: Client) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        async with client.asynchronous() as http:
            with pytest.raises(client.module.ConnectError):
                await http.get(f"http://127.0.0.1:{bound.getsockname()[1]}/")
            assert client.in_use() == 0


async def test_a_connection_that_breaks(client: Client, server: Server) -> None:
    server.failures = 1
    async with client.asynchronous() as http:
        with pytest.raises(client.module.RemoteProtocolError):
            await http.get(f"{server.url}/flaky")
        assert client.in_use() == 0


@DROPPED
@pytest.mark.parametrize("begun", [False, True], ids=["unread", "half read"])
async def test_a_response_that_is_dropped(client: Client, server: Server, begun: bool) -> None:
    async with client.asynchronous() as http:
        request = http.build_request("GET", f"{server.url}/drip")
        response = await http.send(request, stream=True)
        if begun:
            chunks = response.aiter_bytes()
            assert await anext(chunks) == b"first"
            del chunks
        del response
        await until(client.collected(), "the slot of the dropped response is free")


@DROPPED
async def test_a_client_that_is_dropped_with_its_response(client: Client, server: Server) -> None:
    http = client.asynchronous()
    response = await http.send(http.build_request("GET", f"{server.url}/drip"), stream=True)
    assert client.in_use() == 1
    del http, response
    await until(client.collected(), "the slot of the dropped response is free")


async def test_a_response_that_is_closed_by_another_task(client: Client, server: Server) -> None:
    async with client.asynchronous(timeout=PATIENCE) as http:
        response = await http.send(http.build_request("GET", f"{server.url}/drip"), stream=True)
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"first"

        async def read() -> None:
            with pytest.raises((client.module.ReadError, anyio.ClosedResourceError)):
                await anext(chunks)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await response.aclose()
        assert client.in_use() == 0


@DROPPED
async def test_a_closed_body_does_not_look_complete(client: Client, server: Server) -> None:
    async with client.asynchronous() as http:
        response = await http.send(http.build_request("GET", f"{server.url}/drip"), stream=True)
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"first"
        await response.aclose()
        with pytest.raises(client.module.StreamClosed):
            await anext(chunks)


# -- lost leases -----------------------------------------------------------------------------------


async def test_a_lost_lease_ends_the_reading(client: Client, server: Server) -> None:
    async with client.asynchronous() as http, http.stream("GET", f"{server.url}/drip") as response:
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"first"
        (holder,) = client.store.inspect("one").holders
        await Limiter(client.store).evict(holder.id)
        server.let_go()
        with pytest.raises(limiter_core.LeaseLost) as caught:
            await anext(chunks)
    assert isinstance(caught.value, client.module.ReadError)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.keys) == (type(caught.value), ("one",))


# On trio a scope cannot span the steps of a stream: there it is the next chunk that ends it.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("path", ["/stall", "/drip"])
async def test_a_newer_request_preempts_one_that_is_on_its_way(
    client: Client, server: Server, path: str
) -> None:
    newest = ConcurrencyLimit(
        LIMIT_BY.constant("one"), 1, on_conflict=ConflictResolution.CANCEL_RUNNING
    )
    caught: list[BaseException] = []
    async with client.asynchronous(newest, timeout=PATIENCE) as http:

        async def older() -> None:
            with pytest.raises(limiter_core.Preempted) as error:
                await http.get(server.url + path)
            caught.append(error.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(older)
            await until(lambda: server.in_flight == 1, "the server has the request")
            await anyio.wait_all_tasks_blocked()
            response = await http.get(f"{server.url}/whole")
            assert response.text == "whole"
    assert isinstance(caught[0], client.module.ReadError)


# -- what strategies and observers see -------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("host", "host=127.0.0.1"),
        ("method", "method=GET"),
        ("path", "path=%2Fdrip"),
        ("scheme", "scheme=http"),
        ("headers.X-Tenant", "headers.X-Tenant=acme"),
        ("headers.x-tenant", "headers.x-tenant=acme"),
    ],
)
async def test_a_limit_by_what_a_request_is(
    client: Client, server: Server, argument: str, key: str
) -> None:
    async with client.asynchronous(ConcurrencyLimit(argument, 1)) as http:
        headers = {"x-TENANT": "acme"}
        async with http.stream("GET", f"{server.url}/drip", headers=headers):
            assert list(client.store.keys()) == [key]


async def test_a_header_that_a_request_does_not_have(client: Client, server: Server) -> None:
    async with client.asynchronous(ConcurrencyLimit("headers.x-tenant", 1)) as http:
        with pytest.raises(KeyDerivationError, match=r"'headers' is a .* without 'x-tenant'"):
            await http.get(f"{server.url}/whole")
    assert server.requests == []


async def test_events_say_which_client_it_is(client: Client, server: Server) -> None:
    seen: list[events.Event] = []
    limiter = Limiter(client.store, observe=seen.append)
    inside = client.module.AsyncHTTPTransport(verify=False)
    transport = client.adapter.AsyncLimitedTransport(limiter, ONE, inside)
    async with client.module.AsyncClient(transport=transport) as http:
        await http.get(f"{server.url}/whole")
    assert [type(event) for event in seen] == [events.Granted, events.Released]
    assert {event.adapter for event in seen} == {client.module.__name__}


async def test_what_is_no_limiter_is_refused(client: Client) -> None:
    transport = client.adapter.AsyncLimitedTransport
    with pytest.raises(ConfigurationError, match="AsyncLimitedTransport needs a Limiter"):
        transport(SyncLimiter(client.store), ONE)
    with pytest.raises(ConfigurationError, match="AsyncLimitedTransport needs a Concurrency"):
        transport(Limiter(client.store), "one")
