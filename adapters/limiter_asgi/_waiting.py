"""While a request waits for its slot: notices that the client is gone, and loses nothing it sent.

Only `receive` shows that a client is gone, and it returns the request body before that. So what
it returns is kept, and the app gets it again. A request that does not wait pays for a callback of
its event loop, which is a third of a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from types import TracebackType
from typing import Any, Self

import anyio
from starlette.types import Message, Receive

KEPT = 64 * 1024
"""Bytes of the body to keep; the client is watched no more once there are as many."""

BEGIN = 0.005
"""Seconds of waiting until the client is watched; most requests wait for the store only."""

_GONE = ("http.disconnect", "websocket.disconnect")


class Waiting:
    """Cancels its block when the client is gone, up to the call of `end`.

    Attributes:
        receive: what the app is to receive by, from then on.
        client_is_gone: whether the block was cancelled.
    """

    client_is_gone = False
    _is_over = False
    _block: anyio.CancelScope | None = None
    _task: asyncio.Task[Any] | None = None
    _timer: asyncio.Handle | None = None
    _watcher: asyncio.Task[None] | None = None
    _watching: anyio.CancelScope | None = None

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self._receive = receive

    def end(self) -> None:
        """End the watching: the request waits no more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> Self:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            trio: Any = sys.modules["trio"]
            trio.lowlevel.spawn_system_task(self._watch_soon)
            self._block = anyio.CancelScope()
            self._block.__enter__()
        else:
            # As `asyncio.timeout` does; a scope of anyio costs as much as half of a hold.
            task = self._task = asyncio.current_task(loop)
            self._cancels = 0 if task is None else task.cancelling()
            self._timer = loop.call_soon(self._set_timer, loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.end()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._block is not None:
            return bool(self._block.__exit__(kind, error, traceback))
        if self._task is None or not self.client_is_gone:
            return False
        # A cancellation that others asked for goes first.
        return self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError

    def _cancel(self) -> None:
        self.client_is_gone = True
        if self._block is not None:
            self._block.cancel()
        elif self._task is not None:
            self._task.cancel()

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(BEGIN, self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watcher = loop.create_task(self._watch())  # a loop keeps no task alive

    async def _watch_soon(self) -> None:
        with anyio.CancelScope() as self._watching:
            await anyio.sleep(BEGIN)
            await self._watch()

    async def _watch(self) -> None:
        """Receive until the client is gone, enough is kept, or the request waits no more.

        A call of the server's `receive` is not cancelled while the app runs: it might have taken a
        message. The app gets what it returns.
        """
        if self._is_over:
            return
        self._kept: deque[Message] = deque()
        self._news = anyio.Event()
        self._has_ended = False
        self.receive = self._receive_kept
        size = 0
        # What the server raises, it raises again where the app receives.
        with contextlib.suppress(Exception):
            while not self._is_over and size < KEPT:
                message = await self._receive()
                self._kept.append(message)
                self._notify()
                if message["type"] in _GONE:
                    if not self._is_over:
                        self._cancel()
                    break
                size += len(message.get("body", b""))
        self._has_ended = True
        self._notify()

    def _notify(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def _receive_kept(self) -> Message:
        while not self._kept:
            if self._has_ended:
                return await self._receive()
            await self._news.wait()
        return self._kept.popleft()
