"""The renewer: one daemon thread per process that renews, listens, and looks when time is up.

It has connections of its own, so that neither a busy event loop nor an exhausted pool can make a
lease run out. It runs while somebody in this process waits or holds, and for a little longer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import redis
from redis.exceptions import RedisError

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.outage import Outage, RepeatedWarning, shared_outage
from limiter_core.requests import Request
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemEvent, SystemThread, new_lock
from limiter_redis.connection.backoff import Backoff
from limiter_redis.connection.exchange import BackgroundCall
from limiter_redis.protocol import commands, replies
from limiter_redis.protocol.commands import BATCH
from limiter_redis.protocol.errors import store_error
from limiter_redis.session.entries import Entry
from limiter_redis.session.subscriber import Subscriber
from limiter_redis.session.tracker import RequestTracker, release_of, renewal_of
from limiter_redis.transport.interfaces import ThreadTransport

R = TypeVar("R")

TICK = 0.1
"""Seconds between looks at the clock; the bound on how late a renewal can be."""

_SHORT_TICK = 0.02
_SHORT_LEASE = 1.0
_IDLE_AFTER = 10.0
"""Seconds without anybody waiting or holding after which the thread ends; the next call starts it
again."""

_LONGEST_PAUSE = 1.0
"""Seconds between two renewals where the store is away, at the most; less for a short lease."""

_LONG = 1.0
"""Seconds after which an attempt to listen has taken long."""

_NOT_SUBSCRIBED = "cannot receive messages, will try again"
BAD_ANSWER = "the renewer got an error from the store"
_NOTHING = Outage("")
TIMEOUT = 2.0
"""Seconds that a reply, or a connection, may take: a renewal must be over long before a lease."""


class LeaseRenewer:
    """Keeps alive what the tracker knows of."""

    def __init__(
        self,
        tracker: RequestTracker,
        connect: Callable[[float], redis.Redis],
        new_wire: Callable[[float], ThreadTransport],
    ) -> None:
        self._tracker = tracker
        self._connect = connect
        self._new_wire = new_wire
        self._lock = new_lock()
        self._thread: SystemThread | None = None
        self._stopping = SystemEvent()
        self._troubles: dict[str, Outage] = {}
        self._failures = RepeatedWarning("a listener failed")
        self._listening, self._renewing = Backoff(), Backoff()
        self._listening_since = 0.0
        self._heard_channels: set[str] = set()
        self.listening = False
        """Whether messages are heard now."""

    def ensure_running(self) -> None:
        """Start the thread if it does not run.

        Raises:
            RuntimeError: no thread can begin. The next call tries again.
        """
        if self._stopping.is_set():
            self._stopping.clear()
            self._tracker.requests.closing = False
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = SystemThread(lambda: self._run(thread), "limiter-lease-renewer")
                    thread.start()
                    self._thread = thread

    def stop(self) -> None:
        """End the thread, if it runs; but not before the last lease was given back or lost.

        What it is to release is released before this returns, in bounded time: the process may end.
        Who waits is woken: to ask again starts it anew.
        """
        thread = self._thread
        self._stopping.set()
        self._tracker.close()
        if thread is None or thread.is_current():
            return
        if not self._tracker.requests:
            thread.join(TIMEOUT)
            return
        until = time.monotonic() + TIMEOUT
        while self._tracker.releases_due(now := time.monotonic()) and now < until:
            time.sleep(_SHORT_TICK)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self, thread: SystemThread) -> None:
        over = SystemEvent()
        with suppress(RuntimeError):  # the process ends, and no thread can begin
            SystemThread(lambda: self._watch_deadlines(over), "limiter-deadlines").start()
        tracker = self._tracker
        turn, close = self._begin()
        idle_since = time.monotonic()
        try:
            while True:
                turn()
                try:
                    tracker.after_turn()
                except Exception as error:  # noqa: BLE001  (leases depend on it that this goes on)
                    self._warn("the lease renewer failed, and goes on", error)
                if tracker.requests or (tracker.on_notice and not self._stopping.is_set()):
                    idle_since = time.monotonic()
                elif self._stopping.is_set() or time.monotonic() - idle_since > _IDLE_AFTER:
                    if self._may_end(thread):
                        return
        finally:
            over.set()
            with self._lock:
                if self._thread in (thread, None):  # else the next one runs already
                    self._thread = None
                    self.listening = False
            close()

    def _begin(self) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return what is to be done in each turn, and at the end."""
        subscriber = Subscriber(self._connect(TIMEOUT), self._tracker.refusals, sharded=False)
        wire = self._new_wire(TIMEOUT)
        # Opened beside the connection for messages: what is looked at once that is there does not
        # wait for it, which takes several round trips.
        calls = BackgroundCall(lambda: wire.command("PING"), lambda _: wire.close())
        calls.begin()

        def turn() -> None:
            now = time.monotonic()
            try:
                if subscriber.is_open or subscriber.is_opening or self._listening.is_due(now):
                    self._listen(subscriber)
                else:
                    time.sleep(self._tick())
            except Exception as error:  # noqa: BLE001
                # Whatever it was: leases depend on it that this goes on.
                self.listening = False
                # Who is not known to the store yet is told by its own call; but not if that hangs.
                took_long = (
                    subscriber.is_opening and time.monotonic() - self._listening_since > _LONG
                )
                if self._tracker.depends() or (took_long and self._tracker.entries):
                    self._warn(_NOT_SUBSCRIBED, store_error(error, self._tracker.where))
                subscriber.close()
                self._heard_channels.clear()
                self._listening.failed()
            if self._renewing.is_due(time.monotonic()) and calls.is_done(self._tick()):
                self._keep(wire)

        def close() -> None:
            subscriber.close()
            calls.give_up()
            wire.close()

        return turn, close

    def _watch_deadlines(self, over: SystemEvent) -> None:
        # In a thread of its own: who waits for a server that says nothing cannot tell holders in
        # time that their leases end.
        while not over.wait(self._tick()):
            try:
                self._tracker.expire(time.monotonic())
            except Exception as error:  # noqa: BLE001
                self._failures.note(error, unknown=True)

    def _may_end(self, thread: SystemThread) -> bool:
        with self._lock:
            self._thread = None
            if not self._tracker.requests and not self._tracker.undelivered:
                return True
            # Somebody came in between, and saw a thread that runs: so it does.
            self._thread = thread
            return False

    def _listen(self, subscriber: Subscriber) -> None:
        """Pass on one tick's messages. It never waits longer: renewals come behind it."""
        now = time.monotonic()
        until = now + self._tick()
        if not subscriber.is_open:
            if not subscriber.is_opening:
                self._heard_channels.clear()
                self._listening_since = now
            if not subscriber.open(TIMEOUT, self._tick()):
                return
        wanted = [
            self._tracker.channel,
            *([self._tracker.notices] if self._tracker.on_notice else []),
        ]
        new = [each.encode() for each in wanted if each not in self._heard_channels]
        self._heard_channels.update(wanted)
        subscriber.subscribe(new)
        while (left := until - time.monotonic()) > 0:
            subscriber.listen(left)
            heard, subscriber.heard = subscriber.heard, []
            confirmed, subscriber.confirmed = subscriber.confirmed, []
            for _, error in subscriber.refused:
                raise error
            heard_at = time.monotonic()
            for channel, said in heard:
                if channel == self._tracker.notices.encode():
                    self._tracker.receive_undelivered(replies.text_of(said))
                else:
                    self._tracker.receive([replies.text_of(said)], heard_at)
            if confirmed:
                self._tracker.messages_lost()  # what was said before this, nobody heard
                self.listening = True
                self._listening.over()
                self._troubles.get(_NOT_SUBSCRIBED, _NOTHING).over()
                return
            if not heard:
                return

    def _tick(self) -> float:
        return _SHORT_TICK if self._tracker.requests.shortest < _SHORT_LEASE else TICK

    def _keep(self, wire: ThreadTransport) -> None:
        """Renew what is due, look at keys whose time is up, give up what could not be renewed."""
        now = time.monotonic()
        try:
            due = self._tracker.due(now)
            for start in range(0, len(due), BATCH):
                self._renew(wire, due[start : start + BATCH])
            looks = self._tracker.due_looks(now)
            for start in range(0, len(looks), BATCH):
                self._look(wire, looks[start : start + BATCH])
            releases = self._tracker.releases_due(now)
            for start in range(0, len(releases), BATCH):
                self._release(wire, releases[start : start + BATCH])
            while self._tracker.undelivered:  # last: it may be refused, for want of a right
                wire.command("PUBLISH", self._tracker.notices, self._tracker.undelivered[0])
                del self._tracker.undelivered[0]  # only now: what fails is tried again
        except StoreUnavailable as error:
            if self._stopping.is_set():
                self._tracker.leave_releases()
            self._renewing.failed(min(_LONGEST_PAUSE, self._tracker.requests.shortest / 6))
            if self._tracker.depends():
                self._warn("cannot renew leases, will retry until they end", error)
        except Exception as error:  # noqa: BLE001
            # It must not end while leases depend on it, whatever a listener or a reply did.
            self._warn("the lease renewer failed, and goes on", error)

    def _warn(self, what: str, error: Exception) -> None:
        """Warn of a trouble, now and then as long as it lasts."""
        unknown = not isinstance(error, StoreError | RedisError | OSError)
        trouble = self._troubles.get(what)
        if trouble is None:
            # The keepers of all stores of this process at that place say it once.
            where = f"{self._tracker.where} {self._tracker.keyspace.common}"
            trouble = self._troubles[what] = shared_outage(where, what)
        trouble.began(error, unknown=unknown)

    def _no_trouble(self) -> None:
        self._renewing.over()
        for what, trouble in list(self._troubles.items()):
            if what != _NOT_SUBSCRIBED:
                trouble.over()

    def _call(
        self, wire: ThreadTransport, operations: list[commands.Operation]
    ) -> list[str | None]:
        """Carry out operations and pass on the news; None in place of a reply that is an error."""
        sent_at = time.monotonic()
        lines, news = wire.call_each(operations)
        self._tracker.receive(news, sent_at)
        trouble = next((line for line in lines if isinstance(line, StoreError)), None)
        if isinstance(trouble, StoreUnavailable):
            raise trouble
        if trouble is not None:
            self._warn(BAD_ANSWER, trouble)
        else:
            self._no_trouble()
        return [None if isinstance(line, StoreError) else line for line in lines]

    def _read(self, read: Callable[[], R]) -> R | None:
        """Return what a reply says; None if it cannot be read: the others go on."""
        try:
            return read()
        except StoreError as error:
            self._warn(BAD_ANSWER, error)
            return None

    def _release(self, wire: ThreadTransport, entries: list[Entry]) -> None:
        lines = self._call(wire, [release_of(entry) for entry in entries])
        for entry, line in zip(entries, lines, strict=True):
            if line is not None:
                self._tracker.released(entry)
            else:
                self._tracker.release_failed(entry)

    def _renew(self, wire: ThreadTransport, entries: list[Entry]) -> None:
        sent_at = time.monotonic()
        lines = self._call(wire, [renewal_of(entry) for entry in entries])
        lost: list[Request] = []
        for entry, line in zip(entries, lines, strict=True):
            if line is not None:
                request = self._read(partial(self._tracker.renewed, entry, line, sent_at))
                if request is not None:
                    lost.append(request)
        if lost:
            self._reclaim(wire, lost)

    def _reclaim(self, wire: ThreadTransport, lost: list[Request]) -> None:
        sent_at = time.monotonic()
        lines = self._call(wire, [commands.acquire(request) for request in lost])
        for request, line in zip(lost, lines, strict=True):
            if line is not None:  # else it is asked for again
                self._read(partial(self._tracker.settle, request, line, sent_at))

    def _look(self, wire: ThreadTransport, keys: list[str]) -> None:
        lines = self._call(wire, [commands.sweep(key) for key in keys])
        if any(entry.waiting for entry in list(self._tracker.entries.values())):
            for key, line in zip(keys, lines, strict=True):
                if line is not None:
                    after = self._read(partial(replies.parse_duration, line, key))
                    self._tracker.look_at(key, after)
