"""Requests of which each byte is sent and read here, so that a client can leave at any of them."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Self

from tests.faults.workers.body_notes import any_key

PATHS = ("middleware", "depends", "threads", "limited", "socket")
PATIENCE = 60.0
UPGRADE = (
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Caller:
    """Sends requests to the limited paths of a server."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def request(self, port: int) -> str:
        """Send a request, and read the answer, a part of it, or nothing; returns its fate."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return "no connection"
        try:
            writer.write(_request())
            return await asyncio.wait_for(_read(reader), PATIENCE)
        except OSError:
            return "broken"
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _request() -> bytes:
    path = random.choice(PATHS)
    whole = "&whole" if random.random() < 0.3 else ""
    target = f"/{path}/{any_key()}?chunks={random.randint(1, 4)}{whole}"
    if path == "socket":
        return _head("GET", target, *UPGRADE)
    body = b"-" * random.choice([0, 10, 70_000])
    return _head("POST", target, "connection: close", f"content-length: {len(body)}") + body


def _head(method: str, target: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "host: test", *headers, "", ""]).encode()


async def _read(reader: asyncio.StreamReader) -> str:
    part = random.choice(["none", "some", "all", "all", "all"])
    if part == "none":  # it leaves while it waits, or while it is served
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(1), random.random() * 0.1)
        return "left"
    answer = b""
    while data := await reader.read(100 if part == "some" else 65536):
        answer += data
        if part == "some":
            return "half read"
        if answer.startswith(b"HTTP/1.1 101") and b"\x88" in answer:  # the frame of a close
            return "read"
    if answer and not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
        return f"answered {answer[:80]!r}"
    return "read" if b"last" in answer else "broken"
