"""The lease renewer: a background thread per process that keeps its requests alive.

It hands out what is due to a worker for each node: renewals, looks at keys whose time is up,
releases, notices. Their connections are their own, so that neither a busy event loop nor an
exhausted pool can make a lease run out. It waits for no server: so holders are notified in time
that their leases end. It runs while this process waits or holds, and for a little longer.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from limiter_core.errors import StoreError
from limiter_core.jitter import jitter
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemEvent, SystemThread, new_lock
from limiter_redis.cluster.slot_map import MapRefresher, SlotMap, tag_of
from limiter_redis.connection.backoff import Backoff
from limiter_redis.connection.nodes import ONLY_NODE, Endpoint, Node, Watch
from limiter_redis.protocol.errors import store_error
from limiter_redis.session.entries import Work
from limiter_redis.session.lease_tasks import FAILED, LeaseTasks, tick_of
from limiter_redis.session.node_worker import TIMEOUT, NodeWorker
from limiter_redis.session.subscriber import Subscriber
from limiter_redis.session.tracker import RequestTracker
from limiter_redis.session.warnings import Warnings
from limiter_redis.transport.interfaces import ThreadTransport

_IDLE_AFTER = 10.0
"""Seconds without a request after which the thread ends; the next call starts it again."""

RENEWAL_TIMEOUT = 0.2
"""Seconds that a renewal in a cluster is repeated before those behind it go on; it comes again."""

_WATCH_EVERY = 0.3
"""Seconds between looks at all entries, for tags to be subscribed to."""

_POLL = 0.3
"""Seconds, about, between looks at all waiters, where servers have no sharded channels."""

_REFRESH_AGAIN = 0.2
"""Seconds between refreshes of the slot map, while something is wrong with it."""

_NO_THREAD = "cannot begin a thread for a node, will try again"
_NO_SENTINEL = "cannot get from any Sentinel which server is the master, will try again"
_NO_MAP = "cannot read which node has which slots, will try again"


class LeaseRenewer:
    """Keeps alive what the tracker knows of, at whatever node it is.

    Args:
        tracker: the requests of this process.
        endpoint: where the servers are.
        slot_map: which node has what.
        new_transport: makes a transport for a worker.
    """

    def __init__(
        self,
        tracker: RequestTracker,
        endpoint: Endpoint,
        slot_map: SlotMap,
        new_transport: Callable[[], ThreadTransport],
    ) -> None:
        self._tracker = tracker
        self._endpoint = endpoint
        self._slot_map = slot_map
        self._new_transport = new_transport
        self._warnings = self._new_warnings()
        self._warnings_of: dict[Node | None, Warnings] = {}
        self._lock = new_lock()
        self._thread: SystemThread | None = None
        self._due_now = SystemEvent()
        self._queued: dict[str, None] = {}
        """Tags under which a request of this process was queued, and which the thread has not taken
        yet."""
        self._waited_for: set[str] = set()
        """Those that it has taken, as long as a request waits there. It alone changes them."""
        self._workers: dict[Node | None, NodeWorker] = {}
        self._poll_at = self._watch_at = self._refresh_at = 0.0
        self._map_is_wrong = False
        self._refresher = MapRefresher(slot_map, self._refreshed)
        self._refreshing = Backoff()
        if tracker.sharded:
            tracker.on_queued = self.watch

    @property
    def listening(self) -> bool:
        """Whether messages are received now, at any node."""
        return any(worker.subscribed for worker in list(self._workers.values()))

    def receives(self, key: str) -> bool:
        """Whether what is said under a key's tag is received now."""
        tag = self._tag(key)
        return any(tag in worker.subscribed for worker in list(self._workers.values()))

    def ensure_running(self) -> None:
        """Start the thread if it does not run.

        Raises:
            RuntimeError: no thread can begin. The next call tries again.
        """
        if self._tracker.requests.closing:
            self._tracker.requests.closing = False
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start()

    def _start(self) -> None:
        workers: dict[Node | None, NodeWorker] = {}
        self._workers = workers
        if not self._tracker.sharded:  # now: a call gets the error if its thread cannot begin
            workers[ONLY_NODE] = self._new_worker(ONLY_NODE)
        thread = SystemThread(lambda: self._run(thread, workers), "limiter-lease-renewer")
        try:
            thread.start()
        except RuntimeError:
            for worker in workers.values():
                worker.stop()
            raise
        self._thread = thread

    def stop(self) -> None:
        """End the thread, if it runs; but not before the last lease was given back or lost.

        What it is to release is released before this returns, in bounded time: the process may end.
        Waiters are woken: to ask again starts it anew.
        """
        thread = self._thread
        self._tracker.close()
        self._due_now.set()
        if thread is None or thread.is_current():
            return
        until = time.monotonic() + TIMEOUT
        while self._tracker.releases_due(now := time.monotonic()) and now < until:
            time.sleep(0.02)
        if not self._tracker.requests:
            self._due_now.set()  # a worker ended what there was
            thread.join(max(until - now, 0.0))

    # -- the thread -------------------------------------------------------------------------------

    def _run(self, thread: SystemThread, workers: dict[Node | None, NodeWorker]) -> None:
        tracker = self._tracker
        idle_since = time.monotonic()
        watch = self._endpoint.new_watch(lambda: tracker.requests.shortest, self._looked_for_master)
        try:
            while True:
                for task in (self._hand_out_tags, self._hand_out, tracker.expire):
                    self._carefully(task, time.monotonic())
                self._carefully(tracker.after_turn)
                if watch is not None:
                    self._carefully(watch.ensure_running)
                if self._has_work():
                    idle_since = time.monotonic()
                elif tracker.requests.closing or time.monotonic() - idle_since > _IDLE_AFTER:
                    if self._may_end(thread):
                        return
                self._due_now.wait(tick_of(tracker))
                self._due_now.clear()
        finally:
            with self._lock:
                if self._thread in (thread, None):  # else the next one runs already
                    self._thread = None
            self._close([*workers.values(), *([watch] if watch else [])])

    def _carefully(self, task: Callable[..., object], *given: float) -> None:
        try:
            task(*given)
        except Exception as error:  # noqa: BLE001
            self._warnings.warn(FAILED, error)

    def _may_end(self, thread: SystemThread) -> bool:
        with self._lock:
            self._thread = None
            if not self._has_work() and not self._tracker.notices.undelivered:
                return True
            # Work came in between, and its sender saw a thread that runs: so it does.
            self._thread = thread
            return False

    def _has_work(self) -> bool:
        requests = self._tracker.requests
        return bool(requests or (self._tracker.notices.callback and not requests.closing))

    def _close(self, threads: list[NodeWorker | Watch]) -> None:
        for each in threads:
            each.stop()
        for each in threads:
            each.join(TIMEOUT)

    # -- handing out ------------------------------------------------------------------------------

    def _hand_out(self, now: float) -> None:
        tracker, node_of = self._tracker, self._slot_map.node_of
        work: defaultdict[Node | None, Work] = defaultdict(Work)
        for entry in tracker.due(now):
            work[node_of(self._tag(entry.key))].renewals[entry] = None
        for key in tracker.due_looks(now):
            work[node_of(self._tag(key))].looks[key] = None
        for entry in tracker.releases_due(now):
            work[node_of(self._tag(entry.key))].releases[entry] = None
        if tracker.policies.is_due(now):
            tracker.policies.begin_reading(now)
            work[node_of(tracker.keyspace.common)].policies = True
        if tracker.notices.undelivered:
            work[node_of(tracker.notices.channel)].publish = True
        for node, its in work.items():
            self._give(node, its)

    def _tag(self, key: str) -> str:
        return tag_of(self._tracker.keyspace, key)

    def _give(self, node: Node | None, work: Work, tags: Iterable[str] = ()) -> None:
        worker = self._workers.get(node)
        if worker is not None and worker.give(work, tags):
            return
        for each in [each for each, its in self._workers.items() if its.has_ended]:
            del self._workers[each]
        try:
            worker = self._workers[node] = self._new_worker(node)
        except (RuntimeError, OSError) as error:
            self._warnings.warn(_NO_THREAD, StoreError(str(error)))
            # Slower than by a worker of its own, and better than not at all.
            if not any(each.give(work) for each in self._workers.values()):
                self._tracker.unfinished.update(work.looks)  # all else is given again
            return
        self._warnings.over(_NO_THREAD)
        worker.give(work, tags)

    def _new_worker(self, node: Node | None) -> NodeWorker:
        # One for all attempts: it knows which Sentinel answered last.
        client = functools.cache(
            lambda: self._endpoint.sync_client(node or ONLY_NODE, timeout=TIMEOUT)
        )

        def new_subscriber(woken: Any) -> Subscriber:
            tracker = self._tracker
            return Subscriber(client(), tracker.refusals, woken, sharded=tracker.sharded)

        # One for all workers of a node: what lasts is not said anew by each.
        warnings = self._warnings_of.setdefault(node, self._new_warnings())
        tasks = LeaseTasks(self._tracker, self._new_transport(), warnings, self._slots_moved)
        return NodeWorker(node, tasks, new_subscriber)

    def _new_warnings(self) -> Warnings:
        tracker = self._tracker
        return Warnings(lambda: f"{tracker.where} {tracker.keyspace.common}")

    # -- which channels, and in a cluster which node has what -------------------------------------

    def watch(self, key: str) -> None:
        """Receive what is said under a key's tag, as soon as may be."""
        tag = self._tag(key)
        self._queued[tag] = None
        worker = self._workers.get(self._slot_map.node_of(tag))
        if worker is None or tag not in worker.subscribed:
            self._due_now.set()

    def _hand_out_tags(self, now: float) -> None:
        tracker = self._tracker
        if not tracker.sharded:
            notices = [tracker.notices.channel] if tracker.notices.callback else []
            self._give(ONLY_NODE, Work(), [tracker.channel, tracker.changes, *notices])
            return
        if self._slot_map.version == 0 or self._map_is_wrong:
            self._refresh(now)
        if tracker.polls:
            self._queued.clear()
            if now >= self._poll_at:
                self._poll_at = now + _POLL * jitter.uniform(0.5, 1.0)
                tracker.messages_lost()
                tracker.notices.may_be_lost()
            return
        queued = list(self._queued)
        for tag in queued:
            self._queued.pop(tag, None)
        self._waited_for.update(queued)
        self._want(queued)
        if now >= self._watch_at:
            self._watch_at = now + _WATCH_EVERY
            self._want(self._tags_to_watch(now))

    def _tags_to_watch(self, now: float) -> set[str]:
        """Return the tags under which a request waits, or has held for a while.

        Most calls are over before there could be any message for them.
        """
        waited_for: set[str] = set()
        held: set[str] = set()
        for entry in list(self._tracker.entries.values()):
            if not entry.waiting:
                if now - entry.granted_at > _WATCH_EVERY:
                    held.add(self._tag(entry.key))
            elif (tag := self._tag(entry.key)) in self._waited_for:
                waited_for.add(tag)
        self._waited_for = waited_for
        if self._tracker.notices.callback is not None:
            held.add(self._tracker.notices.channel)
        return waited_for | held

    def _want(self, tags: Iterable[str]) -> None:
        by_node: defaultdict[Node, list[str]] = defaultdict(list)
        for tag in tags:
            node = self._slot_map.node_of(tag)
            if node is not None:
                by_node[node].append(tag)
        for node, some in by_node.items():
            self._give(node, Work(), some)

    def _refresh(self, now: float) -> None:
        if now < self._refresh_at or not self._refreshing.is_due(now):
            return
        self._refresh_at = now + _REFRESH_AGAIN
        if not self._refresher.is_running:
            self._map_is_wrong = False
            try:
                self._refresher.begin()
            except RuntimeError as error:  # no thread can begin
                self._refreshed(ConnectionError(str(error)))

    def _refreshed(self, trouble: Exception | None) -> None:
        if trouble is None:
            self._refreshing.over()
            self._warnings.over(_NO_MAP)
        else:
            self._map_is_wrong = True
            self._refreshing.failed()
            if self._tracker.has_known_requests():
                self._warnings.warn(_NO_MAP, store_error(trouble, self._tracker.where))
        self._watch_at = 0.0
        self._due_now.set()

    def _looked_for_master(self, trouble: Exception | None) -> None:
        if trouble is None:
            self._warnings.over(_NO_SENTINEL)
        elif self._tracker.has_known_requests():
            self._warnings.warn(_NO_SENTINEL, store_error(trouble, self._tracker.where))

    def _slots_moved(self) -> None:
        if self._tracker.sharded:
            self._map_is_wrong = True
            self._due_now.set()
