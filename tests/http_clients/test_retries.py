"""A limited transport with one that tries again: inside of it, and around it."""

from __future__ import annotations

from typing import Any

from limiter_core import Limiter
from tests.http_clients._server import Server
from tests.http_clients.conftest import ONE, Client


def retrying(client: Client, transport: Any, tried: list[int]) -> Any:
    """Return a transport that tries again where a connection breaks."""

    class Retrying(client.module.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            while True:
                tried.append(client.in_use())
                try:
                    return await transport.handle_async_request(request)
                except client.module.TransportError:
                    pass

    return Retrying()


async def test_inside_of_retries_each_try_has_a_slot(client: Client, server: Server) -> None:
    server.failures, tried, seen = 2, [], []
    limiter = Limiter(client.store, observe=seen.append)
    async with client.module.AsyncHTTPTransport(verify=False) as inside:
        limited = client.adapter.AsyncLimitedTransport(limiter, ONE, inside)
        http = client.module.AsyncClient(transport=retrying(client, limited, tried))
        assert (await http.get(f"{server.url}/flaky")).text == "whole"
    assert tried == [0, 0, 0]
    assert [type(event).__name__ for event in seen] == ["Granted", "Released"] * 3


async def test_around_retries_there_is_one_slot_for_all(client: Client, server: Server) -> None:
    server.failures, tried, seen = 2, [], []
    limiter = Limiter(client.store, observe=seen.append)
    async with client.module.AsyncHTTPTransport(verify=False) as inside:
        retries = retrying(client, inside, tried)
        limited = client.adapter.AsyncLimitedTransport(limiter, ONE, retries)
        http = client.module.AsyncClient(transport=limited)
        assert (await http.get(f"{server.url}/flaky")).text == "whole"
    assert tried == [1, 1, 1]
    assert [type(event).__name__ for event in seen] == ["Granted", "Released"]
