"""A limit in front of a proxy: a client's own `proxy` takes its requests past the transport."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from limiter_core import ConcurrencyLimit, Limiter, SyncLimiter
from tests.http_clients.conftest import Client

ASKED_FOR = "http://service.invalid/what"


class _Proxy(BaseHTTPRequestHandler):
    """Answers each request itself, with the address that it was asked for."""

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def proxy() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.anyio
async def test_requests_by_a_proxy_of_the_transport_inside_are_limited(
    client: Client, proxy: str
) -> None:
    seen: list[Any] = []
    limiter = Limiter(client.store, observe=seen.append)
    inside = client.module.AsyncHTTPTransport(proxy=proxy)
    limited = client.adapter.AsyncLimitedTransport(limiter, ConcurrencyLimit("host"), inside)
    async with client.module.AsyncClient(transport=limited) as session:
        assert (await session.get(ASKED_FOR)).text == ASKED_FOR
    assert [(type(each).__name__, each.keys) for each in seen] == [
        ("Granted", ("host=service.invalid",)),
        ("Released", ("host=service.invalid",)),
    ]


def test_requests_by_a_proxy_of_the_transport_inside_are_limited_in_threads(
    client: Client, proxy: str
) -> None:
    seen: list[Any] = []
    limiter = SyncLimiter(client.store, observe=seen.append)
    inside = client.module.HTTPTransport(proxy=proxy)
    limited = client.adapter.LimitedTransport(limiter, ConcurrencyLimit("host"), inside)
    with client.module.Client(transport=limited) as session:
        assert session.get(ASKED_FOR).text == ASKED_FOR
    assert [type(each).__name__ for each in seen] == ["Granted", "Released"]


def test_requests_by_a_proxy_of_the_client_pass_its_transport_by(
    client: Client, proxy: str
) -> None:
    """So the docs say; where this fails, a release of the client has changed it."""
    seen: list[Any] = []
    limiter = SyncLimiter(client.store, observe=seen.append)
    limited = client.adapter.LimitedTransport(limiter, ConcurrencyLimit("host"))
    with client.module.Client(transport=limited, proxy=proxy) as session:
        assert session.get(ASKED_FOR).text == ASKED_FOR
    assert seen == []
