"""`RedisStore`: the slots and tickets of many processes and machines, in one Redis or Valkey."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import redis
import redis.asyncio

from limiter_core.errors import ConfigurationError, StoreUnavailable
from limiter_core.requests import Answer, KeySnapshot, Notice, Renewal, Request
from limiter_core.store import AsyncStore, Capabilities, SyncStore
from limiter_redis import _protocol as protocol
from limiter_redis._async_wire import AsyncWire
from limiter_redis._connect import (
    address_of_pool,
    address_of_url,
    async_client,
    shown,
    sync_client,
)
from limiter_redis._hub import Hub
from limiter_redis._keeper import Keeper
from limiter_redis._script import SCRIPT, Script
from limiter_redis._wire import BATCH, Wire

__all__ = ("RedisStore", "store_from_url")

_CAPABILITIES = Capabilities(sure_release=True)
_SCAN_COUNT = 1000
_NOTE_LASTS = 8 * 24 * 3600
"""Seconds that a scope stays noted for `sweep`: longer than its last durable ticket (S14)."""
_NOTE_AGAIN = 3600.0
_stores: weakref.WeakSet[RedisStore] = weakref.WeakSet()


class RedisStore:
    """Keeps slots and tickets in Redis (6.2 or newer) or Valkey; every rule of the protocol holds.

    Each operation is one atomic step of a script, on the server's clock. What an event loop asks
    in one tick travels in one round trip; a keeper thread renews leases and hears messages, over
    connections of its own. Nothing connects before the first call.

    The async face is for asyncio (redis-py knows no trio); it works in a second `asyncio.run`.
    A child process made by `fork` starts with no leases and connections of its own.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads them.
        client: in place of a URL, a `redis.Redis` or `redis.asyncio.Redis` that you have. Its
            pool is used for what its world asks (one connection at a time in an event loop);
            all else connects by itself to the same server.
        namespace: stands at the front of every Redis key and channel, 1 to 64 characters.
        script: for tests of the store itself, which put a clock of their own in.

    Raises:
        ConfigurationError: neither or both are given, or one of them is not usable.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | redis.asyncio.Redis | None = None,
        namespace: str = "limiter",
        script: Script = SCRIPT,
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigurationError("a RedisStore needs a URL or a client, and not both")
        self._namespace = _checked_namespace(namespace)
        self._client = client
        self._script = script
        if url is not None:
            self._address = address_of_url(url)
        else:
            self._address = address_of_pool(_pool_of(client))
        self._where = shown(self._address)
        self._begin()
        _stores.add(self)

    def _begin(self) -> None:
        self.hub = Hub(self._namespace)
        self.keeper = Keeper(
            self.hub,
            lambda timeout: sync_client(self._address, socket_timeout=timeout),
            self._where,
            self._script,
        )
        self._wire: Wire | None = None
        self._async_wires: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncWire] = (
            weakref.WeakKeyDictionary()
        )
        self._scopes: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<RedisStore {self._where} namespace={self._namespace!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """All."""
        return _CAPABILITIES

    @property
    def namespace(self) -> str:
        """What stands at the front of every Redis key and channel."""
        return self._namespace

    def sync_face(self) -> SyncStore:
        """Return the operations for threads."""
        return _SyncFace(self)

    def async_face(self) -> AsyncStore:
        """Return the operations for asyncio."""
        return _AsyncFace(self)

    # -- for the faces ----------------------------------------------------------------------------

    def wire(self) -> Wire:
        """Return the way to the server for threads."""
        wire = self._wire
        if wire is None:
            own = self._client
            client = (
                own
                if isinstance(own, redis.Redis)
                else sync_client(self._address, socket_timeout=self._address["socket_timeout"])
            )
            wire = self._wire = Wire(
                client, self._namespace, self.hub.process, self._where, self._script
            )
        return wire

    def async_wire(self) -> AsyncWire:
        """Return the way to the server for the running event loop.

        Raises:
            ConfigurationError: it is not asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "the Redis store speaks asyncio, as redis-py does; in trio run a SyncLimiter in a "
                "thread (anyio.to_thread.run_sync)"
            ) from None
        wire = self._async_wires.get(loop)
        if wire is None:
            for ended in [each for each in self._async_wires if each.is_closed()]:
                del self._async_wires[ended]
            wire = self._async_wires[loop] = AsyncWire(
                async_client(self._address),
                self._namespace,
                self._where,
                self._script,
                self.hub,
                timeout=self._address["socket_timeout"],
            )
        return wire

    def prepare(self, request: Request) -> None:
        """Note a request before it is sent."""
        if request.listener is not None:
            self.hub.begin(request, time.monotonic())
            self.keeper.ensure_running()

    def new_scope(self, request: Request) -> str | None:
        """Return the scope of a durable request, if it is to be noted for `sweep`."""
        if request.payload is None:
            return None
        scope = protocol.scope_of(request.demands[0].key)
        if time.monotonic() < self._scopes.get(scope, 0.0):
            return None
        return scope

    def noted(self, scope: str) -> None:
        """Remember that a scope has been noted; for a while, since the note has an end."""
        self._scopes[scope] = time.monotonic() + _NOTE_AGAIN

    @property
    def scopes_key(self) -> str:
        """The Redis key of the set of scopes that have had durable tickets."""
        return f"{{{self._namespace}}}:scopes"

    def pattern(self, part: str) -> str:
        """Return the pattern of Redis keys of a kind."""
        return f"{{{self._namespace}:*}}:{part}*"

    def key_of(self, name: bytes | str) -> str:
        """Return the limiter key of a state's Redis key."""
        text = name.decode() if isinstance(name, bytes) else name
        return protocol.key_of(self._namespace, text)

    def close(self) -> None:
        """Give up connections and the keeper. Leases that are still held end by themselves."""
        self.keeper.stop()
        if self._wire is not None and not isinstance(self._client, redis.Redis):
            self._wire.close()
        self._wire = None

    async def aclose(self) -> None:
        """Give up connections and the keeper, in an event loop."""
        await asyncio.get_running_loop().run_in_executor(None, self.close)
        wire = self._async_wires.pop(asyncio.get_running_loop(), None)
        if wire is not None:
            await wire.aclose()

    def start_over_in_child(self) -> None:
        """Forget the parent's leases, threads and connections, in a process made by `fork`."""
        self._begin()


class _SyncFace:
    """`RedisStore` for threads: each operation is a round trip."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def now(self) -> float:
        return time.monotonic()

    def acquire(self, request: Request) -> Answer:
        store = self._store
        scope = store.new_scope(request)
        if scope is not None:
            store.wire().command("SADD", store.scopes_key, scope)
            store.wire().command("EXPIRE", store.scopes_key, _NOTE_LASTS)
            store.noted(scope)
        store.prepare(request)
        sent_at = time.monotonic()
        try:
            line = self._carry_out(protocol.acquire(request))
        except BaseException:
            store.hub.end(request.id)
            raise
        return store.hub.settle(request, line, sent_at)

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        live = self._store.hub.end(lease_id)
        key = keys[0] if keys else live.key if live is not None else self._find(lease_id)
        return key is not None and self._carry_out(protocol.release(lease_id, key)) == "1"

    def renew(self, ids: Sequence[str]) -> Renewal:
        found = [(each, self._find(each)) for each in ids]
        return protocol.renewal(
            (each, "gone" if key is None else self._carry_out(protocol.renew(each, key)))
            for each, key in found
        )

    def evict(self, lease_id: str) -> bool:
        key = self._find(lease_id)
        return key is not None and self._carry_out(protocol.evict(lease_id, key)) == "1"

    def sweep(self) -> None:
        members = self._store.wire().command("SMEMBERS", self._store.scopes_key)
        for scope in protocol.lines(members):
            while int(self._carry_out(protocol.offers(scope))) >= BATCH:
                pass
        for key in self.keys():
            self._carry_out(protocol.sweep(key))

    def inspect(self, key: str) -> KeySnapshot:
        return protocol.parse_snapshot(key, self._carry_out(protocol.inspect(key)))

    def keys(self) -> Iterator[str]:
        for name in self._names():
            yield self._store.key_of(name)

    def set_limit(self, key: str, limit: int) -> None:
        self._carry_out(protocol.set_limit(key, limit))

    def reset_limit(self, key: str) -> None:
        self._carry_out(protocol.set_limit(key, None))

    def pause(self, key: str) -> None:
        self._carry_out(protocol.set_paused(key, True))

    def resume(self, key: str) -> None:
        self._carry_out(protocol.set_paused(key, False))

    def on_notice(self, callback: Callable[[Notice], None] | None) -> None:
        self._store.hub.on_notice = callback

    def close(self) -> None:
        self._store.close()

    def _carry_out(self, operation: protocol.Operation) -> str:
        store = self._store
        line, *news = store.wire().call([operation])
        store.hub.hear(news)
        while store.hub.unfinished:
            key = store.hub.unfinished.popitem()[0]
            _, *news = store.wire().call([protocol.sweep(key)])
            store.hub.hear(news)
        return line

    def _names(self) -> Iterator[Any]:
        cursor: Any = 0
        seen: set[Any] = set()  # SCAN may show a key twice
        while True:
            cursor, names = self._store.wire().command(
                "SCAN", cursor, "MATCH", self._store.pattern("state"), "COUNT", _SCAN_COUNT
            )
            yield from (name for name in names if name not in seen)
            seen.update(names)
            if int(cursor) == 0:
                return

    def _find(self, request_id: str) -> str | None:
        """Return a key of a lease or ticket: from our own books, or by looking at all keys."""
        live = self._store.hub.live.get(request_id)
        if live is not None:
            return live.key
        for key in self.keys():
            if self._carry_out(protocol.find(request_id, key)) == "1":
                return key
        return None


class _AsyncFace:
    """`RedisStore` for asyncio: the operations of one tick are one round trip."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def now(self) -> float:
        return time.monotonic()

    async def acquire(self, request: Request) -> Answer:
        store = self._store
        wire = store.async_wire()
        scope = store.new_scope(request)
        if scope is not None:
            await wire.command("SADD", store.scopes_key, scope)
            await wire.command("EXPIRE", store.scopes_key, _NOTE_LASTS)
            store.noted(scope)
        store.prepare(request)
        sent_at = time.monotonic()
        try:
            line = await wire.submit(protocol.acquire(request))
        except StoreUnavailable:
            store.hub.end(request.id)
            raise
        return store.hub.settle(request, line, sent_at)

    async def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        live = self._store.hub.end(lease_id)
        key = keys[0] if keys else live.key if live is not None else await self._find(lease_id)
        return key is not None and await self._carry_out(protocol.release(lease_id, key)) == "1"

    async def renew(self, ids: Sequence[str]) -> Renewal:
        replies: list[tuple[str, str]] = []
        for each in ids:
            key = await self._find(each)
            line = "gone" if key is None else await self._carry_out(protocol.renew(each, key))
            replies.append((each, line))
        return protocol.renewal(replies)

    async def evict(self, lease_id: str) -> bool:
        key = await self._find(lease_id)
        return key is not None and await self._carry_out(protocol.evict(lease_id, key)) == "1"

    async def sweep(self) -> None:
        members = await self._store.async_wire().command("SMEMBERS", self._store.scopes_key)
        for scope in protocol.lines(members):
            while int(await self._carry_out(protocol.offers(scope))) >= BATCH:
                pass
        async for key in self.keys():
            await self._carry_out(protocol.sweep(key))

    async def inspect(self, key: str) -> KeySnapshot:
        return protocol.parse_snapshot(key, await self._carry_out(protocol.inspect(key)))

    async def keys(self) -> AsyncIterator[str]:
        async for name in self._names():
            yield self._store.key_of(name)

    async def set_limit(self, key: str, limit: int) -> None:
        await self._carry_out(protocol.set_limit(key, limit))

    async def reset_limit(self, key: str) -> None:
        await self._carry_out(protocol.set_limit(key, None))

    async def pause(self, key: str) -> None:
        await self._carry_out(protocol.set_paused(key, True))

    async def resume(self, key: str) -> None:
        await self._carry_out(protocol.set_paused(key, False))

    def on_notice(self, callback: Callable[[Notice], None] | None) -> None:
        self._store.hub.on_notice = callback

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _carry_out(self, operation: protocol.Operation) -> str:
        wire = self._store.async_wire()
        line = await wire.submit(operation)
        while self._store.hub.unfinished:
            key = self._store.hub.unfinished.popitem()[0]
            await wire.submit(protocol.sweep(key))
        return line

    async def _names(self) -> AsyncIterator[Any]:
        cursor: Any = 0
        seen: set[Any] = set()  # SCAN may show a key twice
        while True:
            cursor, names = await self._store.async_wire().command(
                "SCAN", cursor, "MATCH", self._store.pattern("state"), "COUNT", _SCAN_COUNT
            )
            for name in names:
                if name not in seen:
                    yield name
            seen.update(names)
            if int(cursor) == 0:
                return

    async def _find(self, request_id: str) -> str | None:
        """Return a key of a lease or ticket: from our own books, or by looking at all keys."""
        live = self._store.hub.live.get(request_id)
        if live is not None:
            return live.key
        async for key in self.keys():
            if await self._carry_out(protocol.find(request_id, key)) == "1":
                return key
        return None


def store_from_url(url: str) -> RedisStore:
    """Return the store of a `redis://`, `rediss://` or `unix://` URL.

    Raises:
        ConfigurationError: redis-py cannot read it.
    """
    return RedisStore(url)


def _pool_of(client: object) -> Any:
    if isinstance(client, redis.Redis | redis.asyncio.Redis):
        return client.connection_pool
    raise ConfigurationError(f"client must be a redis.Redis or redis.asyncio.Redis, got {client!r}")


def _checked_namespace(namespace: object) -> str:
    if not isinstance(namespace, str) or not 1 <= len(namespace) <= 64:
        raise ConfigurationError(f"namespace must be 1 to 64 characters, got {namespace!r}")
    if any(character in "{}*?[]\\:^ " or not character.isprintable() for character in namespace):
        raise ConfigurationError(
            f"namespace must not contain spaces, braces, colons or wildcards, got {namespace!r}"
        )
    return namespace


def _after_fork_in_child() -> None:
    for store in _stores:
        store.start_over_in_child()


def _at_exit() -> None:
    for store in list(_stores):
        store.close()


atexit.register(_at_exit)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
