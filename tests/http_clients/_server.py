"""A real HTTP server on a port of its own, whose answers go on when a test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from tests.core._tools import PATIENCE

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """What runs in the thread of the server, and what tests see of it.

    Paths: `/whole` answers at once; `/drip` sends one chunk, waits for `go`, and sends the rest;
    `/stall` sends no answer before `go`; `/flaky` closes the connection, as often as `failures`
    says; `/empty` has status 204; `/none` a body of length 0.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.requests: list[str] = []
        self.failures = 0
        self.in_flight = self.most_in_flight = 0
        self.answers: dict[str, Callable[[Server, asyncio.StreamWriter], object]] = {}
        """More paths: each has a coroutine function that writes the whole answer."""
        self._started = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def let_go(self) -> None:
        """Have it send the rest of all answers."""
        self._loop.call_soon_threadsafe(self.go.set)

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.go = asyncio.Event()
        self._end = asyncio.Event()
        self._tasks: set[asyncio.Task[None] | None] = set()
        transports: list[asyncio.BaseTransport] = []
        server = await self._loop.create_server(
            lambda: _Connection(self._connected, transports), "127.0.0.1", 0
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._end.wait()
        # A server that is closed while it accepts leaves the connection open.
        for listening in server.sockets:
            self._loop.remove_reader(listening)
        for _ in range(5):  # turns of the loop, in which what was accepted is connected
            await asyncio.sleep(0)
        server.close()
        for task in self._tasks:
            if task is not None:
                task.cancel()
        for transport in transports:
            cast(asyncio.Transport, transport).abort()
        await asyncio.sleep(0)  # in which they close their sockets

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                length = next(
                    (
                        int(line.partition(":")[2])
                        for line in head.splitlines()
                        if line.lower().startswith("content-length:")
                    ),
                    0,
                )
                await reader.readexactly(length)
                self.requests.append(f"{method} {target}")
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    if not await self._answer(method, target.partition("?")[0], reader, writer):
                        break
                finally:
                    self.in_flight -= 1
        writer.close()

    async def _answer(
        self, method: str, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer a request; whether the connection stays open."""
        if path == "/flaky" and self.failures > 0:
            self.failures -= 1
            return False
        if path in self.answers:
            await self.answers[path](self, writer)  # type: ignore[misc]
        elif path == "/empty":
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif path == "/none":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        elif method == "HEAD":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        elif path in ("/drip", "/stall"):
            if path == "/drip":
                writer.write(CHUNKED + b"5\r\nfirst\r\n")
                await writer.drain()
            # A client that is gone is noticed, as servers do.
            gone = asyncio.ensure_future(reader.read(1))
            go = asyncio.ensure_future(self.go.wait())
            await asyncio.wait([gone, go], return_when=asyncio.FIRST_COMPLETED)
            go.cancel()
            if gone.done():
                return False
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            if path == "/stall":
                writer.write(CHUNKED)
            writer.write(b"4\r\nlast\r\n0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")
        await writer.drain()
        return True


class _Connection(asyncio.StreamReaderProtocol):
    """A connection, noted from its begin: its task may be cancelled before its first step."""

    def __init__(
        self,
        connected: Connected,
        transports: list[asyncio.BaseTransport],
    ) -> None:
        super().__init__(asyncio.StreamReader(), connected)
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports.append(transport)
        super().connection_made(transport)


@contextmanager
def running_server() -> Iterator[Server]:
    """Run a server while the block runs."""
    server = Server()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    assert server._started.wait(PATIENCE)
    try:
        yield server
    finally:
        server._loop.call_soon_threadsafe(server._end.set)
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server still runs"
