"""The renewer of a store in a cluster: hands out what is due to a thread for each node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.jitter import jitter
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemEvent, SystemThread, socket_owner
from limiter_redis.cluster.slot_map import SlotMap, tag_of
from limiter_redis.connection.backoff import Backoff
from limiter_redis.connection.endpoints import ClusterEndpoint
from limiter_redis.connection.nodes import Node
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.commands import BATCH, batched
from limiter_redis.protocol.errors import store_error
from limiter_redis.session.entries import Entry
from limiter_redis.session.node_worker import NodeWorker, Work
from limiter_redis.session.renewal import BAD_ANSWER, TIMEOUT, LeaseRenewer
from limiter_redis.session.subscriber import Subscriber
from limiter_redis.session.tracker import RequestTracker
from limiter_redis.transport.interfaces import ThreadTransport
from limiter_redis.transport.routed_sync_transport import RoutedSyncTransport

T = TypeVar("T")

RENEWAL_TIMEOUT = 0.2
"""Seconds that a renewal is repeated before those behind it go on; its turn comes again soon."""

_WATCH_EVERY = 0.3
"""Seconds between looks at all entries, for tags to be subscribed to."""

_POLL = 0.3
"""Seconds, about, between looks at all who wait, where servers have no sharded channels."""

_REFRESH_AGAIN = 0.2
"""Seconds between looks at who owns what, while something is wrong with it."""


class ClusterLeaseRenewer(LeaseRenewer):
    """Keeps alive what the tracker knows of, wherever it lies."""

    def __init__(
        self,
        tracker: RequestTracker,
        place: ClusterEndpoint,
        slot_map: SlotMap,
        new_wire: Callable[[float], RoutedSyncTransport],
    ) -> None:
        super().__init__(tracker, lambda timeout: place.sync_client(timeout=timeout), new_wire)
        self._new_work = new_wire
        self._endpoint = place
        self._slot_map = slot_map
        self._due_now = SystemEvent()
        self._urgent: dict[str, None] = {}
        self._waited_for: dict[str, None] = {}
        """Tags under which somebody was queued."""
        self._workers: dict[Node | None, NodeWorker] = {}
        self._works: dict[object, RoutedSyncTransport] = {}
        """What carries the work of the threads, by whom its sockets belong to."""
        self._polls = False
        self._poll_at = self._watch_at = self._refresh_at = 0.0
        self._map_is_wrong = False
        self._refresher: SystemThread | None = None
        self._refreshing = Backoff()
        tracker.queued = self.watch

    def watch(self, key: str) -> None:
        """Hear what is said under a key's tag, as soon as may be."""
        tag = tag_of(self._tracker.keyspace, key)
        self._waited_for[tag] = None
        node = self._slot_map.node_of(tag)
        worker = self._workers.get(node)
        if worker is None or tag not in worker.subscribed:
            self._urgent[tag] = None
            self._due_now.set()

    def receives(self, key: str) -> bool:
        """Whether what is said under a key's tag is heard now."""
        tag = tag_of(self._tracker.keyspace, key)
        return any(tag in worker.subscribed for worker in list(self._workers.values()))

    def stop(self) -> None:
        """End the threads; see `LeaseRenewer.stop`."""
        self._due_now.set()
        super().stop()

    # -- the thread that hands out ----------------------------------------------------------------

    def _begin(self) -> tuple[Callable[[], None], Callable[[], None]]:
        workers = self._workers = {}

        def close() -> None:
            for worker in workers.values():
                worker.stop()
            for worker in workers.values():
                worker.join(TIMEOUT)
            while self._works:
                self._works.popitem()[1].close()

        return self._hand_out, close

    def _hand_out(self) -> None:
        self._due_now.wait(self._tick())
        self._due_now.clear()
        try:
            self._hand_out_now(time.monotonic())
        except Exception as error:  # noqa: BLE001
            self._warn("the lease renewer failed, and goes on", error)

    def _hand_out_now(self, now: float) -> None:
        tracker = self._tracker
        if self._slot_map.version == 0 or self._map_is_wrong:
            self._refresh(now)
        if self._polls and now >= self._poll_at:
            self._poll_at = now + _POLL * jitter.uniform(0.5, 1.0)
            tracker.messages_lost()
        urgent = list(self._urgent)
        for tag in urgent:
            self._urgent.pop(tag, None)
        self._want(urgent, at_once=True)
        if now >= self._watch_at and not self._polls:
            self._watch_at = now + _WATCH_EVERY
            self._want(self._tags_to_watch(now), at_once=False)
        due: defaultdict[Node | None, list[Entry]] = defaultdict(list)
        for entry in tracker.due(now):
            due[self._slot_map.node_of(self._tag(entry.key))].append(entry)
        for node, entries in due.items():
            self._give(node, Work(entries=entries, at_once=True))
        for key in tracker.due_looks(now):
            self._give(self._slot_map.node_of(self._tag(key)), Work(looks=[key], at_once=True))
        for entry in tracker.releases_due(now):
            self._give(self._slot_map.node_of(self._tag(entry.key)), Work(releases=[entry]))
        while tracker.undelivered:
            work = Work(notices=[tracker.undelivered.pop()], at_once=True)
            self._give(self._slot_map.node_of(tracker.notices), work)

    def _tags_to_watch(self, now: float) -> set[str]:
        """Return the tags under which somebody waits, or has held for a while.

        Most calls are over before anybody could have something to tell them.
        """
        waited_for: set[str] = set()
        held: set[str] = set()
        for entry in list(self._tracker.entries.values()):
            if not entry.waiting:
                if now - entry.granted_at > _WATCH_EVERY:
                    held.add(self._tag(entry.key))
            elif (tag := self._tag(entry.key)) in self._waited_for:
                waited_for.add(tag)
        for tag in [tag for tag in self._waited_for if tag not in waited_for]:
            self._waited_for.pop(tag, None)
        if self._tracker.on_notice is not None:
            held.add(self._tracker.notices)
        return waited_for | held

    def _tag(self, key: str) -> str:
        return tag_of(self._tracker.keyspace, key)

    def _want(self, tags: Iterable[str], *, at_once: bool) -> None:
        if self._polls:
            return
        by_node: defaultdict[Node | None, list[str]] = defaultdict(list)
        for tag in tags:
            by_node[self._slot_map.node_of(tag)].append(tag)
        for node, some in by_node.items():
            if node is not None:
                self._give(node, Work(tags=some, at_once=at_once))

    def _give(self, node: Node | None, work: Work) -> None:
        worker = self._workers.get(node)
        if worker is None or not worker.give(work):
            worker = self._workers[node] = self._new_worker(node)
            worker.give(work)

    def _new_worker(self, node: Node | None) -> NodeWorker:
        if node is None:
            return NodeWorker(self, None, "unowned")
        return NodeWorker(
            self,
            lambda: Subscriber(
                self._endpoint.sync_client(node, timeout=TIMEOUT),
                self._tracker.refusals,
                sharded=True,
            ),
            f"{node.host}:{node.port}",
        )

    def _refresh(self, now: float) -> None:
        if now < self._refresh_at or not self._refreshing.is_due(now):
            return
        self._refresh_at = now + _REFRESH_AGAIN
        if self._refresher is not None and self._refresher.is_alive():
            return
        self._map_is_wrong = False
        # In a thread of its own: a node that says nothing must not hold up work at the others.
        self._refresher = SystemThread(self._refresh_now, "limiter-slots")
        self._refresher.start()

    def _refresh_now(self) -> None:
        try:
            self._slot_map.refresh(self._slot_map.version)
        except Exception as error:  # noqa: BLE001
            self._map_is_wrong = True
            self._refreshing.failed()
            if self._tracker.depends():
                what = "cannot learn which node has what, will try again"
                self._warn(what, store_error(error, self._endpoint.where))
        else:
            self._refreshing.over()
        self._watch_at = 0.0
        self._due_now.set()

    # -- for the threads of the nodes -------------------------------------------------------------

    def renew(self, entries: list[Entry]) -> None:
        """Renew leases and tickets."""
        for some in batched(entries, BATCH):
            self._carefully(self._renew, some)

    def look(self, keys: list[str]) -> None:
        """Look at keys whose time is up."""
        for some in batched(keys, BATCH):
            self._carefully(self._look, some)

    def give_back(self, releases: list[Entry]) -> None:
        """Release what nobody wants any more."""
        for some in batched(releases, BATCH):
            self._carefully(self._release, some)

    def _release(self, wire: ThreadTransport, entries: list[Entry]) -> None:
        super()._release(wire, entries)
        if self._stopping.is_set():
            for entry in entries:  # what could not be released ends by itself
                self._tracker.released(entry)

    def receive(self, messages: list[tuple[bytes, bytes]]) -> None:
        """Pass on messages."""
        notices = self._tracker.notices.encode()
        for channel, said in messages:
            if channel == notices:
                self._tracker.receive_undelivered(replies.text_of(said))
            else:
                self._tracker.receive([replies.text_of(said)], time.monotonic())

    def pass_on(self, notices: list[str]) -> None:
        """Tell other processes of jobs that nobody here can wake; else the sweep finds them."""
        for line in notices:
            self._carefully(self._publish, [line])

    def _publish(self, wire: ThreadTransport, lines: list[str]) -> None:
        wire.command("SPUBLISH", self._tracker.notices, *lines)

    def subscribed_to(self, tags: set[str]) -> None:
        """Have those looked at again who missed what was said before: the leases, too."""
        self._tracker.messages_lost(lambda entry: self._tag(entry.key) in tags)
        self.listening = True
        self._due_now.set()

    def slots_moved(self) -> None:
        """Have it learnt anew which node has what."""
        self._map_is_wrong = True
        self._due_now.set()

    def not_subscribed(self, error: Exception | None) -> None:
        """Note why nothing is heard at some node."""
        if error is not None and self._tracker.depends():
            self._warn(
                "cannot receive messages, will try again", store_error(error, self._endpoint.where)
            )

    def no_sharded_channels(self, error: Exception) -> None:
        """Look at all who wait from time to time, since the servers have no sharded channels."""
        if not self._polls:
            self._warn("no sharded pub/sub here, will look instead", error)
        self._polls = True

    def channel(self, tag: str) -> bytes:
        """Return the channel of this process under a tag; that of notices is its own tag."""
        if tag == self._tracker.notices:
            return tag.encode()
        return f"{tag}:process:{self._tracker.process}".encode()

    def tick(self) -> float:
        """Return the seconds between looks at the clock."""
        return self._tick()

    def _call(
        self, wire: ThreadTransport, operations: list[commands.Operation]
    ) -> list[str | None]:
        """Carry out operations and pass on the news; None in place of a reply that is an error.

        One slot that is away must not take the others along.
        """
        sent_at = time.monotonic()
        lines, news = wire.call_each(operations)
        self._tracker.receive(news, sent_at)
        trouble = next((line for line in lines if isinstance(line, StoreError)), None)
        if isinstance(trouble, StoreUnavailable):
            self.slots_moved()
            if self._tracker.depends():
                self._warn("cannot renew some leases, will retry until they end", trouble)
        elif trouble is not None:
            self._warn(BAD_ANSWER, trouble)
        else:
            self._no_trouble()
        return [None if isinstance(line, StoreError) else line for line in lines]

    def _carefully(
        self, work: Callable[[ThreadTransport, list[T]], object], items: list[T]
    ) -> None:
        try:
            owner = socket_owner()
            wire = self._works.get(owner)
            if wire is None:
                wire = self._works.setdefault(owner, self._new_work(TIMEOUT))
            work(wire, items)
        except Exception as error:  # noqa: BLE001
            # It must not end while leases depend on it, whatever a listener or a reply did.
            self._warn("the lease renewer failed, and goes on", error)
