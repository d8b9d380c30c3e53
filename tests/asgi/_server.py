"""uvicorn in a thread, on a port of its own; clients that can leave at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import uvicorn

from limiter_memory import MemoryStore
from tests._polling import PATIENCE
from tests._polling import until_now as until


def until_state(store: MemoryStore, key: str, *, in_use: int, waiting: int) -> None:
    """Wait until so many slots of a key are in use, and so many calls wait for one."""

    def holds() -> bool:
        state = store.inspect(key)
        return (state.in_use, state.waiting) == (in_use, waiting)

    until(holds, f"{in_use} in use and {waiting} waiting on {key}")


class Server:
    """Serves an ASGI app until `stop`."""

    def __init__(self, app: Any, parser: str) -> None:
        self._clients: list[Client] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=parser,
                ws="websockets-sansio",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self._server.started, "the server has started")

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._server.serve([self._socket]))

    def stop(self) -> None:
        for client in self._clients:
            client.leave()
        self.end()

    def end(self) -> None:
        """End as at SIGTERM: requests have a second, and are cancelled then."""
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server still runs"

    def connect(self) -> Client:
        self._clients.append(Client(self.port))
        return self._clients[-1]


class Client:
    """A connection of which the test sends and reads each byte."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, path: str, *headers: str) -> None:
        """Send a request, and read nothing."""
        self.send(request("GET", path, *headers))

    def read_until(self, end: bytes) -> bytes:
        """Read up to some bytes, or to the end of the connection."""
        found = b""
        while end not in found and (data := self.socket.recv(65536)):
            found += data
        return found

    def read_all(self) -> bytes:
        """Read to the end of the connection."""
        return self.read_until(b"never sent by any test")

    def leave(self) -> None:
        self.socket.close()


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: test", *headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
