"""`RedisStore`: the slots and tickets of many processes and machines, in one Redis or Valkey."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from typing import Any, Self, TypeVar

from limiter_core.errors import ConfigurationError, StoreError
from limiter_core.requests import Notice, Request
from limiter_core.store import AsyncStore, Capabilities, SyncStore
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock, run_in_thread, socket_owner
from limiter_redis.async_store import AsyncFace
from limiter_redis.cluster.redirects import checked_min_replicas, min_replicas_of
from limiter_redis.connection.url_options import OWN
from limiter_redis.connection.urls import (
    Client,
    checked_url,
    place_of_client,
    place_of_url,
    take_options,
)
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.keyspace import checked_namespace
from limiter_redis.protocol.script import SCRIPT, Script
from limiter_redis.sync_store import SyncFace
from limiter_redis.topology import AsyncWay, ways_to
from limiter_redis.transport.sync_transport import Way

__all__ = ("RedisStore", "store_from_url")

T = TypeVar("T")

NAMESPACE = "limiter"
_NOTE_AGAIN = 3600.0
_stores: weakref.WeakSet[RedisStore] = weakref.WeakSet()


class RedisStore:
    """Keeps slots and tickets in Redis (6.2 or newer) or Valkey; every rule of the protocol holds.

    Each operation is one atomic step of a script, on the server's clock. What an event loop asks
    in one tick travels in one round trip; a keeper thread renews leases and hears messages, over
    connections of its own. Nothing connects before the first call.

    The async face is for asyncio (redis-py knows no trio); it works in a second `asyncio.run`.
    A child process made by `fork` starts with no leases and connections of its own. Who opens a
    store closes it, by `close()` or `await aclose()` (`contextlib.closing`, `aclosing`).

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads them;
            `redis+sentinel://host:port,host:port/service/db` or
            `redis+cluster://host:port,host:port`, or with `rediss` for TLS. Its query may have
            redis-py's options, and `namespace`, `min_replicas` and `min_replicas_timeout` (in
            seconds) in place of the arguments; any other is refused.
        client: in place of a URL, a client of redis-py that you have, sync or async: a `Redis`, one
            that `Sentinel.master_for` made, or a `RedisCluster`. Its settings say how to reach the
            servers. The pool of a `redis.Redis` is also used for what threads ask; all else
            connects by itself, with one connection per event loop and two of the keeper (in a
            cluster: to each node).
        namespace: stands at the front of every Redis key and channel; default "limiter". 1 to 128
            printable characters. With a colon in it (`"shop:limits"`) it is a prefix of them all,
            as rights or other users of the server may ask for. With a hash tag (`"{shop}:limits"`)
            it also keeps them in one slot of a cluster: then limits of any scopes can be taken
            together there, and queued jobs need none; but one node has to serve them all.
        min_replicas: how many replicas have to have a grant before it counts, and the seconds they
            may take for it. Where fewer have it in time the slot is given back, and
            `StoreUnavailable` is raised (and, as ever, a call that may wait tries again).
        wake: for a job queue in the same Redis, and in a cluster in the same slot: Lua, which
            defines `local function wake(id)`. It is called in the very step that ends the waiting
            of a durable ticket, with the ticket's id as a word, and returns whether it woke the
            job; if so, no process hears a notice. See `adapters/limiter_docket/lua/wake.lua`.
        script: for tests of the store itself, which put a clock of their own in.

    Raises:
        ConfigurationError: neither or both are given, or one of them is not usable.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Client | None = None,
        namespace: str = NAMESPACE,
        min_replicas: tuple[int, float] | None = None,
        wake: str | None = None,
        script: Script = SCRIPT,
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigurationError("a RedisStore needs a URL or a client, and not both")
        self._made_of: dict[str, Any] = {
            "url": url,
            "client": client,
            "namespace": namespace,
            "min_replicas": min_replicas,
            "wake": wake,
            "script": script,
        }
        options: dict[str, str] = {}
        if url is not None:
            plain, options = take_options(checked_url(url), *OWN)
            self._place = place_of_url(plain)
        else:
            self._place = place_of_client(client)
        of_url = options.pop("namespace", NAMESPACE)
        self._namespace = checked_namespace(_one_of("namespace", namespace, of_url, NAMESPACE))
        replicas = _one_of("min_replicas", min_replicas, min_replicas_of(options), None)
        self._min_replicas = checked_min_replicas(replicas)
        self._client = client
        self._script = script if wake is None else script.waking(wake)
        self._parents: frozenset[str] = frozenset()
        self._lock = new_lock()
        self._begin()
        _stores.add(self)

    def _begin(self) -> None:
        self._ways = ways_to(
            self._place, self._client, self._namespace, self._script, self._min_replicas
        )
        self.hub, self.keeper = self._ways.hub, self._ways.keeper
        self.one_slot = not self._ways.capabilities.spans_scopes
        """Whether all keys of a request have to have one scope."""
        self.hub.on_undelivered = self._have_told
        self.hub.after_turn = self._abandon_ended_loops
        self._wires: dict[object, Way] = {}
        """By whom their sockets belong to; see `socket_owner`."""
        self._maker = socket_owner()
        self._async_wires: dict[asyncio.AbstractEventLoop, AsyncWay] = {}
        self._last_async_wire: AsyncWay | None = None
        self._scopes: dict[str, float] = {}

    def __copy__(self) -> Self:
        return type(self)(**self._made_of)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Callable[..., RedisStore], tuple[object, ...]]:
        if self._client is not None:
            raise ConfigurationError(
                "a store that was made of a client cannot be sent to another process, as the "
                "client's connections cannot: make it of a URL"
            )
        made_of = {name: value for name, value in self._made_of.items() if value is not SCRIPT}
        return _made_again, (type(self), made_of)

    def _have_told(self) -> None:
        # As a method of the store, which this keeps alive as long as the keeper runs: so that one
        # that nobody refers to any more is closed when the process ends, and what it has to tell
        # other processes is told.
        self.keeper.ensure_running()

    def __repr__(self) -> str:
        return f"<RedisStore {self._place.where} namespace={self._namespace!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """All; but in a cluster, without a hash tag, all keys of a request need one scope."""
        return self._ways.capabilities

    @property
    def namespace(self) -> str:
        """What stands at the front of every Redis key and channel."""
        return self._namespace

    def sync_face(self) -> SyncStore:
        """Return the operations for threads."""
        return SyncFace(self)

    def async_face(self) -> AsyncStore:
        """Return the operations for asyncio.

        Raises:
            ConfigurationError: TLS is to check what redis-py can check in threads alone.
        """
        self._place.check_event_loops()
        return AsyncFace(self)

    # -- for the faces ----------------------------------------------------------------------------

    def wire(self) -> Way:
        """Return the way to the server for threads."""
        owner = socket_owner()
        wire = self._wires.get(owner)
        if wire is None:
            with self._lock:
                wire = self._wires.get(owner)
                if wire is None:
                    # The pool of a user's client is for the thread that it was given in.
                    own = owner != self._maker
                    wire = self._wires[owner] = self._ways.new_wire(self._place.timeout, own=own)
        return wire

    def async_wire(self) -> AsyncWay:
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
        wire = self._last_async_wire
        if wire is not None and wire.loop is loop:
            return wire
        wire = self._async_wires.get(loop)
        if wire is None:
            self._abandon_ended_loops()
            wire = self._ways.new_async_wire()
            with self._lock:
                self._async_wires[loop] = wire
        self._last_async_wire = wire
        return wire

    def _abandon_ended_loops(self) -> None:
        """Close the connections of loops that were closed, by hand, and did not close them."""
        if not any(loop.is_closed() for loop in list(self._async_wires)):
            return
        with self._lock:
            ended = [loop for loop in self._async_wires if loop.is_closed()]
            wires = [self._async_wires.pop(loop) for loop in ended]
            if self._last_async_wire in wires:
                self._last_async_wire = None
        for wire in wires:
            wire.abandon()
        self.hub.wake()  # who waited there, or asked, is gone

    def prepare(self, request: Request) -> None:
        """Note a request before it is sent.

        Raises:
            StoreError: no thread can begin, which its lease would need.
        """
        if request.listener is not None:
            self.hub.begin(request, time.monotonic())
            try:
                self._keep()
            except StoreError:
                self.hub.not_sent(request)
                raise

    def _keep(self) -> None:
        try:
            self.keeper.ensure_running()
        except RuntimeError as error:
            raise StoreError(
                f"leases cannot be renewed, since no thread can begin: {error}. In a program that "
                "is ending, take slots before its end, or once before, so that the thread runs"
            ) from error

    def abandon(self, request_id: str, key: str, claimant: str = "") -> None:
        """Have the keeper release a request; needs no wait, and no event loop."""
        self.hub.abandon(request_id, key, claimant)
        with suppress(RuntimeError):  # the process ends, and no thread can begin
            self.keeper.ensure_running()

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        """Have notices sent to a function, also those that other processes cannot deliver."""
        self.hub.on_notice = callback
        if callback is not None:
            self._keep()

    def new_scopes(self, request: Request) -> list[str]:
        """Return the scopes of a durable request that are to be noted for `sweep`."""
        now = time.monotonic()
        scopes = {protocol.scope_of(protocol.key_word(demand.key)) for demand in request.demands}
        # The keys without one need no note.
        return [each for each in scopes if each and now >= self._scopes.get(each, 0.0)]

    def noted(self, scopes: Iterable[str]) -> None:
        """Remember that scopes have been noted; for a while, since the note has an end."""
        again = time.monotonic() + _NOTE_AGAIN
        self._scopes.update(dict.fromkeys(scopes, again))

    def scopes_of_sweep(self, noted: Iterable[str]) -> list[str]:
        """Return the scopes that a sweep looks at: those that are noted, and "" for none.

        Scopes that this process noted, and the store knows no more, are noted again.
        """
        known = set(noted)
        for scope in list(self._scopes):
            if scope not in known:
                self._scopes[scope] = 0.0
        return ["", *known]

    @property
    def scopes_key(self) -> str:
        """The Redis key of the set of scopes that have had durable tickets."""
        return self.hub.names.scopes

    @property
    def states_pattern(self) -> str:
        """The pattern of the Redis keys of all states, for SCAN."""
        return self.hub.names.states

    def key_of(self, name: bytes | str) -> str | None:
        """Return the limiter key of a state's Redis key, None if it is nothing of ours."""
        text = name.decode(errors="replace") if isinstance(name, bytes) else name
        return self.hub.names.key_of(text)

    def close(self) -> None:
        """Give up connections and the keeper; the latter once nobody waits or holds any more."""
        self.keeper.stop()
        mine = socket_owner()
        while self._wires:
            owner, wire = self._wires.popitem()
            # gevent lets nobody else close the sockets of a thread: the collector does.
            with suppress(ValueError) if owner != mine else nullcontext():
                wire.close()
        self._abandon_ended_loops()

    async def aclose(self) -> None:
        """Give up connections and the keeper, in an event loop."""
        await run_in_thread(self.close)
        wire = self._async_wires.pop(asyncio.get_running_loop(), None)
        self._last_async_wire = None
        if wire is not None:
            await wire.aclose()

    def start_over_in_child(self) -> None:
        """Forget the parent's leases, threads and connections, in a process made by `fork`."""
        self._parents |= frozenset(self.hub.live)
        self._lock = new_lock()
        self._begin()

    def is_of_parent(self, request_id: str) -> bool:
        """Whether a lease is that of the process this one was forked from: not ours to release."""
        return request_id in self._parents


def store_from_url(url: str) -> RedisStore:
    """Return the store of a URL; see `RedisStore`.

    Raises:
        ConfigurationError: it cannot be read.
    """
    return RedisStore(url)


def _made_again(kind: type[RedisStore], made_of: dict[str, Any]) -> RedisStore:
    return kind(**made_of)


def _one_of(name: str, given: T, of_url: T, default: T) -> T:
    """Return what an argument or the URL says, where the other says nothing."""
    if of_url in (given, default):
        return given
    if given != default:
        raise ConfigurationError(
            f"{name} is given twice, and differs: {given!r}, and {of_url!r} in the URL"
        )
    return of_url


def _after_fork_in_child() -> None:
    for store in _stores:
        store.start_over_in_child()


def _at_exit() -> None:
    for store in list(_stores):
        store.close()


atexit.register(_at_exit)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
