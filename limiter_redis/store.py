"""`RedisStore`: the slots and tickets of many processes and machines, in one Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

import redis

from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.store import AsyncStore, Capabilities, SyncStore
from limiter_redis.async_store import AsyncRedisStore
from limiter_redis.cluster.redirects import in_slots
from limiter_redis.cluster.replicas import MinReplicas, checked_min_replicas, min_replicas_of
from limiter_redis.cluster.slot_map import SingleNodeMap, SlotMap
from limiter_redis.connection.endpoints import ClusterEndpoint, SentinelEndpoint
from limiter_redis.connection.exchange import BorrowedPool, ConnectionPool, OwnPool
from limiter_redis.connection.nodes import Endpoint, Node
from limiter_redis.connection.url_options import OWN
from limiter_redis.connection.urls import (
    Client,
    checked_url,
    endpoint_of_client,
    endpoint_of_url,
    take_options,
)
from limiter_redis.libraries import Library, delete_library, find_libraries
from limiter_redis.protocol.keyspace import check_cluster, checked_namespace
from limiter_redis.protocol.script import SCRIPT, Script
from limiter_redis.session.node_worker import TIMEOUT
from limiter_redis.session.renewal import RENEWAL_TIMEOUT, LeaseRenewer
from limiter_redis.session.session import Session, Topology
from limiter_redis.session.tracker import RequestTracker
from limiter_redis.sync_store import SyncRedisStore
from limiter_redis.transport.async_transport import AsyncTransport
from limiter_redis.transport.sync_transport import SyncTransport

__all__ = ("RedisStore", "store_from_url")

T = TypeVar("T")

NAMESPACE = "limiter"


class RedisStore:
    """Keeps slots and tickets in Redis (6.2 or newer) or Valkey; every rule of the protocol holds.

    Each operation is one atomic step of a script, on the server's clock. What an event loop asks
    in one tick travels in one round trip; a background thread renews leases and receives messages,
    over connections of its own. Nothing connects before the first call.

    The async operations are for asyncio (redis-py knows no trio); they work in a second
    `asyncio.run`. A child process made by `fork` starts with no leases and connections of its own.
    A store is closed by the code that opened it: `close()` or `await aclose()`
    (`contextlib.closing`).

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads them;
            `redis+sentinel://host:port,host:port/service/db` or
            `redis+cluster://host:port,host:port`, or with `rediss` for TLS. Its query may have
            redis-py's options, and `namespace`, `min_replicas` and `min_replicas_timeout` (in
            seconds) in place of the arguments; any other is refused.
        client: in place of a URL, a client of redis-py that you have, sync or async: a `Redis`, one
            that `Sentinel.master_for` made, or a `RedisCluster`. Its settings say how to reach the
            servers. The pool of a plain `redis.Redis` is also used for what threads ask; all else
            connects by itself, with one connection per event loop and two of the renewer (in a
            cluster: to each node).
        namespace: stands at the front of every Redis key and channel; default "limiter". 1 to 128
            printable characters. With a colon in it (`"shop:limits"`) it is a prefix of them all,
            as rights or other users of the server may ask for. With a hash tag (`"{shop}:limits"`)
            it also keeps them in one slot of a cluster: then limits of any scopes can be taken
            together there, and queued jobs need none; but one node has to serve them all.
        min_replicas: how many replicas have to have a grant before it counts, and the seconds they
            may take for it. Where fewer have it in time the slot is given back, and
            `StoreUnavailable` is raised (and, as ever, a call that may wait retry again).
        wake: for a job queue in the same Redis, and in a cluster in the same slot: Lua, which
            defines `local function wake(id)`. It is called in the very step that ends the waiting
            of a durable ticket, with the ticket's id as a word, and returns whether it woke the
            job; if so, no process receives a notice. See `adapters/limiter_docket/lua/wake.lua`.
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
            self._endpoint = endpoint_of_url(plain)
        else:
            self._endpoint = endpoint_of_client(client)
        of_url = options.pop("namespace", NAMESPACE)
        self._namespace = checked_namespace(_one_of("namespace", namespace, of_url, NAMESPACE))
        replicas = _one_of("min_replicas", min_replicas, min_replicas_of(options), None)
        self._min_replicas = checked_min_replicas(replicas)
        self._client = client
        self._script = script if wake is None else script.waking(wake)
        self.session = Session(self._new_topology)

    def _new_topology(self) -> Topology:
        return _Topology(
            self._endpoint, self._client, self._namespace, self._script, self._min_replicas
        )

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

    def __repr__(self) -> str:
        called = str(self.session.tracker.invocations)
        by = f" called by {called}" if called else ""
        return f"<RedisStore {self._endpoint.where} namespace={self._namespace!r}{by}>"

    @property
    def capabilities(self) -> Capabilities:
        """All; but in a cluster, without a hash tag, all keys of a request need one scope."""
        return self.session.capabilities

    @property
    def namespace(self) -> str:
        """What stands at the front of every Redis key and channel."""
        return self._namespace

    def sync_face(self) -> SyncStore:
        """Return the operations for threads."""
        return SyncRedisStore(self.session)

    def async_face(self) -> AsyncStore:
        """Return the operations for asyncio.

        Raises:
            ConfigurationError: TLS is to check what redis-py can check in threads alone.
        """
        self._endpoint.check_event_loops()
        return AsyncRedisStore(self.session)

    def libraries(self) -> list[Library]:
        """Return the libraries of functions that releases of this package have loaded."""
        return find_libraries(self.session.sync_transport())

    def delete_library(self, name: str) -> None:
        """Delete one of them; a program that uses it loads it again."""
        delete_library(self.session.sync_transport(), name)

    def close(self) -> None:
        """Close connections, and end the background thread once no slot is held any more."""
        self.session.close()

    async def aclose(self) -> None:
        """Close the store, in an event loop."""
        await self.session.aclose()


class _Topology:
    """What a session consists of: one server is a cluster of one node, which has all slots."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: object,
        namespace: str,
        script: Script,
        min_replicas: MinReplicas | None,
    ) -> None:
        self._endpoint = endpoint
        self._client: redis.Redis | None = None
        self._min_replicas = min_replicas
        self._repeats = min_replicas is not None or isinstance(endpoint, ClusterEndpoint)
        if isinstance(endpoint, ClusterEndpoint):
            self.tracker = RequestTracker(namespace, sharded=True)
            keyspace, refusals = self.tracker.keyspace, self.tracker.refusals
            check_cluster(keyspace)

            def ask(node: Node, seconds: float) -> Any:
                refusals.check()
                with refusals.watched():
                    return endpoint.ask_slots(node, seconds)

            self._script = in_slots(script)
            self._slot_map = SlotMap(keyspace, endpoint.seeds, ask, endpoint.remap)
            self.capabilities = Capabilities(
                spans_scopes=keyspace.in_one_slot, sure_release=True, policies=True
            )
        else:
            self.tracker = RequestTracker(namespace, database=endpoint.database)
            self._script = script
            self._slot_map = SingleNodeMap(self.tracker.keyspace)
            self.capabilities = Capabilities(sure_release=True, policies=True)
            # Connections of a user's to a master do not notice that another was promoted.
            is_of_sentinels = isinstance(endpoint, SentinelEndpoint)
            if not (self._repeats or is_of_sentinels) and isinstance(client, redis.Redis):
                self._client = client
        self.tracker.where = endpoint.where
        renewal_timeout = RENEWAL_TIMEOUT if self.tracker.sharded else TIMEOUT
        self.renewer = LeaseRenewer(
            self.tracker,
            endpoint,
            self._slot_map,
            lambda: self._new_sync_transport(self._own_pool, TIMEOUT, renewal_timeout),
        )

    def new_sync_transport(self, *, own: bool) -> SyncTransport:
        new_pool = self._own_pool if own or self._client is None else self._borrowed_pool
        return self._new_sync_transport(new_pool, self._endpoint.timeout, self._endpoint.timeout)

    def new_async_transport(self) -> AsyncTransport:
        return AsyncTransport(
            self._endpoint,
            self._slot_map,
            self.tracker,
            self._script,
            self.new_sync_transport(own=True) if self._repeats else None,
            in_flight=1 if self._repeats else 2,
            patience=self._endpoint.timeout if self._repeats else None,
            min_replicas=self._min_replicas,
        )

    def _new_sync_transport(
        self, new_pool: Callable[[Node, float], ConnectionPool], timeout: float, patience: float
    ) -> SyncTransport:
        return SyncTransport(
            self._endpoint.where,
            self._slot_map,
            self.tracker,
            self._script,
            new_pool,
            timeout=timeout,
            patience=patience if self._repeats else None,
            min_replicas=self._min_replicas,
        )

    def _own_pool(self, node: Node, timeout: float) -> ConnectionPool:
        client = self._endpoint.sync_client(node, timeout=timeout)
        return OwnPool(client, self.tracker.refusals)

    def _borrowed_pool(self, node: Node, timeout: float) -> ConnectionPool:  # noqa: ARG002
        assert self._client is not None
        return BorrowedPool(self._client)


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
            f"{name} is given twice, and differs: {brief(given)}, and {brief(of_url)} in the URL"
        )
    return of_url
