"""The SDK of OpenAI with a limited client: streams, and what it tries again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter, events
from tests.core._tools import PATIENCE
from tests.http_clients._server import CHUNKED, Server
from tests.http_clients.conftest import ONE, Client

MODEL = "a-model"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def event(word: str) -> bytes:
    """Return a chunk of the body with one event of a streamed completion."""
    delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    fields = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    return chunk(f"data: {json.dumps({**fields, 'choices': [delta]})}\n\n")


def chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


async def completion(server: Server, writer: asyncio.StreamWriter) -> None:
    """Stream two words, the second one when the test says so."""
    writer.write(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
    writer.write(event("first"))
    await writer.drain()
    await server.go.wait()
    writer.write(event("last") + chunk("data: [DONE]\n\n") + b"0\r\n\r\n")


@pytest.fixture
def endpoint(server: Server) -> Server:
    server.answers["/chat/completions"] = completion
    return server


class Seen(list[events.Event]):
    """The events of the clients of a test."""

    def names(self) -> list[str]:
        return [type(each).__name__ for each in self if not isinstance(each, events.Queued)]


def asynchronous(client: Client, endpoint: Server, seen: Seen, **timeouts: float) -> Any:
    limiter = Limiter(client.store, observe=seen.append)
    inside = client.module.AsyncHTTPTransport(verify=False)
    transport = client.adapter.AsyncLimitedTransport(limiter, ONE, inside)
    return openai.AsyncOpenAI(
        api_key="none",
        base_url=endpoint.url,
        http_client=client.module.AsyncClient(transport=transport),
        timeout=client.module.Timeout(PATIENCE, **timeouts),
        max_retries=1,
    )


def threaded(client: Client, endpoint: Server, seen: Seen, **timeouts: float) -> Any:
    limiter = SyncLimiter(client.store, observe=seen.append)
    inside = client.module.HTTPTransport(verify=False)
    transport = client.adapter.LimitedTransport(limiter, ONE, inside)
    return openai.OpenAI(
        api_key="none",
        base_url=endpoint.url,
        http_client=client.module.Client(transport=transport),
        timeout=client.module.Timeout(PATIENCE, **timeouts),
        max_retries=1,
    )


ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "?"}]}
ASK["stream"] = True


def word_of(part: Any) -> str:
    return str(part.choices[0].delta.content)


async def test_a_stream_holds_its_slot_until_its_end(client: Client, endpoint: Server) -> None:
    async with asynchronous(client, endpoint, Seen()) as sdk:
        stream = await sdk.chat.completions.create(**ASK)
        assert word_of(await anext(stream)) == "first"
        assert client.in_use() == 1
        endpoint.let_go()
        assert [word_of(part) async for part in stream] == ["last"]
        assert client.in_use() == 0


async def test_a_stream_that_is_closed_half_read(client: Client, endpoint: Server) -> None:
    async with asynchronous(client, endpoint, Seen()) as sdk:
        async with await sdk.chat.completions.create(**ASK) as stream:
            assert word_of(await anext(stream)) == "first"
            assert client.in_use() == 1
        assert client.in_use() == 0


async def test_a_broken_connection_is_tried_again(client: Client, endpoint: Server) -> None:
    endpoint.failures, seen = 1, Seen()
    endpoint.let_go()

    async def flaky(server: Server, writer: asyncio.StreamWriter) -> None:
        if server.failures:
            server.failures -= 1
            writer.close()
        else:
            await completion(server, writer)

    endpoint.answers["/chat/completions"] = flaky
    async with asynchronous(client, endpoint, seen) as sdk:
        stream = await sdk.chat.completions.create(**ASK)
        assert [word_of(part) async for part in stream] == ["first", "last"]
    assert seen.names() == ["Granted", "Released"] * 2


async def test_an_answer_that_asks_to_try_again(client: Client, endpoint: Server) -> None:
    """Its slot is released before the pause, though its request asked for a stream."""
    statuses, seen = [503], Seen()
    endpoint.let_go()

    async def busy(server: Server, writer: asyncio.StreamWriter) -> None:
        if statuses:
            writer.write(b"HTTP/1.1 %d Busy\r\nContent-Length: 2\r\n\r\n{}" % statuses.pop())
        else:
            await completion(server, writer)

    endpoint.answers["/chat/completions"] = busy
    async with asynchronous(client, endpoint, seen) as sdk:
        stream = await sdk.chat.completions.create(**ASK)
        assert [word_of(part) async for part in stream] == ["first", "last"]
    assert seen.names() == ["Granted", "Released"] * 2


async def test_a_pool_timeout_is_tried_again(client: Client, endpoint: Server) -> None:
    seen, limiter = Seen(), Limiter(client.store)
    lease = await limiter.acquire(ONE)
    released: list[asyncio.Task[None]] = []

    def release(event: events.Event) -> None:
        if isinstance(event, events.Refused):
            released.append(asyncio.ensure_future(lease.release()))

    sdk = asynchronous(client, endpoint, seen, pool=0.05)
    remove = limiter_core.observe(release)
    endpoint.let_go()
    try:
        async with sdk:
            stream = await sdk.chat.completions.create(**ASK)
            assert [word_of(part) async for part in stream] == ["first", "last"]
    finally:
        remove()
    assert len(released) == 1
    assert seen.names() == ["Refused", "Granted", "Released"]


async def test_the_last_pool_timeout(client: Client, endpoint: Server) -> None:
    seen = Seen()
    async with (
        Limiter(client.store).hold(ONE),
        asynchronous(client, endpoint, seen, pool=0.05) as sdk,
    ):
        with pytest.raises(openai.APITimeoutError) as caught:
            await sdk.chat.completions.create(**ASK)
    assert isinstance(caught.value.__cause__, limiter_core.WaitTimeout)
    assert seen.names() == ["Refused", "Refused"]
    assert endpoint.requests == []


def test_a_stream_in_a_thread(client: Client, endpoint: Server) -> None:
    with threaded(client, endpoint, Seen()) as sdk:
        stream = sdk.chat.completions.create(**ASK)
        assert word_of(next(stream)) == "first"
        assert client.in_use() == 1
        endpoint.let_go()
        assert [word_of(part) for part in stream] == ["last"]
        assert client.in_use() == 0


def test_the_last_pool_timeout_in_a_thread(client: Client, endpoint: Server) -> None:
    seen = Seen()
    sdk = threaded(client, endpoint, seen, pool=0.05)
    with SyncLimiter(client.store).hold(ONE), sdk, pytest.raises(openai.APITimeoutError):
        sdk.chat.completions.create(**ASK)
    assert seen.names() == ["Refused", "Refused"]


async def test_a_refusal_is_a_timeout(client: Client, endpoint: Server) -> None:
    """Also that of a limit that does not wait."""
    at_once = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, on_conflict="cancel")
    http = client.asynchronous(at_once)
    sdk = openai.AsyncOpenAI(api_key="none", base_url=endpoint.url, http_client=http, max_retries=0)
    async with Limiter(client.store).hold(ONE), sdk:
        with pytest.raises(openai.APITimeoutError) as caught:
            await sdk.chat.completions.create(**ASK)
    assert isinstance(caught.value.__cause__, limiter_core.LimitReached)
