"""What the lease renewer does at one node: it receives messages, and carries out tasks.

In a cluster each node has a thread of its own, so that a node that is away holds up only what it
owns. Where there is one node, the thread of the lease renewer does its work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from redis.exceptions import MovedError

from limiter_core.errors import StoreUnavailable
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemEvent, SystemThread, new_lock, new_socket_pair
from limiter_redis.connection.backoff import Backoff
from limiter_redis.connection.exchange import BackgroundCall
from limiter_redis.session.entries import Entry
from limiter_redis.session.subscriber import Subscriber

LINGER = 5.0
"""Seconds that a channel stays subscribed to when nothing here waits or holds under its tag."""

TIMEOUT = 2.0
"""Seconds that a reply, or a connection, may take: a renewal must be over long before a lease."""

MOMENT = 0.01
"""Seconds that it is waited for at once: most connections are open by then."""

_LONG = 1.0
"""Seconds after which an attempt to connect has taken long."""

_IDLE_AFTER = 10.0


class Work(NamedTuple):
    """What there is to do at a node.

    Attributes:
        tags: to be subscribed to.
        entries: to be renewed.
        looks: keys to be looked at.
        releases: requests that are not wanted any more.
        publish: whether there are notices for other processes.
        policies: whether to read the policies of names.
        at_once: whether to wake the thread for it.
    """

    tags: Sequence[str] = ()
    entries: Sequence[Entry] = ()
    looks: Sequence[str] = ()
    releases: Sequence[Entry] = ()
    publish: bool = False
    policies: bool = False
    at_once: bool = False


class _NodeTasks(Protocol):
    """What a worker can do at its node, and what it reports; see `LeaseTasks`."""

    stopping: SystemEvent

    def tick(self) -> float: ...
    def connect(self) -> BackgroundCall: ...
    def renew(self, entries: list[Entry]) -> None: ...
    def look(self, keys: list[str]) -> None: ...
    def release(self, entries: list[Entry]) -> None: ...
    def publish(self) -> None: ...
    def read_policies(self) -> None: ...
    def channel_of(self, tag: str) -> bytes: ...
    def receive(self, messages: list[tuple[bytes, bytes]]) -> None: ...
    def subscribed_to(self, tags: set[str], *, complete: bool) -> None: ...
    def not_subscribed(self, error: Exception, *, took_long: bool) -> None: ...
    def no_sharded_channels(self, error: Exception) -> None: ...
    def slots_moved(self) -> None: ...
    def node_is_away(self, releases: list[Entry], error: StoreUnavailable) -> float: ...
    def failed(self, error: Exception) -> None: ...


class NodeWorker:
    """The worker of one node.

    Args:
        tasks: what can be done.
        new_subscriber: makes a connection for messages; None: no node is known.
        thread: the name of its own thread; None: its owner calls `listen` and `work` in turn.

    Attributes:
        subscribed: tags whose messages are received.
        renewing: how often tasks failed, and when they are tried again.
    """

    def __init__(
        self, tasks: _NodeTasks, new_subscriber: Callable[[], Subscriber] | None, thread: str | None
    ) -> None:
        self._tasks = tasks
        self._new_subscriber = new_subscriber
        self._subscriber: Subscriber | None = None
        self._opening_since = 0.0
        self._lock = new_lock()
        self._wanted: dict[str, float] = {}
        """Tags, and when a request was last seen that needs their messages."""
        self._asked: dict[bytes, str] = {}
        """Channels that were asked for, and their tags."""
        self.subscribed: set[str] = set()
        self._entries: dict[str, Entry] = {}
        self._looks: dict[str, None] = {}
        self._releases: dict[Entry, None] = {}
        self._publish = self._policies = False
        self._subscribing, self.renewing = Backoff(), Backoff()
        self._busy_at = time.monotonic()
        self._ended = self._stopping = False
        self._wake_end: Any = None
        self._woken: Any = None
        """A socket that ends the waiting for messages, where there is a thread to be woken."""
        self._first_call: BackgroundCall | None = None
        if thread is None:
            # Opened beside the connection for messages, which takes several round trips.
            self._first_call = tasks.connect()
            return
        self._wake_end, self._woken = new_socket_pair()
        self._wake_end.setblocking(False)
        self._woken.setblocking(False)
        self._thread = SystemThread(self._run, f"limiter-{thread}")
        self._thread.start()

    def give(self, work: Work) -> bool:
        """Give it something to do; whether it still takes it."""
        now = time.monotonic()
        with self._lock:
            if self._ended:
                return False
            for tag in work.tags:
                self._wanted[tag] = now
            self._entries.update((entry.request.id, entry) for entry in work.entries)
            self._looks.update(dict.fromkeys(work.looks))
            self._releases.update(dict.fromkeys(work.releases))
            self._publish |= work.publish
            self._policies |= work.policies
        if work.at_once:
            self._wake()
        return True

    def stop(self) -> None:
        """Have it end."""
        self._stopping = True
        if self._woken is None:
            self._close()
        self._wake()

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        if self._woken is not None and not self._thread.is_current():
            self._thread.join(seconds)

    def _wake(self) -> None:
        if self._wake_end is not None:
            with suppress(OSError):  # it is full of wake-ups, or closed
                self._wake_end.send(b"!")

    def _run(self) -> None:
        try:
            while not self._stopping:
                self.listen()
                with suppress(BlockingIOError):
                    self._woken.recv(1024)
                self.work()
                if self._may_end():
                    return
        finally:
            with self._lock:
                self._ended = True
            self._close()
            self._wake_end.close()
            self._woken.close()

    def _may_end(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._wanted or self._entries or self._looks or self._releases or self._publish:
                self._busy_at = now
            elif now - self._busy_at > _IDLE_AFTER:
                self._ended = True
        return self._ended

    def _close(self) -> None:
        if self._first_call is not None:
            self._first_call.give_up()
        self._unsubscribe_all()

    # -- messages ---------------------------------------------------------------------------------

    def listen(self) -> None:
        """Receive the messages of one tick. It never waits longer: renewals come behind it."""
        try:
            self._listen(self._tasks.tick())
        except Exception as error:  # noqa: BLE001  (leases depend on it that this goes on)
            opening = self._subscriber is not None and self._subscriber.is_opening
            took_long = opening and time.monotonic() - self._opening_since > _LONG
            self._unsubscribe_all()
            self._subscribing.failed()
            self._tasks.not_subscribed(error, took_long=took_long)

    def _unsubscribe_all(self) -> None:
        self._asked.clear()
        self.subscribed.clear()
        if self._subscriber is not None:
            self._subscriber.close()
            self._subscriber = None

    def _listen(self, tick: float) -> None:
        until = time.monotonic() + tick
        subscriber = self._open_subscriber(tick)
        if subscriber is None:
            return
        self._subscribe(subscriber)
        while (left := until - time.monotonic()) > 0:
            subscriber.listen(left, self._woken)
            received, confirmed = bool(subscriber.received), bool(subscriber.confirmed)
            self._take_in(subscriber)
            if confirmed or not received:
                return

    def _open_subscriber(self, tick: float) -> Subscriber | None:
        """Return the connection for messages, if it is open within a tick."""
        now = time.monotonic()
        with self._lock:
            for tag in [tag for tag, at in self._wanted.items() if now - at > LINGER]:
                del self._wanted[tag]
        if self._subscriber is None:
            if (
                not self._wanted
                or self._new_subscriber is None
                or not self._subscribing.is_due(now)
            ):
                self._sleep(tick)
                return None
            self._opening_since = now
            self._subscriber = self._new_subscriber()
        if self._woken is None:
            return self._subscriber if self._subscriber.open(TIMEOUT, tick) else None
        if not self._subscriber.open(TIMEOUT, MOMENT):
            self._sleep(tick)
            return None
        return self._subscriber

    def _subscribe(self, subscriber: Subscriber) -> None:
        with self._lock:
            channels = {self._tasks.channel_of(tag): tag for tag in self._wanted}
        new = {channel: tag for channel, tag in channels.items() if channel not in self._asked}
        old = [channel for channel in self._asked if channel not in channels]
        self._asked.update(new)
        subscriber.subscribe(new)
        for channel in old:
            self.subscribed.discard(self._asked.pop(channel))
        subscriber.unsubscribe(old)

    def _take_in(self, subscriber: Subscriber) -> None:
        received, subscriber.received = subscriber.received, []
        confirmed, subscriber.confirmed = subscriber.confirmed, []
        refused, subscriber.refused = subscriber.refused, []
        taken, subscriber.taken = subscriber.taken, []
        gone = [*taken, *(channel for channel, _ in refused)]
        if received:
            self._tasks.receive(received)
        for _, error in refused:  # first: a subscription that is refused in part has failed
            if not isinstance(error, MovedError):
                self._tasks.no_sharded_channels(error)
        if confirmed:
            tags = {self._asked[channel] for channel in confirmed if channel in self._asked}
            left = {self._asked[channel] for channel in self._asked if channel not in gone}
            complete = left <= self.subscribed | tags
            if complete:
                self._subscribing.over()
            self._tasks.subscribed_to(tags, complete=complete)
            self.subscribed |= tags  # last: a reader may rely on what was noted before
        if gone:
            self._forget(gone)
            self._tasks.slots_moved()

    def _forget(self, channels: list[bytes]) -> None:
        """Forget channels of slots that another node has now: they are asked for there."""
        with self._lock:
            for channel in channels:
                tag = self._asked.pop(channel, None)
                if tag is not None:
                    self.subscribed.discard(tag)
                    self._wanted.pop(tag, None)

    def _sleep(self, seconds: float) -> None:
        if self._woken is None:
            time.sleep(seconds)
            return
        self._woken.settimeout(seconds)
        try:
            self._woken.recv(1024)
        except TimeoutError:
            pass
        finally:
            self._woken.setblocking(False)

    # -- tasks ------------------------------------------------------------------------------------

    def work(self) -> None:
        """Carry out what it was given."""
        if self._first_call is not None and not self._first_call.is_done(self._tasks.tick()):
            return
        at_once = self._releases and self._tasks.stopping.is_set()  # the process may end
        if not (at_once or self.renewing.is_due(time.monotonic())):
            return
        with self._lock:
            entries, self._entries = list(self._entries.values()), {}
            looks, self._looks = list(self._looks), {}
            releases, self._releases = list(self._releases), {}
            publish, self._publish = self._publish, False
            policies, self._policies = self._policies, False
        if not (entries or looks or releases or publish or policies):
            return
        try:
            self._carefully(self._tasks.renew, entries)
            self._carefully(self._tasks.look, looks)
            self._carefully(self._tasks.release, releases)
            if policies:
                self._carefully(self._tasks.read_policies)
            if publish:
                self._carefully(self._tasks.publish)  # last: it may be refused, for want of a right
        except StoreUnavailable as error:
            # What is to be renewed or released is given again.
            with self._lock:
                self._looks.update(dict.fromkeys(looks))
            self.renewing.failed(self._tasks.node_is_away(releases, error))
        else:
            self.renewing.over()

    def _carefully(self, task: Callable[..., None], *given: list[Any]) -> None:
        """Carry out a task that may fail, whatever the reason: those behind it go on."""
        try:
            task(*given)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001
            self._tasks.failed(error)
