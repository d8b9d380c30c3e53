"""The client of a request that waits for its slot: notices that it is gone, loses nothing it sent.

Only `receive` shows that a client is gone, and it returns the request body before that. So what
it returns is kept, and the app gets it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
from starlette.types import Message, Receive

KEPT = 64 * 1024
"""Bytes of the body to keep; the client is watched no more once there are as many."""

_GONE = ("http.disconnect", "websocket.disconnect")


class WaitingClient:
    """Watches the client from the moment that its request has to wait; see `hold_for_client`.

    Attributes:
        receive: what the app is to receive by.
        is_gone: whether the client was gone before the request had its slot.
        has_waited: whether it is, or was, watched: then `end` is to be called.
    """

    is_gone = False
    has_waited = False
    is_watched = False
    _cancel: Callable[[], object] | None = None

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self._receive = receive

    def begin_waiting(self, wake: Callable[[], object]) -> None:
        """Watch the client: the request has to wait."""
        self.receive = self._receive_kept
        self.has_waited = self.is_watched = True
        self._kept: deque[Message] = deque()
        self._news = anyio.Event()
        self._has_ended = False
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            scope = anyio.CancelScope()
            self._cancel = scope.cancel
            trio: Any = sys.modules["trio"]
            trio.lowlevel.spawn_system_task(self._watch_within, scope, wake)
        else:
            # A loop keeps no task alive: this does.
            self._cancel = loop.create_task(self._watch(wake)).cancel

    def end_waiting(self) -> None:
        """Watch the client no more: the request has its slot."""
        self.is_watched = False

    def end(self) -> None:
        """Receive nothing more, since the app has ended."""
        self.is_watched = False
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()
            self.receive = self._receive  # the other one is in a cycle with all that is kept

    async def _watch_within(self, scope: anyio.CancelScope, wake: Callable[[], object]) -> None:
        with scope:
            await self._watch(wake)

    async def _watch(self, wake: Callable[[], object]) -> None:
        """Receive until the client is gone, enough is kept, or the request waits no more.

        A call of the server's `receive` is not cancelled while the app runs: it might have taken a
        message. The app gets what it returns.
        """
        size = 0
        # What the server raises, it raises again where the app receives.
        with contextlib.suppress(Exception):
            while self.is_watched and size < KEPT:
                message = await self._receive()
                self._kept.append(message)
                self._notify()
                if message["type"] in _GONE:
                    if self.is_watched:
                        self.is_gone = True
                        wake()
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
