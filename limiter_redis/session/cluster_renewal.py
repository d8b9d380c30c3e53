"""The keeper of a store in a cluster: hands out what is due to a thread for each node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.jitter import jitter
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemEvent, SystemThread, socket_owner
from limiter_redis.cluster.slot_map import Node, Slots, tag_of
from limiter_redis.connection.backoff import Backoff
from limiter_redis.connection.endpoints import ClusterPlace
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.commands import batched
from limiter_redis.session.entries import Entry
from limiter_redis.session.node_worker import Shard, Work
from limiter_redis.session.renewal import BAD_ANSWER, PATIENCE, Keeper
from limiter_redis.session.subscriber import Ear
from limiter_redis.session.tracker import Hub
from limiter_redis.transport.routed_sync_transport import RoutedWire
from limiter_redis.transport.sync_transport import BATCH, Way, store_error

T = TypeVar("T")

KEEPERS_PATIENCE = 0.2
"""Seconds that a renewal is repeated before those behind it go on; its turn comes again soon."""

_CENSUS = 0.3
"""Seconds between looks at all that live, for tags that have to be heard."""

_POLL = 0.3
"""Seconds, about, between looks at all who wait, where servers have no sharded channels."""

_LEARN_AGAIN = 0.2
"""Seconds between looks at who owns what, while something is wrong with it."""


class ClusterKeeper(Keeper):
    """Keeps alive what the hub knows of, wherever it lies."""

    def __init__(
        self, hub: Hub, place: ClusterPlace, slots: Slots, new_wire: Callable[[float], RoutedWire]
    ) -> None:
        super().__init__(hub, lambda timeout: place.sync_client(timeout=timeout), new_wire)
        self._new_work = new_wire
        self._place = place
        self._slots = slots
        self._due_now = SystemEvent()
        self._urgent: dict[str, None] = {}
        self._waited_for: dict[str, None] = {}
        """Tags under which somebody was queued."""
        self._shards: dict[Node | None, Shard] = {}
        self._works: dict[object, RoutedWire] = {}
        """What carries the work of the threads, by whom its sockets belong to."""
        self._polls = False
        self._poll_at = self._census_at = self._learn_at = 0.0
        self._map_is_wrong = False
        self._learner: SystemThread | None = None
        self._learning = Backoff()
        hub.queued = self.heed

    def heed(self, key: str) -> None:
        """Hear what is said under a key's tag, as soon as may be."""
        tag = tag_of(self._hub.names, key)
        self._waited_for[tag] = None
        node = self._slots.node_of(tag)
        shard = self._shards.get(node)
        if shard is None or tag not in shard.hearing:
            self._urgent[tag] = None
            self._due_now.set()

    def hears(self, key: str) -> bool:
        """Whether what is said under a key's tag is heard now."""
        tag = tag_of(self._hub.names, key)
        return any(tag in shard.hearing for shard in list(self._shards.values()))

    def stop(self) -> None:
        """End the threads; see `Keeper.stop`."""
        self._due_now.set()
        super().stop()

    # -- the thread that hands out ----------------------------------------------------------------

    def _begin(self) -> tuple[Callable[[], None], Callable[[], None]]:
        shards = self._shards = {}

        def close() -> None:
            for shard in shards.values():
                shard.stop()
            for shard in shards.values():
                shard.join(PATIENCE)
            while self._works:
                self._works.popitem()[1].close()

        return self._hand_out, close

    def _hand_out(self) -> None:
        self._due_now.wait(self._tick())
        self._due_now.clear()
        try:
            self._hand_out_now(time.monotonic())
        except Exception as error:  # noqa: BLE001
            self._say("the keeper failed, and goes on", error)

    def _hand_out_now(self, now: float) -> None:
        hub = self._hub
        if self._slots.version == 0 or self._map_is_wrong:
            self._learn(now)
        if self._polls and now >= self._poll_at:
            self._poll_at = now + _POLL * jitter.uniform(0.5, 1.0)
            hub.silence()
        urgent = list(self._urgent)
        for tag in urgent:
            self._urgent.pop(tag, None)
        self._want(urgent, at_once=True)
        if now >= self._census_at and not self._polls:
            self._census_at = now + _CENSUS
            self._want(self._to_be_heard(now), at_once=False)
        due: defaultdict[Node | None, list[Entry]] = defaultdict(list)
        for live in hub.due(now):
            due[self._slots.node_of(self._tag(live.key))].append(live)
        for node, lives in due.items():
            self._give(node, Work(lives=lives, at_once=True))
        for key in hub.due_looks(now):
            self._give(self._slots.node_of(self._tag(key)), Work(looks=[key], at_once=True))
        for entry in hub.releases_due(now):
            self._give(self._slots.node_of(self._tag(entry.key)), Work(releases=[entry]))
        while hub.undelivered:
            work = Work(notices=[hub.undelivered.pop()], at_once=True)
            self._give(self._slots.node_of(hub.notices), work)

    def _to_be_heard(self, now: float) -> set[str]:
        """Return the tags under which somebody waits, or has held for a while.

        Most calls are over before anybody could have something to tell them.
        """
        waited_for: set[str] = set()
        held: set[str] = set()
        for live in list(self._hub.live.values()):
            if not live.waiting:
                if now - live.granted_at > _CENSUS:
                    held.add(self._tag(live.key))
            elif (tag := self._tag(live.key)) in self._waited_for:
                waited_for.add(tag)
        for tag in [tag for tag in self._waited_for if tag not in waited_for]:
            self._waited_for.pop(tag, None)
        if self._hub.on_notice is not None:
            held.add(self._hub.notices)
        return waited_for | held

    def _tag(self, key: str) -> str:
        return tag_of(self._hub.names, key)

    def _want(self, tags: Iterable[str], *, at_once: bool) -> None:
        if self._polls:
            return
        by_node: defaultdict[Node | None, list[str]] = defaultdict(list)
        for tag in tags:
            by_node[self._slots.node_of(tag)].append(tag)
        for node, some in by_node.items():
            if node is not None:
                self._give(node, Work(tags=some, at_once=at_once))

    def _give(self, node: Node | None, work: Work) -> None:
        shard = self._shards.get(node)
        if shard is None or not shard.give(work):
            shard = self._shards[node] = self._new_shard(node)
            shard.give(work)

    def _new_shard(self, node: Node | None) -> Shard:
        if node is None:
            return Shard(self, None, "unowned")
        return Shard(
            self,
            lambda: Ear(
                self._place.sync_client(node, timeout=PATIENCE), self._hub.refusals, sharded=True
            ),
            f"{node.host}:{node.port}",
        )

    def _learn(self, now: float) -> None:
        if now < self._learn_at or not self._learning.is_due(now):
            return
        self._learn_at = now + _LEARN_AGAIN
        if self._learner is not None and self._learner.is_alive():
            return
        self._map_is_wrong = False
        # In a thread of its own: a node that says nothing must not hold up work at the others.
        self._learner = SystemThread(self._learn_now, "limiter-slots")
        self._learner.start()

    def _learn_now(self) -> None:
        try:
            self._slots.learn(self._slots.version)
        except Exception as error:  # noqa: BLE001
            self._map_is_wrong = True
            self._learning.failed()
            if self._hub.depends():
                what = "cannot learn which node has what, will try again"
                self._say(what, store_error(error, self._place.where))
        else:
            self._learning.over()
        self._census_at = 0.0
        self._due_now.set()

    # -- for the threads of the nodes -------------------------------------------------------------

    def renew(self, lives: list[Entry]) -> None:
        """Renew leases and tickets."""
        for some in batched(lives, BATCH):
            self._carefully(self._renew, some)

    def look(self, keys: list[str]) -> None:
        """Look at keys whose time is up."""
        for some in batched(keys, BATCH):
            self._carefully(self._look, some)

    def give_back(self, releases: list[Entry]) -> None:
        """Release what nobody wants any more."""
        for some in batched(releases, BATCH):
            self._carefully(self._release, some)

    def _release(self, wire: Way, entries: list[Entry]) -> None:
        super()._release(wire, entries)
        if self._stopping.is_set():
            for entry in entries:  # what could not be released ends by itself
                self._hub.released(entry)

    def hear(self, messages: list[tuple[bytes, bytes]]) -> None:
        """Pass on messages."""
        notices = self._hub.notices.encode()
        for channel, said in messages:
            if channel == notices:
                self._hub.hear_undelivered(protocol.text_of(said))
            else:
                self._hub.hear([protocol.text_of(said)], time.monotonic())

    def pass_on(self, notices: list[str]) -> None:
        """Tell other processes of jobs that nobody here can wake; else the sweep finds them."""
        for line in notices:
            self._carefully(self._publish, [line])

    def _publish(self, wire: Way, lines: list[str]) -> None:
        wire.command("SPUBLISH", self._hub.notices, *lines)

    def heard_from_now_on(self, tags: set[str]) -> None:
        """Have those looked at again who missed what was said before: the leases, too."""
        self._hub.silence(lambda entry: self._tag(entry.key) in tags)
        self.listening = True
        self._due_now.set()

    def elsewhere(self) -> None:
        """Have it learnt anew which node has what."""
        self._map_is_wrong = True
        self._due_now.set()

    def deaf(self, error: Exception | None) -> None:
        """Note why nothing is heard at some node."""
        if error is not None and self._hub.depends():
            self._say("cannot hear messages, will try again", store_error(error, self._place.where))

    def without_channels(self, error: Exception) -> None:
        """Look at all who wait from time to time, since the servers have no sharded channels."""
        if not self._polls:
            self._say("no sharded pub/sub here, will look instead", error)
        self._polls = True

    def channel(self, tag: str) -> bytes:
        """Return the channel of this process under a tag; that of notices is its own tag."""
        if tag == self._hub.notices:
            return tag.encode()
        return f"{tag}:process:{self._hub.process}".encode()

    def tick(self) -> float:
        """Return the seconds between looks at the clock."""
        return self._tick()

    def _call(self, wire: Way, operations: list[protocol.Operation]) -> list[str | None]:
        """Carry out operations and pass on the news; None in place of a reply that is an error.

        One slot that is away must not take the others along.
        """
        sent_at = time.monotonic()
        lines, news = wire.call_each(operations)
        self._hub.hear(news, sent_at)
        trouble = next((line for line in lines if isinstance(line, StoreError)), None)
        if isinstance(trouble, StoreUnavailable):
            self.elsewhere()
            if self._hub.depends():
                self._say("cannot renew some leases, will retry until they end", trouble)
        elif trouble is not None:
            self._say(BAD_ANSWER, trouble)
        else:
            self._no_trouble()
        return [None if isinstance(line, StoreError) else line for line in lines]

    def _carefully(self, work: Callable[[Way, list[T]], object], items: list[T]) -> None:
        try:
            owner = socket_owner()
            wire = self._works.get(owner)
            if wire is None:
                wire = self._works.setdefault(owner, self._new_work(PATIENCE))
            work(wire, items)
        except Exception as error:  # noqa: BLE001
            # It must not end while leases depend on it, whatever a listener or a reply did.
            self._say("the keeper failed, and goes on", error)
