"""What a session consists of: by whether its endpoint is one server, or a cluster."""

from __future__ import annotations

from typing import Any

import redis

from limiter_core.store import Capabilities
from limiter_redis.cluster.redirects import in_slots
from limiter_redis.cluster.replicas import MinReplicas
from limiter_redis.cluster.slot_map import SingleNodeMap, SlotMap
from limiter_redis.connection.endpoints import ClusterEndpoint
from limiter_redis.connection.exchange import BorrowedPool, ConnectionPool, OwnPool
from limiter_redis.connection.nodes import Endpoint, Node
from limiter_redis.protocol.keyspace import check_cluster
from limiter_redis.protocol.script import Script
from limiter_redis.session.renewal import RENEWAL_TIMEOUT, TIMEOUT, LeaseRenewer
from limiter_redis.session.session import Topology
from limiter_redis.session.tracker import RequestTracker
from limiter_redis.transport.async_transport import AsyncTransport
from limiter_redis.transport.interfaces import LoopTransport, ThreadTransport
from limiter_redis.transport.routed_async_transport import RoutedAsyncTransport
from limiter_redis.transport.routed_sync_transport import RoutedSyncTransport
from limiter_redis.transport.sync_transport import SyncTransport


def new_topology(
    endpoint: Endpoint,
    client: object,
    namespace: str,
    script: Script,
    min_replicas: MinReplicas | None,
) -> Topology:
    """Return what a session consists of.

    Args:
        endpoint: where the servers are.
        client: the user's, if there is one.
        namespace: of the store.
        script: the store's.
        min_replicas: how many replicas have to confirm a grant.
    """
    if isinstance(endpoint, ClusterEndpoint):
        return _ClusterTopology(endpoint, namespace, script, min_replicas)
    if min_replicas is not None:
        return _ReplicatedTopology(endpoint, namespace, script, min_replicas)
    return _ServerTopology(endpoint, client, namespace, script)


class _ServerTopology:
    """What a session consists of, for one server."""

    capabilities = Capabilities(sure_release=True)

    def __init__(self, endpoint: Endpoint, client: object, namespace: str, script: Script) -> None:
        self._endpoint = endpoint
        self._client = client if isinstance(client, redis.Redis) else None
        self._script = script
        self.tracker = RequestTracker(namespace, database=endpoint.database)
        self.tracker.where = endpoint.where
        self.renewer = LeaseRenewer(
            self.tracker, endpoint, SingleNodeMap(), lambda: self._with_own_pool(TIMEOUT)
        )

    def new_sync_transport(self, *, own: bool) -> ThreadTransport:
        timeout = self._endpoint.timeout
        if self._client is not None and not own:
            return self._over(BorrowedPool(self._client), timeout)
        return self._with_own_pool(timeout)

    def _with_own_pool(self, timeout: float) -> ThreadTransport:
        client = self._endpoint.sync_client(timeout=timeout)
        return self._over(OwnPool(client, self.tracker.refusals), timeout)

    def _over(self, connections: ConnectionPool, timeout: float) -> ThreadTransport:
        tracker, where = self.tracker, self._endpoint.where
        transport = SyncTransport(
            *(connections, tracker.keyspace, tracker.process, where, self._script),
            timeout=timeout,
            refusals=tracker.refusals,
        )
        transport.reply_lost = tracker.messages_lost
        return transport

    def new_async_transport(self) -> LoopTransport:
        tracker, endpoint = self.tracker, self._endpoint
        return AsyncTransport(
            endpoint.async_client(),
            endpoint.where,
            self._script,
            tracker,
            timeout=endpoint.timeout,
        )


class _RoutedTopology:
    """What topologies with a slot map have in common."""

    capabilities: Capabilities
    renewer: LeaseRenewer

    def __init__(
        self,
        endpoint: Endpoint,
        slot_map: SlotMap,
        tracker: RequestTracker,
        script: Script,
        min_replicas: MinReplicas | None,
    ) -> None:
        self._endpoint = endpoint
        self._slot_map = slot_map
        self.tracker = tracker
        tracker.where = endpoint.where
        self._script = script
        self._min_replicas = min_replicas

    def new_sync_transport(self, *, own: bool) -> RoutedSyncTransport:  # noqa: ARG002
        return self._with_own_pool(self._endpoint.timeout)

    def _with_own_pool(self, timeout: float, patience: float | None = None) -> RoutedSyncTransport:
        transport = RoutedSyncTransport(
            self._endpoint,
            self._slot_map,
            self.tracker,
            self._script,
            timeout=timeout,
            patience=patience,
            min_replicas=self._min_replicas,
        )
        transport.reply_lost = self.tracker.messages_lost
        return transport

    def new_async_transport(self) -> LoopTransport:
        return RoutedAsyncTransport(
            self._endpoint,
            self._slot_map,
            self.tracker,
            self._script,
            self._with_own_pool(self._endpoint.timeout),
            min_replicas=self._min_replicas,
        )


class _ReplicatedTopology(_RoutedTopology):
    """What a session consists of, for one server whose replicas have to confirm grants."""

    capabilities = Capabilities(sure_release=True)

    def __init__(
        self, endpoint: Endpoint, namespace: str, script: Script, min_replicas: MinReplicas
    ) -> None:
        tracker = RequestTracker(namespace, database=endpoint.database)
        super().__init__(endpoint, SingleNodeMap(), tracker, script, min_replicas)
        self.renewer = LeaseRenewer(
            self.tracker, endpoint, SingleNodeMap(), lambda: self._with_own_pool(TIMEOUT)
        )


class _ClusterTopology(_RoutedTopology):
    """What a session consists of, for a cluster."""

    def __init__(
        self,
        endpoint: ClusterEndpoint,
        namespace: str,
        script: Script,
        min_replicas: MinReplicas | None,
    ) -> None:
        tracker = RequestTracker(namespace, sharded=True)
        check_cluster(tracker.keyspace)

        def ask(node: Node) -> Any:
            tracker.refusals.check()
            with tracker.refusals.watched():
                return endpoint.ask_slots(node)

        slot_map = SlotMap(endpoint.seeds, ask, endpoint.remap)
        self.capabilities = Capabilities(
            spans_scopes=tracker.keyspace.in_one_slot, sure_release=True
        )
        super().__init__(endpoint, slot_map, tracker, in_slots(script), min_replicas)
        self.renewer = LeaseRenewer(
            self.tracker,
            endpoint,
            slot_map,
            lambda: self._with_own_pool(TIMEOUT, RENEWAL_TIMEOUT),
        )
