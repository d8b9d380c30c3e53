"""A cluster for the tests, seen from behind the store's back; and its time in a test's hands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import redis
from redis.crc import key_slot

from limiter_core.testing import FakeClock
from limiter_redis.protocol.script import SCRIPT, Script
from tests.faults._replicated import Cluster

from ._servers import Process
from ._tools import until_now

__all__ = ("FAKED", "Cluster", "ClusterClock", "Mover", "counted", "flush", "owner_of")

_REAL = "local server_time = call('TIME')\n"
_FAKE = """\
local faked = string.format('%.0f', call('INCR', match(keys[1], '^{.-}') .. 'fake-time'))
local server_time = { string.sub(faked, 1, -7), string.sub(faked, -6) }
"""


def _replaced(text: str) -> str:
    assert text.count(_REAL) == 1, "the script does not ask for the time where it used to"
    return text.replace(_REAL, _FAKE)


FAKED = Script.of(_replaced(SCRIPT.text.decode()))
"""The store's script, on the time of `ClusterClock`."""


class ClusterClock(FakeClock):
    """A clock that the script goes by, wherever it runs: each tag has a copy, beside its keys.

    Args:
        cluster: whose.
        tags: those that the test uses.
    """

    def __init__(self, cluster: Cluster, *tags: str) -> None:
        super().__init__(time.time())
        self._cluster = cluster
        self._keys = [f"{tag}fake-time" for tag in tags]
        self.write()

    def advance(self, seconds: float) -> float:
        """Let time pass, on the nodes as well."""
        for key in self._keys:
            send_to_owner(self._cluster, "INCRBY", key, round(seconds * 1_000_000))
        return super().advance(seconds)

    def write(self) -> None:
        """Tell the nodes (again, if they lost their data)."""
        for key in self._keys:
            send_to_owner(self._cluster, "SET", key, round(self() * 1_000_000))


_owners: WeakKeyDictionary[Cluster, dict[int, Process]] = WeakKeyDictionary()
"""Who owned a slot when it was last asked for."""


def owner_of(cluster: Cluster, name: str) -> Process:
    """Return the node that has a key or a tag."""
    slot = key_slot(name.encode())
    owners = _owners.setdefault(cluster, {})
    if slot in owners and _has(owners[slot], name):
        return owners[slot]
    for server in cluster.primaries():
        if _has(server, name):
            owners[slot] = server
            return server
    raise AssertionError(f"nobody owns the slot of {name}")


def send_to_owner(cluster: Cluster, command: str, key: str, value: int) -> None:
    """Send a command about a key to the node that has it."""
    known = _owners.setdefault(cluster, {}).get(key_slot(key.encode()))
    try:
        (known or owner_of(cluster, key)).admin.execute_command(command, key, value)
    except redis.ResponseError:  # it has the slot no more
        owner_of(cluster, key).admin.execute_command(command, key, value)


def _has(server: Process, name: str) -> bool:
    try:
        server.admin.exists(f"{name}:none" if name.endswith("}") else name)
    except redis.RedisError:  # another has it, or it is not alive
        return False
    return True


def flush(cluster: Cluster) -> list[Process]:
    """Delete all data; returns the nodes that had them."""
    servers = cluster.primaries()
    for server in servers:
        server.admin.flushall()
    return servers


@contextmanager
def counted(cluster: Cluster, *commands: str) -> Iterator[dict[int, dict[str, int]]]:
    """Count how often each node was asked for commands meanwhile."""
    before = {server.port: server.commands() for server in cluster.primaries()}
    counts: dict[int, dict[str, int]] = {}
    yield counts
    for server in cluster.primaries():
        after = server.commands()
        counts[server.port] = {
            name: after.get(name, 0) - before[server.port].get(name, 0) for name in commands
        }


class Mover:
    """Moves a slot from node to node, key by key, as `redis-cli --cluster reshard` does."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self.slot = key_slot(name.encode())
        self._name = name

    def move(self) -> None:
        """Move it to the next node, wholly."""
        old, new = self.begin()
        while self.move_some(old, new, 10):
            pass
        self.finish(old, new)

    def begin(self) -> tuple[Process, Process]:
        """Say that it moves, to both nodes; returns them."""
        servers = self._cluster.primaries()
        old = owner_of(self._cluster, self._name)
        new = servers[(servers.index(old) + 1) % len(servers)]
        self._set(new, "IMPORTING", old.admin.cluster("myid"))
        self._set(old, "MIGRATING", new.admin.cluster("myid"))
        return old, new

    def move_some(self, old: Process, new: Process, count: int) -> int:
        """Move some keys; returns how many."""
        keys = old.admin.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            old.admin.execute_command(
                "MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "REPLACE", "KEYS", *keys
            )
        return len(keys)

    def finish(self, old: Process, new: Process) -> None:
        """Say that it has moved."""
        target: Any = new.admin.cluster("myid")
        for server in (new, old, *self._cluster.primaries()):
            self._set(server, "NODE", target)
        until_now(lambda: owner_of(self._cluster, self._name) is new, "the slot has a new owner")

    def _set(self, server: Process, *state: Any) -> None:
        server.admin.execute_command("CLUSTER", "SETSLOT", self.slot, *state)
