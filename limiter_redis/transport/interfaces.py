"""What a transport offers to the session of a process, and what it needs of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from limiter_core.errors import StoreError
from limiter_redis.connection.backoff import Refusals
from limiter_redis.connection.nodes import Node
from limiter_redis.protocol import commands
from limiter_redis.protocol.keyspace import Keyspace
from limiter_redis.transport.invocation import Invocations


class Receiver(Protocol):
    """The requests of a store in this process.

    Attributes:
        process: the name of this process, in channels.
        refusals: whether the server takes our credentials.
        invocations: how the script is called at each node.
    """

    process: str
    refusals: Refusals
    invocations: Invocations

    @property
    def keyspace(self) -> Keyspace:
        """The names of the store."""
        ...

    def is_alone(self) -> bool:
        """Whether this process waits for, or holds, no more than one request."""
        ...

    def key_of_request(self, request_id: str) -> str | None:
        """Return a key of what this process waits for or holds, None if it does not."""
        ...

    def receive(
        self, lines: Iterable[str], sent_at: float, *, in_callers_thread: bool = False
    ) -> None:
        """Take news of a step that was asked for at some time; see `RequestTracker`."""

    def messages_lost(self) -> None:
        """Note that messages or replies may have been lost until now."""


class ThreadTransport(Protocol):
    """A way for threads, to one server or to many."""

    def call(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> list[str]:
        """Carry out operations and return the replies, then the news; see `SyncTransport.call`."""
        ...

    def call_each(
        self, operations: Sequence[commands.Operation], deadline: float | None = None
    ) -> tuple[list[str | StoreError], list[str]]:
        """Carry out operations; return for each the reply, or why there is none, and the news."""
        ...

    def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        ...

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class LoopTransport(Protocol):
    """A way for the tasks of one event loop, to one server or to many. It ends with the loop.

    Attributes:
        loop: the event loop.
    """

    loop: asyncio.AbstractEventLoop

    def submit(
        self, operation: commands.Operation, deadline: float | None = None
    ) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply; see `BatchingTransport`."""
        ...

    async def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        ...

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""

    async def aclose(self) -> None:
        """Close the connections, when what was asked before is carried out."""
