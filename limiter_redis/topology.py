"""The ways from a process to the place where its store lives: one server, or many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import redis

from limiter_core.store import Capabilities
from limiter_redis.cluster.redirects import MinReplicas, in_slots
from limiter_redis.cluster.slot_map import Node, OneServer, Slots
from limiter_redis.connection.endpoints import ClusterPlace, Place
from limiter_redis.connection.exchange import BorrowedConnections, Connections, OwnConnections
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.keyspace import check_cluster
from limiter_redis.protocol.script import Script
from limiter_redis.session.cluster_renewal import KEEPERS_PATIENCE, ClusterKeeper
from limiter_redis.session.renewal import Keeper
from limiter_redis.session.tracker import Hub
from limiter_redis.transport.async_transport import AsyncWire
from limiter_redis.transport.routed_async_transport import RoutedAsyncWire
from limiter_redis.transport.routed_sync_transport import RoutedWire
from limiter_redis.transport.sync_transport import Way, Wire


class AsyncWay(Protocol):
    """A way for one event loop, to one server or to many; see `AsyncWire`."""

    loop: asyncio.AbstractEventLoop

    def submit(
        self, operation: protocol.Operation, deadline: float | None = None
    ) -> asyncio.Future[str]:
        """Have an operation carried out; the future is its reply."""
        ...

    async def command(self, *command: Any, node: Node | None = None) -> Any:
        """Carry out one plain command, at a node or where its key is."""
        ...

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that have keys."""
        ...

    async def aclose(self) -> None:
        """Close the connections, when what was asked before is done."""
        ...

    def abandon(self) -> None:
        """Close the connections of a loop that was closed before; from any thread."""
        ...


class Ways(Protocol):
    """What a store is made of, in one process. Nothing connects before it is used."""

    @property
    def capabilities(self) -> Capabilities:
        """What a store on them can do."""
        ...

    @property
    def hub(self) -> Hub:
        """Who in this process waits or holds."""
        ...

    @property
    def keeper(self) -> Keeper:
        """Who keeps them alive."""
        ...

    def new_wire(self, timeout: float, *, own: bool = False) -> Way:
        """Return a way for threads: with a user's client, if there is one, or else on our own."""
        ...

    def new_async_wire(self) -> AsyncWay:
        """Return a way for the running event loop."""
        ...


def ways_to(
    place: Place,
    client: object,
    namespace: str,
    script: Script,
    min_replicas: MinReplicas | None,
) -> Ways:
    """Return the ways to a place.

    Args:
        place: where the store lives.
        client: the user's, if there is one.
        namespace: of the store.
        script: the store's.
        min_replicas: how many replicas have to confirm a grant.
    """
    if isinstance(place, ClusterPlace):
        return _ClusterWays(place, namespace, script, min_replicas)
    if min_replicas is not None:
        return _CarefulWays(place, namespace, script, min_replicas)
    return _PlainWays(place, client, namespace, script)


class _PlainWays:
    """The ways to one server."""

    capabilities = Capabilities(sure_release=True)

    def __init__(self, place: Place, client: object, namespace: str, script: Script) -> None:
        self._place = place
        self._client = client if isinstance(client, redis.Redis) else None
        self._script = script
        self.hub = Hub(namespace, database=place.database)
        self.hub.where = place.where
        self.keeper = Keeper(
            self.hub, lambda timeout: place.sync_client(timeout=timeout), self._new_wire
        )

    def new_wire(self, timeout: float, *, own: bool = False) -> Way:
        if self._client is not None and not own:
            return self._wire(BorrowedConnections(self._client), timeout)
        return self._new_wire(timeout)

    def _new_wire(self, timeout: float) -> Way:
        client = self._place.sync_client(timeout=timeout)
        return self._wire(OwnConnections(client, self.hub.refusals), timeout)

    def _wire(self, connections: Connections, timeout: float) -> Way:
        hub, where = self.hub, self._place.where
        wire = Wire(
            *(connections, hub.names, hub.process, where, self._script),
            timeout=timeout,
            refusals=hub.refusals,
        )
        wire.reply_lost = hub.silence
        return wire

    def new_async_wire(self) -> AsyncWay:
        hub, place = self.hub, self._place
        return AsyncWire(
            place.async_client(),
            place.where,
            self._script,
            hub,
            timeout=place.timeout,
        )


class _RoutedWays:
    """What the ways through a map of slots have in common."""

    capabilities: Capabilities
    keeper: Keeper

    def __init__(
        self,
        place: Place,
        slots: Slots,
        hub: Hub,
        script: Script,
        min_replicas: MinReplicas | None,
    ) -> None:
        self._place = place
        self._slots = slots
        self.hub = hub
        hub.where = place.where
        self._script = script
        self._min_replicas = min_replicas

    def new_wire(
        self,
        timeout: float,
        patience: float | None = None,
        *,
        own: bool = True,  # noqa: ARG002
    ) -> RoutedWire:
        wire = RoutedWire(
            self._place,
            self._slots,
            self.hub,
            self._script,
            timeout=timeout,
            patience=patience,
            min_replicas=self._min_replicas,
        )
        wire.reply_lost = self.hub.silence
        return wire

    def new_async_wire(self) -> AsyncWay:
        return RoutedAsyncWire(
            self._place,
            self._slots,
            self.hub,
            self._script,
            self.new_wire(self._place.timeout),
            min_replicas=self._min_replicas,
        )


class _CarefulWays(_RoutedWays):
    """The ways to one server whose replicas have to confirm grants."""

    capabilities = Capabilities(sure_release=True)

    def __init__(
        self, place: Place, namespace: str, script: Script, min_replicas: MinReplicas
    ) -> None:
        hub = Hub(namespace, database=place.database)
        super().__init__(place, OneServer(), hub, script, min_replicas)
        self.keeper = Keeper(
            self.hub, lambda timeout: place.sync_client(timeout=timeout), self.new_wire
        )


class _ClusterWays(_RoutedWays):
    """The ways to a cluster."""

    def __init__(
        self,
        place: ClusterPlace,
        namespace: str,
        script: Script,
        min_replicas: MinReplicas | None,
    ) -> None:
        hub = Hub(namespace, sharded=True)
        check_cluster(hub.names)

        def ask(node: Node) -> Any:
            hub.refusals.check()
            with hub.refusals.heeded():
                return place.ask_slots(node)

        slots = Slots(place.seeds, ask, place.remap)
        self.capabilities = Capabilities(spans_scopes=hub.names.in_one_slot, sure_release=True)
        super().__init__(place, slots, hub, in_slots(script), min_replicas)
        self.keeper = ClusterKeeper(
            self.hub, place, slots, lambda timeout: self.new_wire(timeout, KEEPERS_PATIENCE)
        )
