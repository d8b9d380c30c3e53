"""Deployments with replicas: a pair behind an address that moves, Sentinel, and Cluster."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.redis._ports import free_port
from tests.redis._servers import PATIENCE, Process, server_program
from tests.redis._tools import until_now

from ._network import TwoWayProxy

SERVICE = "limits"
_AT_ONCE = ("--repl-diskless-sync-delay", "0")
_SLOTS = 16384
_NOTED_WITHIN = 0.25
"""Seconds in which the message of a switch is noted, on a busy machine."""
_CLUSTERED = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
    *("--cluster-replica-validity-factor", "0", *_AT_ONCE),
)


class Pair:
    """A primary, its replica, and an address that leads to the one that takes writes.

    So it is with a managed server that moves its name, or with a load balancer in front: clients
    know one address, and after a failover find another server there.
    """

    def __init__(self, *settings: str) -> None:
        self._settings = (*_AT_ONCE, *settings)
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


class Sentinel:
    """A primary, a replica and three sentinels, which agree on a failover by themselves."""

    def __init__(self, *settings: str) -> None:
        program = server_program()
        self._servers: list[Process] = []
        self._sentinels: list[_SentinelProcess] = []
        self._switches: _Switches | None = None
        self._begun_at = 0.0
        self._made: list[tuple[float, float]] = []
        """When failovers were made here: from, until."""
        try:
            self._servers += [Process(program, *_AT_ONCE, *settings) for _ in range(2)]
            primary, replica = self._servers
            replica.admin.replicaof("127.0.0.1", primary.port)
            until_in_step(replica)
            self._sentinels += [_SentinelProcess(program) for _ in range(3)]
            for sentinel in self._sentinels:
                sentinel.watch(primary.port)
            until_now(self._know_each_other, "the sentinels know each other and the replica")
            self._switches = _Switches(self._sentinels[0])
        except BaseException:
            self.close()
            raise
        self._behind: Process | None = None
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        self.url = f"redis+sentinel://{addresses}/{SERVICE}/0"

    def primaries(self) -> list[Process]:
        """Return the server that the sentinels name."""
        state: Any = self._sentinels[0].admin.sentinel_get_master_addr_by_name(SERVICE)
        return [server for server in self._servers if server.port == int(state[1])]

    def fall_behind(self) -> None:
        """From now on the replica gets nothing, and the primary does not mind."""
        self.until_whole()
        [primary] = self.primaries()
        self._behind = self._other_than(primary)
        cut_replication(primary, self._behind)

    def failover(self) -> tuple[float, float]:
        """Kill the primary, and wait until the sentinels name another; the old one comes back.

        Returns:
            The moments before and after; before and after that it was whole.
        """
        if self._behind is None:
            self.until_whole()
        before = self._begun_at = time.monotonic()
        [old] = self.primaries()
        old.kill()
        promoted = self._until_promoted(old)
        old.start()
        return before, promoted

    def failovers_of_their_own(self) -> list[float]:
        """Return when the sentinels replaced a primary that lived: it was slow to answer them."""
        assert self._switches is not None
        return [
            at
            for at in self._switches.moments
            if not any(begun <= at <= until + _NOTED_WITHIN for begun, until in self._made)
        ]

    @contextmanager
    def stands_still(self) -> Generator[Callable[[], float]]:
        """Freeze the primary; gives what waits for the other one's promotion, and says when."""
        self.until_whole()
        self._begun_at = time.monotonic()
        [old] = self.primaries()
        with old.frozen():
            yield lambda: self._until_promoted(old)

    def failover_by_order(self) -> tuple[float, float]:
        """Have the replica promoted although the primary lives, and wait until all name it.

        Returns:
            The moments before and after.
        """
        [old] = self.primaries()
        before = self._begun_at = time.monotonic()
        self._sentinels[0].admin.sentinel_failover(SERVICE)
        return before, self._until_promoted(old)

    @contextmanager
    def not_demoted(self, primary: Process) -> Generator[None]:
        """Let no sentinel make a replica of a primary, as if none reached it."""
        rights = "ACL", "SETUSER", "default"
        primary.admin.execute_command(*rights, "-replicaof", "-slaveof")
        try:
            yield
        finally:
            primary.admin.execute_command(*rights, "+replicaof", "+slaveof")

    @contextmanager
    def replaced_by_order(self) -> Generator[tuple[float, float, float]]:
        """Replace a primary that lives on, and that nobody demotes.

        Gives the moments before and after, and that from which on no client asks it any more.
        """
        self.until_whole()
        [old] = self.primaries()
        new = self._other_than(old)

        def is_left() -> bool:
            asked, enough = old.calls(), new.calls() + 30
            until_now(lambda: new.calls() > enough, "the other one is asked")
            return old.calls() == asked

        with self.not_demoted(old):
            moments = self.failover_by_order()
            until_now(is_left, "it is asked no more")
            yield (*moments, time.monotonic())

    def until_whole(self) -> None:
        """Wait until the old primary follows the new one, and all sentinels know."""
        until_now(self._know_each_other, "the sentinels know each other and the replica")
        [primary] = self.primaries()
        replica = self._other_than(primary)
        if replica.admin.role()[0] == "master":
            # Sentinels, too, would do this; but ten seconds later.
            replica.admin.replicaof("127.0.0.1", primary.port)
        until_follows(replica, primary)

    def close(self) -> None:
        """Kill all."""
        if self._switches is not None:
            self._switches.close()
        for process in (*self._sentinels, *self._servers):
            process.close()

    def _until_promoted(self, old: Process) -> float:
        new = self._other_than(old)
        until_now(lambda: self._named() == {new.port}, "all sentinels name the other server")
        until_now(lambda: new.admin.role()[0] == "master", "it is a primary")
        if self._behind is not None:
            mend_replication(self._behind)
            self._behind = None
        promoted = time.monotonic()
        self._made.append((self._begun_at, promoted))
        return promoted

    def _other_than(self, server: Process) -> Process:
        [other] = [each for each in self._servers if each is not server]
        return other

    def _named(self) -> set[int]:
        named: set[int] = set()
        for sentinel in self._sentinels:
            state: Any = sentinel.admin.sentinel_get_master_addr_by_name(SERVICE)
            named.add(int(state[1]))
        return named

    def _know_each_other(self) -> bool:
        states = [sentinel.admin.sentinel_master(SERVICE) for sentinel in self._sentinels]
        return all(
            state["num-other-sentinels"] == len(self._sentinels) - 1 and state["num-slaves"] == 1
            for state in states
        )


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


class _Switches:
    """When a sentinel named another primary."""

    def __init__(self, sentinel: Process) -> None:
        self.moments: list[float] = []
        self._messages = sentinel.admin.pubsub(ignore_subscribe_messages=True)
        self._messages.subscribe(**{"+switch-master": self._note})
        self._thread = self._messages.run_in_thread(sleep_time=0.1, daemon=True)

    def _note(self, _: object) -> None:
        self.moments.append(time.monotonic())

    def close(self) -> None:
        self._thread.stop()
        self._thread.join(PATIENCE)


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


def until_follows(replica: Process, primary: Process) -> None:
    """Wait until a server is an up-to-date replica of another one."""

    def follows() -> bool:
        role = replica.admin.role()
        return bool(role[0] == "slave" and role[2] == primary.port and role[3] == "connected")

    until_now(follows, "the old primary follows the new one", patience=PATIENCE)


def cut_replication(primary: Process, replica: Process) -> None:
    """End it for good, in a way of which neither makes anything but a bad connection."""
    replica.admin.config_set("masterauth", "a password that is not needed")
    primary.admin.execute_command("CLIENT", "KILL", "TYPE", "replica")


def mend_replication(replica: Process) -> None:
    """Have a server replicate again, whenever it is a replica."""
    replica.admin.config_set("masterauth", "")
