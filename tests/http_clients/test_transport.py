"""`LimitedTransport`: as the async one, for threads."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import pytest

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    SyncLimiter,
    events,
)
from tests.core._tools import PATIENCE, Thread, until_now, until_waiting_now
from tests.http_clients._server import Server
from tests.http_clients.conftest import ONE, Client


def test_the_slot_is_held_until_the_body_is_read(client: Client, server: Server) -> None:
    with client.threaded() as http, http.stream("GET", f"{server.url}/drip") as response:
        chunks = response.iter_bytes()
        assert next(chunks) == b"first"
        assert client.in_use() == 1
        server.let_go()
        assert list(chunks) == [b"last"]
        assert client.in_use() == 0


def test_a_whole_answer(client: Client, server: Server) -> None:
    with client.threaded() as http:
        assert http.get(f"{server.url}/whole").text == "whole"
        assert client.in_use() == 0


@pytest.mark.parametrize("begun", [False, True], ids=["unread", "half read"])
def test_a_response_that_is_closed(client: Client, server: Server, begun: bool) -> None:
    with client.threaded() as http:
        with http.stream("GET", f"{server.url}/drip") as response:
            chunks = response.iter_bytes()
            if begun:
                assert next(chunks) == b"first"
            assert client.in_use() == 1
        assert client.in_use() == 0


def test_a_waiting_request_has_no_connection(client: Client, server: Server) -> None:
    with client.threaded(timeout=PATIENCE) as http:
        with http.stream("GET", f"{server.url}/drip"):
            waiter = Thread(http.get, f"{server.url}/whole")
            until_waiting_now(client.store, "one", 1)
            assert server.connections == 1
        assert waiter.result().text == "whole"


def test_connections_are_kept_alive(client: Client, server: Server) -> None:
    with client.threaded() as http:
        for _ in range(3):
            http.get(f"{server.url}/whole")
    assert server.connections == 1


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("GET", "/empty"), ("GET", "/none")])
def test_a_response_without_a_body_releases_at_once(
    client: Client, server: Server, method: str, path: str
) -> None:
    with client.threaded() as http, http.stream(method, server.url + path) as response:
        assert client.in_use() == 0
        assert response.read() == b""


def test_a_response_that_is_made_with_its_content(client: Client) -> None:
    class Cache(client.module.BaseTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> Any:
            return client.module.Response(200, content=b"kept", request=request)

    transport = client.adapter.LimitedTransport(SyncLimiter(client.store), ONE, Cache())
    with (
        client.module.Client(transport=transport) as http,
        http.stream("GET", "http://kept.example/") as response,
    ):
        assert client.in_use() == 0
        assert response.read() == b"kept"


def test_the_pool_timeout_bounds_the_wait(client: Client, server: Server) -> None:
    timeout = client.module.Timeout(PATIENCE, pool=0.01)
    with (
        client.threaded(timeout=timeout) as http,
        http.stream("GET", f"{server.url}/drip"),
        pytest.raises(client.module.PoolTimeout) as caught,
    ):
        http.get(f"{server.url}/whole")
    assert isinstance(caught.value, limiter_core.WaitTimeout)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.key) == (type(caught.value), "one")
    assert copy.request.url.path == "/whole"


def test_a_refusal_is_the_clients_timeout(client: Client, server: Server) -> None:
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, on_conflict="cancel")
    with (
        client.threaded(limit) as http,
        http.stream("GET", f"{server.url}/drip"),
        pytest.raises(client.module.TimeoutException) as caught,
    ):
        http.get(f"{server.url}/whole")
    assert type(caught.value).__bases__[0] is limiter_core.LimitReached


@pytest.mark.parametrize("path", ["/stall", "/drip"])
def test_a_read_timeout(client: Client, server: Server, path: str) -> None:
    with client.threaded(timeout=client.module.Timeout(PATIENCE, read=0.05)) as http:
        with pytest.raises(client.module.ReadTimeout):
            http.get(server.url + path)
        assert client.in_use() == 0


def test_a_server_that_is_not_there(client: Client) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        with client.threaded() as http:
            with pytest.raises(client.module.ConnectError):
                http.get(f"http://127.0.0.1:{bound.getsockname()[1]}/")
            assert client.in_use() == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the socket
@pytest.mark.parametrize("begun", [False, True], ids=["unread", "half read"])
@pytest.mark.parametrize("with_client", [False, True], ids=["response", "with its client"])
def test_what_is_dropped(client: Client, server: Server, begun: bool, with_client: bool) -> None:
    http = client.threaded()
    kept = None if with_client else http
    response = http.send(http.build_request("GET", f"{server.url}/drip"), stream=True)
    chunks = response.iter_raw()
    if begun:
        assert next(chunks) == b"first"
    assert client.in_use() == 1
    del http, response, chunks
    until_now(client.collected(), "the slot of the dropped response is free")
    if kept is not None:
        kept.close()


def test_a_response_that_is_closed_by_another_thread(client: Client, server: Server) -> None:
    with (
        client.threaded(timeout=PATIENCE) as http,
        http.stream("GET", f"{server.url}/drip") as response,
    ):
        chunks = response.iter_bytes()
        assert next(chunks) == b"first"
        Thread(response.close).result()
        assert client.in_use() == 0
        with pytest.raises(client.module.StreamClosed):
            next(chunks)


def test_a_lost_lease_ends_the_reading(client: Client, server: Server) -> None:
    with client.threaded() as http, http.stream("GET", f"{server.url}/drip") as response:
        chunks = response.iter_bytes()
        assert next(chunks) == b"first"
        (holder,) = client.store.inspect("one").holders
        SyncLimiter(client.store).evict(holder.id)
        with pytest.raises(limiter_core.LeaseLost) as caught:
            next(chunks)
    assert isinstance(caught.value, client.module.ReadError)


def test_a_limit_by_what_a_request_is(client: Client, server: Server) -> None:
    with (
        client.threaded(ConcurrencyLimit(["host", "headers.x-tenant"], 1)) as http,
        http.stream("GET", f"{server.url}/drip", headers={"X-Tenant": "acme"}),
    ):
        assert list(client.store.keys()) == ["host=127.0.0.1,headers.x-tenant=acme"]


def test_events_say_which_client_it_is(client: Client, server: Server) -> None:
    seen: list[events.Event] = []
    limiter = SyncLimiter(client.store, observe=seen.append)
    with client.module.Client(transport=client.adapter.LimitedTransport(limiter, ONE)) as http:
        http.get(f"{server.url}/whole")
    assert [type(event) for event in seen] == [events.Granted, events.Released]
    assert {event.adapter for event in seen} == {client.module.__name__}


def test_what_is_no_limiter_is_refused(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="LimitedTransport needs a SyncLimiter"):
        client.adapter.LimitedTransport(Limiter(client.store), ONE)
    with pytest.raises(ConfigurationError, match="LimitedTransport needs a ConcurrencyLimit"):
        client.adapter.LimitedTransport(SyncLimiter(client.store), [])


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (ConcurrencyLimit("hots"), "'hots', which a request does not have; there are: host"),
        (ConcurrencyLimit(["host", "user.id"]), "'user', which a request does not have"),
        (ConcurrencyLimit("host", fair_by="tenant"), "'tenant'"),
        (ConcurrencyLimit(max_concurrent=5), "needs a function, and a request has none"),
        (ConcurrencyLimit(LIMIT_BY.fn_name & LIMIT_BY.fn_argument("host")), "needs a function"),
    ],
)
def test_a_limit_by_what_no_request_has_is_refused_at_once(
    client: Client, limit: ConcurrencyLimit, message: str
) -> None:
    for use in (client.asynchronous, client.threaded):
        with pytest.raises(ConfigurationError, match=message):
            use([ONE, limit])


def test_a_limit_by_what_requests_have_is_taken(client: Client) -> None:
    limit = ConcurrencyLimit(["host", "headers.x-tenant"], fair_by="path")
    client.threaded([ONE, limit]).close()
