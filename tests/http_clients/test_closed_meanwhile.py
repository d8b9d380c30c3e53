"""A response that is closed at the moment at which another task, or thread, gets a chunk of it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from limiter_core import Limiter, SyncLimiter
from tests.core._tools import PATIENCE, Thread
from tests.http_clients._server import Server
from tests.http_clients.conftest import ONE, Client


class Moment:
    """The moment between the arrival of a chunk and its delivery: it lasts until `go` is set."""

    def __init__(self, event: Any) -> None:
        self.came = event()
        self.go = event()


def pausing(client: Client, moment: Moment) -> Any:
    """Return a transport that delivers what it has received when the moment is over."""

    class Stream(client.module.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._stream:
                moment.came.set()
                await moment.go.wait()
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Pausing(client.module.AsyncHTTPTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            sender: Any = super()
            response = await sender.handle_async_request(request)
            response.stream = Stream(response.stream)
            return response

    return Pausing(verify=False)


# trio says it of each generator that is not exhausted, and the clients leave theirs so.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_by_another_task(client: Client, server: Server) -> None:
    moment = Moment(anyio.Event)
    transport = client.adapter.AsyncLimitedTransport(
        Limiter(client.store), ONE, pausing(client, moment)
    )
    got: list[bytes] = []
    async with client.module.AsyncClient(transport=transport, timeout=PATIENCE) as http:
        response = await http.send(http.build_request("GET", f"{server.url}/drip"), stream=True)
        chunks = response.aiter_raw()

        async def read() -> None:
            got.append(await anext(chunks))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await moment.came.wait()
            await response.aclose()
            moment.go.set()
        assert got == [b"first"]
        assert client.in_use() == 0
        await chunks.aclose()


def pausing_in_threads(client: Client, moment: Moment) -> Any:
    """As `pausing`, for threads."""

    class Stream(client.module.SyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            for chunk in self._stream:
                moment.came.set()
                assert moment.go.wait(PATIENCE)
                yield chunk

        def close(self) -> None:
            self._stream.close()

    class Pausing(client.module.HTTPTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> Any:
            sender: Any = super()
            response = sender.handle_request(request)
            response.stream = Stream(response.stream)
            return response

    return Pausing(verify=False)


def test_by_another_thread(client: Client, server: Server) -> None:
    moment = Moment(threading.Event)
    transport = client.adapter.LimitedTransport(
        SyncLimiter(client.store), ONE, pausing_in_threads(client, moment)
    )
    with client.module.Client(transport=transport, timeout=PATIENCE) as http:
        response = http.send(http.build_request("GET", f"{server.url}/drip"), stream=True)
        chunks = response.iter_raw()
        reader = Thread(lambda: next(chunks))
        assert moment.came.wait(PATIENCE)
        response.close()
        moment.go.set()
        assert reader.result() == b"first"
        assert client.in_use() == 0
