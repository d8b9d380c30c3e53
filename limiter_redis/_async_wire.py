"""Calls of the script by an event loop: what is asked in one tick travels in one round trip."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, NoScriptError, RedisError, ResponseError

from limiter_core.errors import StoreError
from limiter_redis import _protocol as protocol
from limiter_redis._hub import Hub
from limiter_redis._script import Script
from limiter_redis._wire import (
    BATCH,
    FOR,
    POOL_PATIENCE,
    POOL_PAUSE,
    evalsha,
    evaluate,
    packed,
    store_error,
)

CLOSING_PATIENCE = 5.0
"""Seconds that closing waits for what was asked before."""

_Waiting = tuple[protocol.Operation, "asyncio.Future[str]"]


class AsyncWire:
    """Calls of one server, from one event loop, over one connection.

    While a call is on its way the next one gathers operations; so the number of connections and
    of round trips does not grow with the number of tasks.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        namespace: str,
        where: str,
        script: Script,
        hub: Hub,
        *,
        owned: bool,
        timeout: float | None,
    ) -> None:
        self._pool: Any = client.connection_pool
        self._namespace = namespace
        self._where = where
        self._script = script
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None
        self._gathered: list[_Waiting] = []
        self._sender: asyncio.Task[None] | None = None
        self._commands = asyncio.Lock()
        self._owned = owned
        self._timeout = timeout
        self._lifetime = self._until_the_loop_ends()
        self._lives = False

    def submit(self, operation: protocol.Operation) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply."""
        future: asyncio.Future[str] = self._loop.create_future()
        self._gathered.append((operation, future))
        if self._sender is None:
            self._sender = self._loop.create_task(self._send())
        return future

    async def command(self, *command: Any) -> Any:
        """Carry out one plain command, beside the operations."""
        async with self._commands:
            connection = None
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._get_connection()
                    return await _command(connection, command)
            except (RedisError, OSError) as error:
                raise store_error(error, self._where) from error
            finally:
                if connection is not None:
                    await self._pool.release(connection)

    async def aclose(self) -> None:
        """Close the connection, and where they are our own all those of the pool.

        What was asked before is carried out first, in bounded time: it may be a release that
        nobody waits for any more.
        """
        deadline = self._loop.time() + CLOSING_PATIENCE
        while self._sender is not None and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait([self._sender], timeout=left)
        await self._lifetime.aclose()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # `asyncio.run` closes the generators that are not finished: so that a program that never
        # closes its limiter leaves no connection to a loop that is gone.
        try:
            yield
        finally:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                await connection.disconnect(nowait=True)
                await self._pool.release(connection)
            if self._owned:
                await self._pool.disconnect()

    async def _send(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._gathered:
                if len(self._hub.live) > 1:
                    # What one reply set going asks for more in the next turn: let it come along.
                    await asyncio.sleep(0)
                batch, self._gathered = self._gathered[:BATCH], self._gathered[BATCH:]
                await self._exchange(batch)
                batch = []
        finally:
            self._sender = None
            # Cancelled halfway (the loop ends): what was asked may be asked again, in the same
            # order (S1); also what nobody waits for any more, for that may be a release.
            self._gathered[:0] = batch
            if self._gathered:
                self._sender = self._loop.create_task(self._send())

    async def _exchange(self, batch: list[_Waiting]) -> None:
        operations = [operation for operation, _ in batch]
        try:
            lines = await self._call(operations)
        except StoreError as error:
            for _, future in batch:
                if not future.done():
                    own = type(error)(*error.args)
                    own.__cause__ = error.__cause__
                    future.set_exception(own)
                    future.exception()  # if its task has gone nobody else will look at it
            return
        for (_, future), line in zip(batch, lines, strict=False):
            if not future.done():
                future.set_result(line)
        if len(lines) > len(batch):
            self._hub.hear(lines[len(batch) :])

    async def _call(self, operations: Sequence[protocol.Operation]) -> list[str]:
        keys, arguments = protocol.arguments(self._namespace, self._hub.channel, operations)
        try:
            try:
                return await self._once(keys, arguments)
            except (RedisConnectionError, OSError):
                # A connection that lay idle may be dead. All operations may be repeated (S1), but
                # the news that came with the first reply are lost.
                self._hub.recheck_waiting()
                return await self._once(keys, arguments)
        except (RedisError, OSError) as error:
            raise store_error(error, self._where) from error

    async def _once(self, keys: int, arguments: Sequence[str]) -> list[str]:
        try:
            # Connecting counts too: a server may take the connection, and say nothing.
            async with asyncio.timeout(self._timeout):
                if self._connection is None:
                    self._connection = await self._get_connection()
                connection = self._connection
                try:
                    reply = await _command(connection, evalsha(self._script, keys, arguments))
                except NoScriptError:
                    reply = await _command(connection, evaluate(self._script, keys, arguments))
        except ResponseError:
            raise
        except BaseException:
            # Whatever it would still say is not the next one's answer.
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.disconnect(nowait=True)
                await self._pool.release(connection)
            raise
        return protocol.lines(reply)

    async def _get_connection(self) -> Any:
        if not self._lives:
            self._lives = True
            await anext(self._lifetime)
        deadline = time.monotonic() + POOL_PATIENCE
        while True:
            try:
                return await self._pool.get_connection(*FOR)
            except MaxConnectionsError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POOL_PAUSE)


async def _command(connection: Any, command: tuple[Any, ...]) -> Any:
    await connection.send_packed_command(packed(connection, command))
    return await connection.read_response(disable_decoding=True)
