"""The server of `limiter serve`: uvicorn with the app, in this thread or in one beside others."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Generator
from ipaddress import ip_address

import uvicorn
from starlette.applications import Starlette

from limiter_core.errors import ConfigurationError

__all__ = ("bind", "check_exposure", "is_loopback", "serve", "serving")

_END = 10.0
"""Seconds that a server has for its end."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, token: str | None, public: bool) -> None:
    """Refuse to show limits to others by mistake.

    Raises:
        ConfigurationError: others can reach the address, and neither a token is needed nor was it
            said that anyone may read.
    """
    if not (is_loopback(host) or token is not None or public):
        raise ConfigurationError(
            f"others can reach {host}: give --token, which reading needs then, or --public, if "
            "anyone may read"
        )


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address is not one of this machine, or is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=256)
    # With the number of its protocol: without it asyncio leaves Nagle's algorithm on, and a
    # response that is sent in parts takes 40 ms.
    return socket.socket(family, listener.type, socket.IPPROTO_TCP, fileno=listener.detach())


def serve(app: Starlette, listener: socket.socket, *, root_path: str = "") -> None:
    """Serve an app until the process is interrupted."""
    with contextlib.suppress(KeyboardInterrupt):
        _Server(app, root_path).run([listener])


@contextlib.contextmanager
def serving(app: Starlette, listener: socket.socket) -> Generator[None]:
    """Serve an app in a thread while the block lasts."""
    server = _Server(app, "")
    # The socket listens already: a client that connects before the server has started waits for it.
    run = functools.partial(server.run, [listener])
    thread = threading.Thread(target=run, name="limiter-web", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_END)


class _Server(uvicorn.Server):
    """A server that ends the streams of events of the page when it stops."""

    def __init__(self, app: Starlette, root_path: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                root_path=root_path,
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=3,
            )
        )
        self._end_streams: Callable[[], None] = app.state.end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        await super().shutdown(sockets)
