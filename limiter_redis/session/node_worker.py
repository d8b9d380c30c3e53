"""What the lease renewer does at one node: a thread that receives messages, and carries out tasks.

Each node has one of its own, so that a node that is away holds up only what it owns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from redis.exceptions import MovedError

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemThread, new_lock, new_socket_pair
from limiter_redis.connection.background import BackgroundCall
from limiter_redis.connection.backoff import Backoff
from limiter_redis.connection.nodes import Node
from limiter_redis.session.entries import Work
from limiter_redis.session.subscriber import Subscriber

LINGER = 5.0
"""Seconds that a channel stays subscribed to when nothing here waits or holds under its tag."""

TIMEOUT = 2.0
"""Seconds that a reply, or a connection, may take: a renewal must be over long before a lease."""

_LONG = 1.0
"""Seconds after which an attempt to connect has taken long."""

_IDLE_AFTER = 10.0


class _NodeTasks(Protocol):
    """What a worker can do at its node, and what it reports; see `LeaseTasks`."""

    def tick(self) -> float: ...
    def connect(self, node: Node) -> BackgroundCall: ...
    def is_urgent(self, work: Work) -> bool: ...
    def carry_out(self, work: Work) -> float | None: ...
    def close(self) -> None: ...
    def channel_of(self, tag: str) -> bytes: ...
    def receive(self, messages: list[tuple[bytes, bytes]], since: float) -> None: ...
    def subscribed_to(self, tags: set[str], *, complete: bool) -> None: ...
    def not_subscribed(self, error: Exception, *, took_long: bool) -> None: ...
    def no_sharded_channels(self, error: Exception) -> None: ...
    @property
    def slots_moved(self) -> Callable[[], object]: ...


class NodeWorker:
    """The worker of one node.

    Args:
        node: the node; None: that of slots which no node is known to have.
        tasks: what can be done there.
        new_subscriber: makes a connection for messages; a socket ends the waiting for them.

    Attributes:
        subscribed: tags whose messages are received.
        renewing: how often tasks failed, and when they are tried again.
    """

    def __init__(
        self, node: Node | None, tasks: _NodeTasks, new_subscriber: Callable[[Any], Subscriber]
    ) -> None:
        self._node = node
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
        self._work = Work()
        self._subscribing, self.renewing = Backoff(), Backoff()
        self._busy_at = time.monotonic()
        self._ended = self._stopping = False
        self._wake_end, self._woken = new_socket_pair()
        self._wake_end.setblocking(False)
        self._woken.setblocking(False)
        name = "unowned" if node is None else ":".join(map(str, node)) if node.host else "server"
        self._thread = SystemThread(self._run, f"limiter-{name}")
        try:
            self._thread.start()
        except RuntimeError:
            self._close_sockets()
            raise

    def give(self, work: Work, tags: Iterable[str] = ()) -> bool:
        """Give it something to do; whether it still takes it.

        Args:
            work: the tasks.
            tags: whose messages it is to receive for a while.
        """
        now = time.monotonic()
        with self._lock:
            if self._ended:
                return False
            known = len(self._wanted)
            self._wanted.update(dict.fromkeys(tags, now))
            self._work.add(work)
            is_new = work or len(self._wanted) > known
        if is_new:
            self._wake()
        return True

    @property
    def has_ended(self) -> bool:
        """Whether it takes nothing any more."""
        return self._ended

    def stop(self) -> None:
        """Have it end."""
        self._stopping = True
        self._wake()

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        if not self._thread.is_current():
            self._thread.join(seconds)

    def _wake(self) -> None:
        with suppress(OSError):  # it is full of wake-ups, or closed
            self._wake_end.send(b"!")

    def _run(self) -> None:
        # Opened beside the connection for messages, which takes several round trips.
        first_call = None if self._node is None else self._tasks.connect(self._node)
        try:
            while not self._stopping:
                self._listen()
                with suppress(BlockingIOError):
                    self._woken.recv(1024)
                if first_call is None or first_call.is_done(self._tasks.tick()):
                    self._carry_out()
                if self._may_end():
                    return
        finally:
            with self._lock:
                self._ended = True
            if first_call is not None:
                first_call.give_up()
            self._unsubscribe_all()
            self._tasks.close()
            self._close_sockets()

    def _close_sockets(self) -> None:
        self._wake_end.close()
        self._woken.close()

    def _carry_out(self) -> None:
        """Carry out what it was given, unless the node was away a moment ago."""
        if not (self._tasks.is_urgent(self._work) or self.renewing.is_due(time.monotonic())):
            return
        with self._lock:
            work, self._work = self._work, Work()
        if not work:
            return
        longest = self._tasks.carry_out(work)
        if longest is None:
            self.renewing.over()
            return
        with self._lock:
            self._work.looks |= work.looks  # all else is given again
        self.renewing.failed(longest)

    def _may_end(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._wanted or self._work:
                self._busy_at = now
            elif now - self._busy_at > _IDLE_AFTER:
                self._ended = True
        return self._ended

    # -- messages ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Receive the messages of one tick. It never waits longer: renewals come behind it."""
        try:
            self._listen_for(self._tasks.tick())
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

    def _listen_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        subscriber = self._open_subscriber(seconds)
        if subscriber is None:
            return
        self._subscribe(subscriber)
        while (left := until - time.monotonic()) > 0:
            subscriber.listen(left)
            received, confirmed = bool(subscriber.received), bool(subscriber.confirmed)
            self._take_in(subscriber)
            if confirmed or not received:
                return

    def _open_subscriber(self, seconds: float) -> Subscriber | None:
        """Return the connection for messages, if it is open within so many seconds."""
        now = time.monotonic()
        with self._lock:
            for tag in [tag for tag, at in self._wanted.items() if now - at > LINGER]:
                del self._wanted[tag]
        if self._subscriber is None:
            if not self._wanted or not self._subscribing.is_due(now):
                self._sleep(seconds)
                return None
            self._opening_since = now
            self._subscriber = self._new_subscriber(self._woken)
        return self._subscriber if self._subscriber.open(TIMEOUT, seconds) else None

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
            self._tasks.receive(received, subscriber.received_since)
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
        self._woken.settimeout(seconds)
        try:
            self._woken.recv(1024)
        except TimeoutError:
            pass
        finally:
            self._woken.setblocking(False)
