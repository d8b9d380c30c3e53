"""Deployments with replicas: a pair behind an address that moves, and Cluster."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress

import redis

from tests.redis._ports import free_port
from tests.redis._servers import Process, server_program
from tests.redis._tools import until_now

from ._network import TwoWayProxy
from ._replication import AT_ONCE, cut_replication, mend_replication, until_in_step

_SLOTS = 16384
_CLUSTERED = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
    *("--cluster-replica-validity-factor", "0", *AT_ONCE),
)


class Pair:
    """A primary, its replica, and an address that leads to the one that takes writes.

    So it is with a managed server that moves its name, or with a load balancer in front: clients
    know one address, and after a failover find another server there.
    """

    def __init__(self, *settings: str) -> None:
        self._settings = (*AT_ONCE, *settings)
        self._primary = Process(server_program(), *self._settings)
        self._front = TwoWayProxy(self._primary.port)
        self.url = self._front.url
        self._old: list[Process] = []
        self._add_replica()

    def primaries(self) -> list[Process]:
        """Return the one that takes writes."""
        return [self._primary]

    def fall_behind(self) -> None:
        """From now on the replica gets nothing: all writes are lost with the primary."""
        self._link.block()

    def failover(self) -> tuple[float, float]:
        """Kill the primary and promote the replica; returns the moments before and after."""
        before = time.monotonic()
        self._primary.kill()
        self._link.close()  # and what it holds up is never delivered
        self._replica.admin.replicaof("NO", "ONE")
        self._old.append(self._primary)
        self._primary = self._replica
        self._front.connect_to(self._primary.port)
        promoted = time.monotonic()
        self._add_replica()
        return before, promoted

    def close(self) -> None:
        """Kill both, and those that were primaries before."""
        self._front.close()
        self._link.close()
        for server in (self._primary, self._replica, *self._old):
            server.close()

    def _add_replica(self) -> None:
        self._link = TwoWayProxy(self._primary.port)
        self._replica = Process(server_program(), *self._settings)
        host, port = self._link.address
        self._replica.admin.replicaof(host, port)
        until_in_step(self._replica)


class Cluster:
    """Three primaries with a replica each."""

    def __init__(self, *settings: str) -> None:
        program = server_program()
        self._servers: list[Process] = []
        self._behind: Process | None = None
        self._victim: Process | None = None
        try:
            for _ in range(6):
                bus = ("--cluster-port", str(free_port()))  # else 10,000 above, where none may be
                self._servers.append(Process(program, *_CLUSTERED, *bus, *settings))
            self._join()
        except BaseException:
            self.close()
            raise
        self.url = "redis+cluster://" + ",".join(
            f"127.0.0.1:{server.port}" for server in self._servers
        )

    def primaries(self) -> list[Process]:
        """Return the nodes that serve slots now."""
        found = []
        for server in self._servers:
            with suppress(redis.RedisError):  # it is not alive
                if server.admin.role()[0] == "master":
                    found.append(server)
        return found

    def fall_behind(self) -> None:
        """From now on the replica of one primary gets nothing: of the next that fails over."""
        self.until_whole()
        self._victim = self._some_primary()
        self._behind = self._replica_of(self._victim)
        cut_replication(self._victim, self._behind)

    def failover(self) -> tuple[float, float]:
        """Kill a primary, and wait until its replica has taken over; the old one comes back.

        Returns:
            The moments before and after; before that it was whole.
        """
        if self._victim is None:
            self.until_whole()
        old = self._victim or self._some_primary()
        self._victim = None
        new = self._behind or self._replica_of(old)
        before = time.monotonic()
        old.kill()
        promoted = self._until_promoted(old, new)
        old.start()
        return before, promoted

    def failover_by_order(self) -> None:
        """Have a replica take over from a primary that lives, and wait until it has."""
        self.until_whole()
        new = self._replica_of(self._some_primary())
        new.admin.execute_command("CLUSTER", "FAILOVER")
        until_now(lambda: new.admin.role()[0] == "master", "the replica has taken over")

    @contextmanager
    def stands_still(self) -> Generator[Callable[[], float]]:
        """Freeze a primary; gives what waits for its replica's promotion, and says when."""
        self.until_whole()
        old = self._some_primary()
        new = self._replica_of(old)
        with old.frozen():
            yield lambda: self._until_promoted(old, new)
        until_now(lambda: old.admin.role()[0] == "slave", "it is a replica now")

    def until_whole(self) -> None:
        """Wait until there are three primaries again, which replicas follow."""

        def whole() -> bool:
            roles = [server.admin.role() for server in self._servers]
            replicas = [role for role in roles if role[0] == "slave"]
            ports = {role[2] for role in replicas if role[3] == "connected"}
            return len(replicas) == 3 and len(ports) == 3 and self._is_up()

        until_now(whole, "the cluster is whole")

    def close(self) -> None:
        """Kill all."""
        for server in self._servers:
            server.close()

    def _some_primary(self) -> Process:
        """Return one that has something to lose, if there is any."""
        primaries = self.primaries()
        return random.choice([each for each in primaries if each.admin.dbsize()] or primaries)

    def _replica_of(self, primary: Process) -> Process:
        roles = {server.port: server.admin.role() for server in self._alive()}
        return next(
            server
            for server in self._servers
            if roles[server.port][0] == "slave" and roles[server.port][2] == primary.port
        )

    def _until_promoted(self, old: Process, new: Process) -> float:
        until_now(lambda: new.admin.role()[0] == "master", "the replica is a primary")
        others = [server for server in self._servers if server is not old]
        until_now(lambda: self._is_up(others), "all that live know")
        if self._behind is not None:
            mend_replication(self._behind)
            self._behind = None
        return time.monotonic()

    def _join(self) -> None:
        """Make a cluster of them."""
        first, *others = self._servers
        bus = first.admin.config_get("cluster-port")["cluster-port"]
        for server in others:
            server.admin.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        until_now(
            lambda: all(len(server.admin.cluster("nodes")) == 6 for server in self._servers),
            "all nodes know each other",
        )
        for number in range(3):
            primary, replica = self._servers[number], self._servers[number + 3]
            low, high = _SLOTS * number // 3, _SLOTS * (number + 1) // 3 - 1
            primary.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
            replica.admin.execute_command("CLUSTER", "REPLICATE", primary.admin.cluster("myid"))
        until_now(self._is_up, "the cluster is up")

    def _alive(self) -> list[Process]:
        alive = []
        for server in self._servers:
            try:
                server.admin.ping()
            except redis.RedisError:
                continue
            alive.append(server)
        return alive

    def _is_up(self, servers: Iterable[Process] | None = None) -> bool:
        servers = self._alive() if servers is None else servers
        infos = [server.admin.cluster("info") for server in servers]
        return all(
            info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(_SLOTS)
            for info in infos
        )
