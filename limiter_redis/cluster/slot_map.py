"""Which node of a cluster serves an operation: tags, hash slots, and the map of their owners."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ConnectionError  # noqa: A004  (redis-py's own)

from limiter_core.errors import ConfigurationError
from limiter_core.jitter import jitter
from limiter_core.requests import Request
from limiter_core.signal_errors import reraise_if_of_signal
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemThread
from limiter_redis.connection.deadlines import NoAnswer
from limiter_redis.connection.nodes import ONLY_NODE, Node
from limiter_redis.protocol import commands, words
from limiter_redis.protocol.errors import is_driver_error
from limiter_redis.protocol.keyspace import Keyspace

SLOTS = 16384
_OLD_AFTER = 1.0
_TURN = 0.005


def tag_of(names: Keyspace, key: str) -> str:
    """Return the tag of a limiter key: what begins the names of all that one step touches."""
    if names.in_one_slot:
        return names.common
    return _tag_of_scope(names.opening, key.partition("/")[0])


@functools.lru_cache(maxsize=4096)
def _tag_of_scope(opening: str, scope: str) -> str:
    return f"{opening}{words.key_word(scope)}}}"


@functools.lru_cache(maxsize=4096)
def slot_of(tag: str) -> int:
    """Return the hash slot of a tag, or of a Redis key."""
    return key_slot(tag.encode())


def check_one_slot(request: Request) -> None:
    """Refuse a request that no single node of a cluster can serve.

    Raises:
        ConfigurationError: its keys lie in different slots, or it is durable and has no scope.
    """
    scopes = {demand.key.partition("/")[0] for demand in request.demands}
    if len(scopes) > 1:
        raise ConfigurationError(
            "in a Redis Cluster, limits that are taken together have to live on one node: give "
            'all of them the same scope, as in ConcurrencyLimit(..., scope="orders"), or the store '
            'a hash tag of its own, as in RedisStore(..., namespace="{shop}:limits"). Their keys '
            f"are {', '.join(demand.key for demand in request.demands)}"
        )
    if request.payload is not None and not words.scope_of(request.demands[0].key):
        raise ConfigurationError(
            "in a Redis Cluster, a limit on queued jobs needs a scope, which says on which node "
            'its index of waiting jobs lives: ConcurrencyLimit(..., scope="jobs"). Its key is '
            f"{request.demands[0].key}"
        )


def _pause_until(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise NoAnswer("Timeout reading the slots of the cluster")
    time.sleep(_TURN)


class SlotMap:
    """The nodes of a cluster, and which of them owns which slot. For any thread.

    Args:
        keyspace: the names of the store.
        seeds: nodes that may be asked at first.
        ask: returns what a node answers to CLUSTER SLOTS, in so many seconds at the most.
        remap: from the address that a node calls its own to the one where it can be reached.

    Attributes:
        has_tags: whether operations have tags; else all travel together.
    """

    has_tags = True

    def __init__(
        self,
        keyspace: Keyspace,
        seeds: Sequence[Node],
        ask: Callable[[Node, float], Any],
        remap: Callable[[tuple[str, int]], tuple[str, int]] | None = None,
    ) -> None:
        self._keyspace = keyspace
        self._seeds = list(seeds)
        self._ask = ask
        self._remap = remap
        self._free: list[None] = [None]
        """Empty while a thread reads the map: the others wait for that, each as long as it may."""
        self._reading = MapRefresher(self)
        self._owners: list[Node | None] = []
        """By slot; empty until it is read, for to make it takes longer than all else here."""
        self._masters: set[Node] = set()
        """Those among them, once each: to look through all slots would take a millisecond."""
        self._replicas: list[Node] = []
        self._refreshed_at = -math.inf
        self.version = 0
        """How often the map was read; 0 as long as nothing is known."""

    def tag_of(self, operation: commands.Operation) -> str:
        """Return the tag of an operation: what has one travels together, and in order."""
        names, keys, scope = self._keyspace, operation.keys, operation.scope
        if keys:
            return tag_of(names, keys[0])
        return tag_of(names, scope) if scope else names.common

    def node_of(self, tag: str) -> Node | None:
        """Return the node that owns a tag, None if that is not known."""
        owners = self._owners
        return owners[slot_of(tag)] if owners else None

    def masters(self) -> list[Node]:
        """Return the nodes that own slots, and those that did when the map was read."""
        return sorted(self._masters)

    def moved(self, error: Any, told_by: Node) -> None:
        """Note where a slot went, as the `MovedError` of the node says that had it before."""
        if not self._owners:
            self._owners = [None] * SLOTS
        node = self._reachable(error.host, error.port, told_by)
        self._owners[error.slot_id] = node
        self._masters.add(node)

    def is_stale(self) -> bool:
        """Whether it is time to look whether more has changed than a redirection said."""
        return time.monotonic() - self._refreshed_at > _OLD_AFTER

    def refresh(self, seen: int, deadline: float = math.inf) -> None:
        """Ask the nodes for the map, unless another thread did since the version that was seen.

        Raises:
            RedisError, OSError: no node answers, or none before the deadline.
        """
        while True:
            with suppress(IndexError):
                mine = self._free.pop()
                break
            _pause_until(deadline)
        try:
            if self.version == seen:
                self._read(deadline)
        finally:
            self._free.append(mine)

    def refresh_in_time(self, seen: int, deadline: float) -> None:
        """Have it refreshed by a thread that goes on after the deadline, if it has to.

        So a node that says nothing holds up no call for longer than it may take, and the next call
        finds the map. Where no thread can begin, the nodes share the time that is left.

        Raises:
            RedisError, OSError: no node answers, or none before the deadline.
        """
        reading = self._reading
        if not reading.is_running and self.version == seen:
            reading = self._reading = MapRefresher(self)
            try:
                reading.begin()
            except RuntimeError:
                reraise_if_of_signal()
                self.refresh(seen, deadline)
        while self.version == seen and reading.is_running:
            _pause_until(deadline)
        if self.version == seen:
            raise reading.trouble or ConnectionError("the map of slots was not read")

    def _read(self, deadline: float) -> None:
        masters = self.masters()
        jitter.shuffle(masters)
        reason: Exception = ConnectionError("the cluster has no nodes")
        nodes = [*dict.fromkeys([*masters, *self._replicas, *self._seeds])]
        for number, node in enumerate(nodes):
            left = (deadline - time.monotonic()) / (len(nodes) - number)
            try:
                self._take(self._ask(node, max(_TURN, left)), node)
            except Exception as error:
                if not is_driver_error(error):
                    raise
                reason = error  # whatever it was, the next node may know better
            else:
                self._refreshed_at = time.monotonic()
                self.version += 1
                return
        raise reason

    def _take(self, answer: Any, told_by: Node) -> None:
        owners: list[Node | None] = [None] * SLOTS
        masters: set[Node] = set()
        others: list[Node] = []
        for first, last, *nodes in answer:
            found = [
                self._reachable(host.decode() if host else "", int(port), told_by)
                for host, port, *_ in nodes
            ]
            owners[first : last + 1] = [found[0]] * (last + 1 - first)
            masters.add(found[0])
            others += found[1:]
        if not masters:
            raise ConnectionError("the node knows of no slots")
        self._owners, self._masters, self._replicas = owners, masters, others

    def _reachable(self, host: str, port: int, told_by: Node) -> Node:
        # A node that does not know its own name leaves it out.
        host = told_by.host if host in ("", "?") else host
        return Node(*self._remap((host, port))) if self._remap else Node(host, port)


class SingleNodeMap(SlotMap):
    """The map of a store that has one server: whatever it is asked, it is there."""

    has_tags = False

    def __init__(self, keyspace: Keyspace) -> None:
        super().__init__(keyspace, [ONLY_NODE], lambda _, __: [(0, SLOTS - 1, (b"", 0))])
        self.version = 1

    def node_of(self, tag: str) -> Node | None:  # noqa: ARG002
        """Return the server."""
        return ONLY_NODE

    def tag_of(self, operation: commands.Operation) -> str:  # noqa: ARG002
        """Return the one tag of all that the server has."""
        return ""

    def refresh(self, seen: int, deadline: float = math.inf) -> None:
        """Do nothing: the server has it all."""

    refresh_in_time = refresh

    def moved(self, error: Any, told_by: Node) -> None:
        """Do nothing: there is no other server."""

    def is_stale(self) -> bool:
        """Whether it is time to look: never."""
        return False

    def masters(self) -> list[Node]:
        """Return the server."""
        return [ONLY_NODE]


class MapRefresher:
    """Refreshes the slot map in a thread of its own: a node that says nothing holds up nobody.

    Args:
        slot_map: the map.
        refreshed: is called in that thread after each refresh, with the reason if it failed.

    Attributes:
        is_running: whether a refresh is under way.
        trouble: why the last one failed; None if it did not.
    """

    def __init__(
        self,
        slot_map: SlotMap,
        refreshed: Callable[[Exception | None], object] = lambda _: None,
    ) -> None:
        self._slot_map = slot_map
        self._refreshed = refreshed
        self.is_running = False
        self.trouble: Exception | None = None

    def begin(self) -> None:
        """Begin a refresh, unless one is under way.

        Raises:
            RuntimeError: no thread can begin. The next call tries again.
        """
        if self.is_running:
            return
        seen = self._slot_map.version
        try:
            self.is_running = True
            SystemThread(lambda: self._refresh(seen), "limiter-slots").start()
        except BaseException:  # also one that a signal handler raises
            self.is_running = False
            raise

    def reset(self) -> None:
        """Have the next `begin` begin one, whatever was under way: it may have been interrupted."""
        self.is_running = False

    def _refresh(self, seen: int) -> None:
        trouble: Exception | None = None
        try:
            self._slot_map.refresh(seen)
        except Exception as error:  # noqa: BLE001
            trouble = error
        finally:
            self.trouble = trouble
            self.is_running = False  # last: waiters look at the trouble next
        self._refreshed(trouble)
