"""`LimitMiddleware` of `limiter_aiohttp`: a slot from the request to the end of its response."""

from __future__ import annotations

import asyncio
import gc
import pickle
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import aiohttp.web
import pytest

import limiter_core
from limiter_aiohttp import LimitMiddleware
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
from limiter_memory import MemoryStore
from tests.core._tools import PATIENCE, until, until_now, until_waiting
from tests.http_clients._server import Server
from tests.http_clients.conftest import ONE

FREE = "the slot is free"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def session(store: MemoryStore) -> Callable[..., aiohttp.ClientSession]:
    def session(limits: Any = ONE, **options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            middlewares=[LimitMiddleware(Limiter(store), limits)], **options
        )

    return session


def in_use(store: MemoryStore) -> int:
    return store.inspect("one").in_use


Sessions = Callable[..., aiohttp.ClientSession]


async def test_the_slot_is_held_until_the_body_has_come(
    session: Sessions, server: Server, store: MemoryStore
) -> None:
    async with session() as http, http.get(f"{server.url}/drip") as response:
        assert await response.content.readany() == b"first"
        assert in_use(store) == 1
        server.let_go()
        assert await response.content.read() == b"last"
        await until(lambda: in_use(store) == 0, FREE)  # before the end of the block


@pytest.mark.parametrize("path", ["/whole", "/empty", "/none"])
async def test_a_whole_answer(
    session: Sessions, server: Server, store: MemoryStore, path: str
) -> None:
    async with session() as http, http.get(server.url + path) as response:
        await response.read()
        await until(lambda: in_use(store) == 0, FREE)
        async with http.head(server.url):
            await until(lambda: in_use(store) == 0, FREE)


@pytest.mark.parametrize("begun", [False, True], ids=["unread", "half read"])
async def test_a_response_that_is_closed(
    session: Sessions, server: Server, store: MemoryStore, begun: bool
) -> None:
    async with session() as http:
        async with http.get(f"{server.url}/drip") as response:
            if begun:
                assert await response.content.readany() == b"first"
            assert in_use(store) == 1
        await until(lambda: in_use(store) == 0, FREE)


FULL_IS_REFUSED = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, on_conflict="cancel")


async def test_the_next_request_finds_the_slot_free(session: Sessions, server: Server) -> None:
    """Whatever ended the response before it; no step of the event loop lies between them."""
    async with session(FULL_IS_REFUSED) as http:
        async with http.get(f"{server.url}/drip"):
            pass
        (await http.get(f"{server.url}/drip")).close()
        async with http.get(f"{server.url}/drip") as response:
            server.let_go()
            await response.read()
        async with http.head(server.url):
            pass
        async with http.get(f"{server.url}/whole") as response:
            assert await response.text() == "whole"


async def test_a_redirect_takes_one_slot_after_the_other(session: Sessions, server: Server) -> None:
    async def redirect(_: Server, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 302 Found\r\nLocation: /whole\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"5\r\nfirst\r\n")  # and its end does not come

    server.answers["/moved"] = redirect
    async with session(FULL_IS_REFUSED) as http, http.get(f"{server.url}/moved") as response:
        assert await response.text() == "whole"


@pytest.mark.parametrize("closed_in", ["the new thread", "the old thread"])
def test_an_event_loop_that_runs_in_another_thread_by_then(
    session: Sessions, server: Server, store: MemoryStore, closed_in: str
) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[aiohttp.ClientSession, aiohttp.ClientResponse]:
        http = session()
        return http, await http.get(f"{server.url}/drip")

    async def close(something: Any) -> None:
        done = something.close()
        if done is not None:
            await done

    http, response = loop.run_until_complete(begin())
    with ThreadPoolExecutor(1) as thread:
        thread.submit(loop.run_forever)
        try:
            until_now(loop.is_running, "it runs")
            if closed_in == "the old thread":
                response.close()
            else:
                asyncio.run_coroutine_threadsafe(close(response), loop).result(PATIENCE)
            until_now(lambda: in_use(store) == 0, FREE)
        finally:
            asyncio.run_coroutine_threadsafe(close(http), loop).result(PATIENCE)
            loop.call_soon_threadsafe(loop.stop)
    loop.close()


async def test_a_waiting_request_has_no_connection(
    session: Sessions, server: Server, store: MemoryStore
) -> None:
    async with session() as http, asyncio.TaskGroup() as tasks:
        async with http.get(f"{server.url}/drip"):
            waiter = tasks.create_task(http.get(f"{server.url}/whole"))
            await until_waiting(store, "one", 1)
            assert server.connections == 1
        assert await (await waiter).text() == "whole"


async def test_many_requests_stay_within_the_limit(
    session: Sessions, server: Server, store: MemoryStore
) -> None:
    two = ConcurrencyLimit("host", max_concurrent=2)

    async def read() -> str:
        async with http.get(f"{server.url}/stall") as response:
            return await response.text()

    async with session(two) as http, asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(read()) for _ in range(6)]
        await until_waiting(store, "host=127.0.0.1", 4)
        await until(lambda: server.in_flight == 2, "the server has two requests")
        server.let_go()
    assert [task.result() for task in reads] == ["last"] * 6
    assert server.most_in_flight == 2


@pytest.mark.parametrize("own", [{"timeout": 0.01}, {"on_conflict": "cancel"}, {"max_waiting": 0}])
async def test_a_refusal_is_the_clients_timeout(
    session: Sessions, server: Server, own: dict[str, Any]
) -> None:
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, **own)
    async with session(limit) as http, http.get(f"{server.url}/drip"):
        with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
            await http.get(f"{server.url}/whole")
    assert isinstance(caught.value, limiter_core.LimitReached)
    assert isinstance(caught.value, limiter_core.WaitTimeout) == ("timeout" in own)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.key) == (type(caught.value), str(caught.value), "one")
    assert server.requests == ["GET /drip"]


@pytest.mark.parametrize("path", ["/stall", "/drip"])
@pytest.mark.parametrize("kind", ["total", "sock_read"])
async def test_a_timeout(
    session: Sessions, server: Server, store: MemoryStore, path: str, kind: str
) -> None:
    async with session(timeout=aiohttp.ClientTimeout(**{kind: 0.1})) as http:
        with pytest.raises(TimeoutError):
            async with http.get(server.url + path) as response:
                await response.read()
        await until(lambda: in_use(store) == 0, FREE)


async def test_a_timeout_while_it_waits(
    session: Sessions, server: Server, store: MemoryStore
) -> None:
    async with session() as http, http.get(f"{server.url}/drip"):
        with pytest.raises(TimeoutError):
            await http.get(f"{server.url}/whole", timeout=aiohttp.ClientTimeout(total=0.05))
        assert store.inspect("one").waiting == 0


@pytest.mark.parametrize("path", ["/stall", "/drip"])
async def test_a_cancelled_request(
    session: Sessions, server: Server, store: MemoryStore, path: str
) -> None:
    async def read() -> None:
        async with http.get(server.url + path) as response:
            await response.read()

    async with session() as http:
        task = asyncio.create_task(read())
        await until(lambda: server.in_flight == 1, "the server has the request")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: in_use(store) == 0, FREE)


async def test_a_request_that_is_cancelled_at_any_step(
    session: Sessions, server: Server, store: MemoryStore
) -> None:
    """Also at the moment at which its answer comes."""
    async with session() as http:
        for steps in range(60):
            task = asyncio.create_task(http.get(f"{server.url}/drip"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, aiohttp.ClientResponse):
                result.close()
            await until(lambda: in_use(store) == 0, FREE)


async def test_a_server_that_is_not_there(session: Sessions, store: MemoryStore) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        async with session() as http:
            with pytest.raises(aiohttp.ClientConnectorError):
                await http.get(f"http://127.0.0.1:{bound.getsockname()[1]}/")
            assert in_use(store) == 0


@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
@pytest.mark.parametrize("end", ["the server", "the session"])
async def test_a_response_that_is_dropped(
    session: Sessions, server: Server, store: MemoryStore, end: str
) -> None:
    """(aiohttp refers to it as long as its connection is open.)"""
    async with session() as http:
        response = await http.get(f"{server.url}/drip")
        del response
        gc.collect()
        assert in_use(store) == 1
        if end == "the server":
            server.let_go()
            await until(lambda: in_use(store) == 0, FREE)
    await until(lambda: gc.collect() >= 0 and in_use(store) == 0, FREE)


async def test_a_lost_lease_ends_the_reading(
    session: Sessions, server: Server, store: MemoryStore
) -> None:
    async with session() as http, http.get(f"{server.url}/drip") as response:
        assert await response.content.readany() == b"first"
        (holder,) = store.inspect("one").holders
        reading = asyncio.ensure_future(response.content.read())
        await Limiter(store).evict(holder.id)
        with pytest.raises(limiter_core.LeaseLost) as caught:
            await reading
    assert isinstance(caught.value, aiohttp.ClientPayloadError)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)


async def test_a_newer_request_preempts_one_that_is_on_its_way(
    session: Sessions, server: Server
) -> None:
    newest = ConcurrencyLimit(
        LIMIT_BY.constant("one"), 1, on_conflict=ConflictResolution.CANCEL_RUNNING
    )
    async with session(newest) as http:
        older = asyncio.ensure_future(http.get(f"{server.url}/stall"))
        await until(lambda: server.in_flight == 1, "the server has the request")
        async with http.get(f"{server.url}/whole") as response:
            assert await response.text() == "whole"
        with pytest.raises(limiter_core.Preempted):
            await older


async def test_what_strategies_and_observers_see(server: Server, store: MemoryStore) -> None:
    seen: list[events.Event] = []
    limit = ConcurrencyLimit(["host", "method", "path", "scheme", "headers.x-tenant"], 1)
    middleware = LimitMiddleware(Limiter(store, observe=seen.append), limit)
    async with aiohttp.ClientSession(middlewares=[middleware]) as http:
        async with http.get(f"{server.url}/drip?x=1", headers={"X-Tenant": "acme"}):
            (key,) = store.keys()
        await until(lambda: len(seen) == 2, "it is released")
    assert key == "host=127.0.0.1,method=GET,path=%2Fdrip,scheme=http,headers.x-tenant=acme"
    assert {event.adapter for event in seen} == {"aiohttp"}


async def test_a_header_that_a_request_does_not_have(session: Sessions, server: Server) -> None:
    async with session(ConcurrencyLimit("headers.x-tenant", 1)) as http:
        with pytest.raises(KeyDerivationError, match=r"'headers' is a .* without 'x-tenant'"):
            await http.get(server.url)


async def test_a_websocket_holds_its_slot_until_it_is_closed(
    session: Sessions, store: MemoryStore
) -> None:
    async def echo(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(echo))
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with session() as http:
        async with http.ws_connect(f"http://127.0.0.1:{port}/") as websocket:
            await websocket.send_str("hello")
            assert (await websocket.receive_str(timeout=PATIENCE)) == "hello"
            assert in_use(store) == 1
        await until(lambda: in_use(store) == 0, FREE)
    await runner.cleanup()


async def test_what_is_no_limiter_is_refused(store: MemoryStore) -> None:
    limiter: Any = SyncLimiter(store)
    with pytest.raises(ConfigurationError, match="LimitMiddleware needs a Limiter"):
        LimitMiddleware(limiter, ONE)


async def test_a_limit_by_what_no_request_has_is_refused_at_once(store: MemoryStore) -> None:
    with pytest.raises(ConfigurationError, match="'hots', which a request does not have"):
        LimitMiddleware(Limiter(store), ConcurrencyLimit("hots"))
