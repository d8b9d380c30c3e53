"""What the keeper does at one node of a cluster: a thread that renews, and hears messages.

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
from limiter_redis.session.subscriber import Ear

LINGER = 5.0
"""Seconds that a channel is still heard when nobody here waits or holds under its tag any more."""

PATIENCE = 2.0
"""Seconds that connecting to hear channels may take."""

MOMENT = 0.01
"""Seconds that it is waited for at once: most connections are open by then."""

_IDLE_AFTER = 10.0


class Work(NamedTuple):
    """What there is to do at a node.

    Attributes:
        tags: to be heard.
        lives: to be renewed.
        looks: keys to be looked at.
        releases: requests that nobody wants any more.
        notices: for other processes.
        at_once: whether to wake the thread for it.
    """

    tags: Sequence[str] = ()
    lives: Sequence[Entry] = ()
    looks: Sequence[str] = ()
    releases: Sequence[Entry] = ()
    notices: Sequence[str] = ()
    at_once: bool = False


class Doing(Protocol):
    """The keeper, as it is seen from a node."""

    def renew(self, lives: list[Entry]) -> None:
        """Renew leases and tickets."""

    def look(self, keys: list[str]) -> None:
        """Look at keys whose time is up."""

    def give_back(self, releases: list[Entry]) -> None:
        """Release what nobody wants any more."""

    def hear(self, messages: list[tuple[bytes, bytes]]) -> None:
        """Pass on messages."""

    def pass_on(self, notices: list[str]) -> None:
        """Tell other processes of jobs that nobody here can wake."""

    def heard_from_now_on(self, tags: set[str]) -> None:
        """Have those looked at again who missed what was said before."""

    def elsewhere(self) -> None:
        """Have it learnt anew which node has what."""

    def deaf(self, error: Exception | None) -> None:
        """Note why nothing is heard here; None: all is well."""

    def without_channels(self, error: Exception) -> None:
        """Note that the servers have no sharded channels."""

    def channel(self, tag: str) -> bytes:
        """Return the channel of this process under a tag."""
        ...

    def tick(self) -> float:
        """Return the seconds between looks at the clock."""
        ...


class Shard:
    """A thread for one node.

    Attributes:
        ended: whether it has ended, for want of work.
    """

    def __init__(self, doing: Doing, new_ear: Callable[[], Ear] | None, name: str) -> None:
        self._doing = doing
        self._new_ear = new_ear
        self._ear: Ear | None = None
        self._lock = new_lock()
        self._wanted: dict[str, float] = {}
        """Tags, and when somebody was seen to need to hear of them."""
        self._asked: dict[bytes, str] = {}
        """Channels that were asked for, and their tags."""
        self.hearing: set[str] = set()
        """Tags that are heard."""
        self._lives: dict[str, Entry] = {}
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

    # -- for the keeper ---------------------------------------------------------------------------

    def give(self, work: Work) -> bool:
        """Give it something to do; whether it still takes it."""
        now = time.monotonic()
        with self._lock:
            if self.ended:
                return False
            for tag in work.tags:
                self._wanted[tag] = now
            self._lives.update((live.request.id, live) for live in work.lives)
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
            if self._wanted or self._lives or self._looks or self._releases or self._notices:
                self._busy_at = now
            elif now - self._busy_at > _IDLE_AFTER:
                self.ended = True
        return self.ended

    def _turn(self) -> None:
        try:
            self._listen(self._doing.tick())
        except Exception as error:  # noqa: BLE001
            # Whatever it was: leases depend on it that this goes on.
            self._hang_up()
            self._retry.failed()
            self._doing.deaf(error)
            self._doing.elsewhere()
        with self._lock:
            lives, self._lives = list(self._lives.values()), {}
            looks, self._looks = list(self._looks), {}
            releases, self._releases = list(self._releases), {}
            notices, self._notices = self._notices, []
        if lives:
            self._doing.renew(lives)
        if looks:
            self._doing.look(looks)
        if releases:
            self._doing.give_back(releases)
        if notices:
            self._doing.pass_on(notices)

    def _hang_up(self) -> None:
        self._asked.clear()
        self.hearing.clear()
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _listen(self, tick: float) -> None:
        """Pass on one tick's messages."""
        now = time.monotonic()
        with self._lock:
            for tag in [tag for tag, at in self._wanted.items() if now - at > LINGER]:
                del self._wanted[tag]
            wanted = list(self._wanted)
        if self._ear is None:
            if not wanted or self._new_ear is None or not self._retry.is_due(now):
                self._sleep(tick)
                return
            self._ear = self._new_ear()
        ear = self._ear
        if not ear.is_open:
            if not ear.open(PATIENCE, MOMENT):
                self._sleep(tick)
                return
            self._doing.deaf(None)
            self._retry.over()
        channels = {self._doing.channel(tag): tag for tag in wanted}
        new = {channel: tag for channel, tag in channels.items() if channel not in self._asked}
        old = [channel for channel in self._asked if channel not in channels]
        self._asked.update(new)
        ear.subscribe(new)
        for channel in old:
            self.hearing.discard(self._asked.pop(channel))
        ear.unsubscribe(old)
        ear.listen(tick, self._sleep_end)
        self._drain()
        self._take_in(ear)

    def _take_in(self, ear: Ear) -> None:
        heard, ear.heard = ear.heard, []
        confirmed, ear.confirmed = ear.confirmed, []
        refused, ear.refused = ear.refused, []
        taken, ear.taken = ear.taken, []
        if heard:
            self._doing.hear(heard)
        if confirmed:
            tags = {self._asked[channel] for channel in confirmed if channel in self._asked}
            self.hearing |= tags
            self._doing.heard_from_now_on(tags)
        gone = [*taken, *(channel for channel, _ in refused)]
        if gone:
            self._forget(gone)
            self._doing.elsewhere()
        for _, error in refused:
            if not isinstance(error, MovedError):
                self._doing.without_channels(error)
                return

    def _forget(self, channels: list[bytes]) -> None:
        """Forget channels of slots that went elsewhere: whoever still needs them says so."""
        with self._lock:
            for channel in channels:
                tag = self._asked.pop(channel, None)
                if tag is not None:
                    self.hearing.discard(tag)
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
