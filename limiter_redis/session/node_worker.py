"""What the renewer does at one node of a cluster: a thread that renews, and receives messages.

One for each node, so that a node that is away holds up nobody but those whose keys it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from redis.exceptions import MovedError

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemThread, new_lock, new_socket_pair
from limiter_redis.connection.backoff import Backoff
from limiter_redis.session.entries import Entry
from limiter_redis.session.subscriber import Subscriber

LINGER = 5.0
"""Seconds that a channel is still heard when nobody here waits or holds under its tag any more."""

TIMEOUT = 2.0
"""Seconds that connecting to hear channels may take."""

MOMENT = 0.01
"""Seconds that it is waited for at once: most connections are open by then."""

_IDLE_AFTER = 10.0


class Work(NamedTuple):
    """What there is to do at a node.

    Attributes:
        tags: to be heard.
        entries: to be renewed.
        looks: keys to be looked at.
        releases: requests that nobody wants any more.
        notices: for other processes.
        at_once: whether to wake the thread for it.
    """

    tags: Sequence[str] = ()
    entries: Sequence[Entry] = ()
    looks: Sequence[str] = ()
    releases: Sequence[Entry] = ()
    notices: Sequence[str] = ()
    at_once: bool = False


class NodeTasks(Protocol):
    """The renewer, as it is seen from a node."""

    def renew(self, entries: list[Entry]) -> None:
        """Renew leases and tickets."""

    def look(self, keys: list[str]) -> None:
        """Look at keys whose time is up."""

    def give_back(self, releases: list[Entry]) -> None:
        """Release what nobody wants any more."""

    def receive(self, messages: list[tuple[bytes, bytes]]) -> None:
        """Pass on messages."""

    def pass_on(self, notices: list[str]) -> None:
        """Tell other processes of jobs that nobody here can wake."""

    def subscribed_to(self, tags: set[str]) -> None:
        """Have those looked at again who missed what was said before."""

    def slots_moved(self) -> None:
        """Have it learnt anew which node has what."""

    def not_subscribed(self, error: Exception | None) -> None:
        """Note why nothing is heard here; None: all is well."""

    def no_sharded_channels(self, error: Exception) -> None:
        """Note that the servers have no sharded channels."""

    def channel(self, tag: str) -> bytes:
        """Return the channel of this process under a tag."""
        ...

    def tick(self) -> float:
        """Return the seconds between looks at the clock."""
        ...


class NodeWorker:
    """A thread for one node.

    Attributes:
        ended: whether it has ended, for want of work.
    """

    def __init__(
        self, tasks: NodeTasks, new_subscriber: Callable[[], Subscriber] | None, name: str
    ) -> None:
        self._tasks = tasks
        self._new_subscriber = new_subscriber
        self._subscriber: Subscriber | None = None
        self._lock = new_lock()
        self._wanted: dict[str, float] = {}
        """Tags, and when somebody was seen to need to hear of them."""
        self._asked: dict[bytes, str] = {}
        """Channels that were asked for, and their tags."""
        self.subscribed: set[str] = set()
        """Tags that are heard."""
        self._entries: dict[str, Entry] = {}
        self._looks: dict[str, None] = {}
        self._releases: dict[Entry, None] = {}
        self._notices: list[str] = []
        self._wake_end, self._sleep_end = new_socket_pair()
        self._wake_end.setblocking(False)
        self._sleep_end.setblocking(False)
        self._retry = Backoff()
        self._busy_at = time.monotonic()
        self._stopping = False
        self.ended = False
        self._thread = SystemThread(self._run, f"limiter-{name}")
        self._thread.start()

    # -- for the renewer ---------------------------------------------------------------------------

    def give(self, work: Work) -> bool:
        """Give it something to do; whether it still takes it."""
        now = time.monotonic()
        with self._lock:
            if self.ended:
                return False
            for tag in work.tags:
                self._wanted[tag] = now
            self._entries.update((entry.request.id, entry) for entry in work.entries)
            self._looks.update(dict.fromkeys(work.looks))
            self._releases.update(dict.fromkeys(work.releases))
            self._notices += work.notices
        if work.at_once:
            self._wake()
        return True

    def stop(self) -> None:
        """Have it end."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # it is full of wake-ups, or closed
            self._wake_end.send(b"!")

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        if not self._thread.is_current():
            self._thread.join(seconds)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
                if self._may_end():
                    return
        finally:
            with self._lock:
                self.ended = True
            self._hang_up()
            self._wake_end.close()
            self._sleep_end.close()

    def _may_end(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._wanted or self._entries or self._looks or self._releases or self._notices:
                self._busy_at = now
            elif now - self._busy_at > _IDLE_AFTER:
                self.ended = True
        return self.ended

    def _turn(self) -> None:
        try:
            self._listen(self._tasks.tick())
        except Exception as error:  # noqa: BLE001
            # Whatever it was: leases depend on it that this goes on.
            self._hang_up()
            self._retry.failed()
            self._tasks.not_subscribed(error)
            self._tasks.slots_moved()
        with self._lock:
            entries, self._entries = list(self._entries.values()), {}
            looks, self._looks = list(self._looks), {}
            releases, self._releases = list(self._releases), {}
            notices, self._notices = self._notices, []
        if entries:
            self._tasks.renew(entries)
        if looks:
            self._tasks.look(looks)
        if releases:
            self._tasks.give_back(releases)
        if notices:
            self._tasks.pass_on(notices)

    def _hang_up(self) -> None:
        self._asked.clear()
        self.subscribed.clear()
        if self._subscriber is not None:
            self._subscriber.close()
            self._subscriber = None

    def _listen(self, tick: float) -> None:
        """Pass on one tick's messages."""
        now = time.monotonic()
        with self._lock:
            for tag in [tag for tag, at in self._wanted.items() if now - at > LINGER]:
                del self._wanted[tag]
            wanted = list(self._wanted)
        if self._subscriber is None:
            if not wanted or self._new_subscriber is None or not self._retry.is_due(now):
                self._sleep(tick)
                return
            self._subscriber = self._new_subscriber()
        subscriber = self._subscriber
        if not subscriber.is_open:
            if not subscriber.open(TIMEOUT, MOMENT):
                self._sleep(tick)
                return
            self._tasks.not_subscribed(None)
            self._retry.over()
        channels = {self._tasks.channel(tag): tag for tag in wanted}
        new = {channel: tag for channel, tag in channels.items() if channel not in self._asked}
        old = [channel for channel in self._asked if channel not in channels]
        self._asked.update(new)
        subscriber.subscribe(new)
        for channel in old:
            self.subscribed.discard(self._asked.pop(channel))
        subscriber.unsubscribe(old)
        subscriber.listen(tick, self._sleep_end)
        self._drain()
        self._take_in(subscriber)

    def _take_in(self, subscriber: Subscriber) -> None:
        heard, subscriber.heard = subscriber.heard, []
        confirmed, subscriber.confirmed = subscriber.confirmed, []
        refused, subscriber.refused = subscriber.refused, []
        taken, subscriber.taken = subscriber.taken, []
        if heard:
            self._tasks.receive(heard)
        if confirmed:
            tags = {self._asked[channel] for channel in confirmed if channel in self._asked}
            self.subscribed |= tags
            self._tasks.subscribed_to(tags)
        gone = [*taken, *(channel for channel, _ in refused)]
        if gone:
            self._forget(gone)
            self._tasks.slots_moved()
        for _, error in refused:
            if not isinstance(error, MovedError):
                self._tasks.no_sharded_channels(error)
                return

    def _forget(self, channels: list[bytes]) -> None:
        """Forget channels of slots that moved to another node: whoever still needs them says so."""
        with self._lock:
            for channel in channels:
                tag = self._asked.pop(channel, None)
                if tag is not None:
                    self.subscribed.discard(tag)
                    self._wanted.pop(tag, None)

    def _sleep(self, seconds: float) -> None:
        self._sleep_end.settimeout(seconds)
        try:
            self._sleep_end.recv(1024)
        except TimeoutError:
            pass
        finally:
            self._sleep_end.setblocking(False)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._sleep_end.recv(1024)
