"""A transport for an event loop, as its session knows it: it ends with the loop."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from limiter_redis.connection.nodes import Node
from limiter_redis.protocol import commands
from limiter_redis.transport.pending import Pending

CLOSING_TIMEOUT = 5.0
"""Seconds that closing waits for what was asked before."""


class LoopTransport(ABC):
    """What carries operations of one event loop.

    Attributes:
        loop: the event loop.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._closed = False
        self._lifetime = self._until_the_loop_ends()
        with suppress(StopIteration):  # its first step waits for nothing: it needs no task
            self._lifetime.__anext__().send(None)

    @abstractmethod
    def submit(
        self, operation: commands.Operation, deadline: float | None = None
    ) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply.

        Args:
            operation: the operation.
            deadline: when the caller's patience ends, on the monotonic clock: then the future has
                a `StoreUnavailable`, and the operation may still be carried out.
        """

    @abstractmethod
    async def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""

    @abstractmethod
    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""

    @abstractmethod
    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""

    async def aclose(self) -> None:
        """Close the connections.

        What was asked before is carried out first, in bounded time: it may be a release that no
        caller waits for any more.
        """
        deadline = self.loop.time() + CLOSING_TIMEOUT
        while futures := [each.future for each in self._asked() if not each.future.done()]:
            left = deadline - self.loop.time()
            if left <= 0:
                break
            await asyncio.wait(futures, timeout=left)
        await self._lifetime.aclose()

    @abstractmethod
    def _asked(self) -> list[Pending]:
        """Return what was asked and is not forgotten yet."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the connections; what waits for a reply fails."""

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # `asyncio.run` closes the generators that are not finished: so that a program that never
        # closes its limiter leaves no connection to a loop that is gone.
        try:
            yield
        finally:
            self._closed = True
            await self._close()
