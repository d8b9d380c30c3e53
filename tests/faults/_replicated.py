"""Deployments with replicas: a pair behind an address that moves, Sentinel, and Cluster."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import redis

from tests.redis._servers import PATIENCE, Process, _free_port
from tests.redis._tools import until_now

from ._deployments import server_program
from ._ways import TwoWays

SERVICE = "limits"
_AT_ONCE = ("--repl-diskless-sync-delay", "0")
_SLOTS = 16384
_CLUSTERED = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
    *("--cluster-replica-validity-factor", "0", *_AT_ONCE),
)


class Pair:
    """A primary, its replica, and an address that leads to the one that takes writes.

    So it is with a managed server that moves its name, or with a load balancer in front: clients
    know one address, and after a failover find another server there.
    """

    can: ClassVar[frozenset[str]] = frozenset({"failover"})

    def __init__(self, *settings: str) -> None:
        self._settings = (*_AT_ONCE, *settings)
        self._primary = Process(server_program(), *self._settings)
        self._front = TwoWays(self._primary.port)
        self.url = self._front.url
        self._old: list[Process] = []
        self._add_replica()

    def primaries(self) -> list[Process]:
        """Return the one that takes writes."""
        return [self._primary]

    def fall_behind(self) -> None:
        """From now on the replica gets nothing: all writes are lost with the primary."""
        self._link.hold_up()

    def failover(self) -> tuple[float, float]:
        """Kill the primary and promote the replica; returns the moments before and after."""
        before = time.monotonic()
        self._primary.kill()
        self._link.close()  # and what it holds up is never delivered
        self._replica.admin.replicaof("NO", "ONE")
        self._old.append(self._primary)
        self._primary = self._replica
        self._front.lead_to(self._primary.port)
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
        self._link = TwoWays(self._primary.port)
        self._replica = Process(server_program(), *self._settings)
        host, port = self._link.address
        self._replica.admin.replicaof(host, port)
        until_in_step(self._replica)


class Sentinel:
    """A primary, a replica and three sentinels, which agree on a failover by themselves."""

    can: ClassVar[frozenset[str]] = frozenset({"failover"})

    def __init__(self, *settings: str) -> None:
        program = server_program()
        self._servers: list[Process] = []
        self._sentinels: list[_SentinelProcess] = []
        try:
            self._servers += [Process(program, *_AT_ONCE, *settings) for _ in range(2)]
            primary, replica = self._servers
            replica.admin.replicaof("127.0.0.1", primary.port)
            until_in_step(replica)
            self._sentinels += [_SentinelProcess(program) for _ in range(3)]
            for sentinel in self._sentinels:
                sentinel.watch(primary.port)
            until_now(self._know_each_other, "the sentinels know each other and the replica")
        except BaseException:
            self.close()
            raise
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        self.url = f"redis+sentinel://{addresses}/{SERVICE}/0"

    def primaries(self) -> list[Process]:
        """Return the server that the sentinels name."""
        port = self._named()
        return [server for server in self._servers if server.port == port]

    def failover(self) -> tuple[float, float]:
        """Kill the primary, and wait until the sentinels name another; the old one comes back."""
        before = time.monotonic()
        [old] = self.primaries()
        old.kill()
        until_now(lambda: self._named() != old.port, "the sentinels name another primary")
        [new] = self.primaries()
        until_now(lambda: new.admin.role()[0] == "master", "it is one")
        promoted = time.monotonic()
        old.start()
        return before, promoted

    def close(self) -> None:
        """Kill all."""
        for process in (*self._sentinels, *self._servers):
            process.close()

    def _named(self) -> int:
        state: Any = self._sentinels[0].admin.sentinel_get_master_addr_by_name(SERVICE)
        return int(state[1])

    def _know_each_other(self) -> bool:
        states = [sentinel.admin.sentinel_master(SERVICE) for sentinel in self._sentinels]
        return all(
            state["num-other-sentinels"] == len(self._sentinels) - 1 and state["num-slaves"] == 1
            for state in states
        )


class Cluster:
    """Three primaries with a replica each."""

    can: ClassVar[frozenset[str]] = frozenset({"failover"})

    def __init__(self, *settings: str) -> None:
        program = server_program()
        self._servers: list[Process] = []
        try:
            for _ in range(6):
                bus = ("--cluster-port", str(_free_port()))  # else 10,000 above, where none may be
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
        return [server for server in self._alive() if server.admin.role()[0] == "master"]

    def failover(self) -> tuple[float, float]:
        """Kill a primary, and wait until its replica has taken over; the old one comes back."""
        before = time.monotonic()
        old = self.primaries()[0]
        old.kill()
        until_now(lambda: len(self.primaries()) == 3 and self._is_up(), "a replica took over")
        promoted = time.monotonic()
        old.start()
        return before, promoted

    def close(self) -> None:
        """Kill all."""
        for server in self._servers:
            server.close()

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

    def _is_up(self) -> bool:
        infos = [server.admin.cluster("info") for server in self._alive()]
        return all(
            info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(_SLOTS)
            for info in infos
        )


class _SentinelProcess(Process):
    """A sentinel: the same program, with a file that it writes its findings to."""

    def __init__(self, program: str) -> None:
        self._own = Path(tempfile.mkdtemp(prefix="limiter-test-"))
        file = self._own / "sentinel.conf"
        file.touch()
        # The file has to be the first argument.
        start = self._own / "sentinel"
        start.write_text(f'#!/bin/sh\nexec "{program}" "{file}" "$@"\n', encoding="utf-8")
        start.chmod(0o755)
        super().__init__(str(start), "--sentinel")

    def close(self) -> None:
        """Kill it, and remove what it left."""
        super().close()
        shutil.rmtree(self._own, ignore_errors=True)

    def watch(self, port: int) -> None:
        """Have it watch a primary, and act within a second."""
        self.admin.sentinel_monitor(SERVICE, "127.0.0.1", port, 2)
        for name, value in (("down-after-milliseconds", 500), ("failover-timeout", 3000)):
            self.admin.sentinel_set(SERVICE, name, value)


def until_in_step(replica: Process) -> None:
    """Wait until a replica has all that its primary has."""

    def linked() -> bool:
        return bool(replica.admin.info("replication").get("master_link_status") == "up")

    until_now(linked, "the replica follows", patience=PATIENCE)
