"""Parties to be notified, in a thread or an event loop; their proxy; the time it took."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis

from limiter_core import LIMIT_BY, ConcurrencyLimit, LeaseLost, Limiter, SyncLimiter
from limiter_redis import RedisStore

from ._proxy import Proxy
from ._servers import PATIENCE
from ._tools import until_now

LEASE = 30.0
"""Seconds: the next renewal that is due comes after ten of them, far too late."""

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("notified"), lease=LEASE)
KEY = SyncLimiter("memory://").key_for(LIMIT)

BOUND = 1.0
"""Seconds within which a party is notified, unless three round trips take longer."""

ROUND_TRIPS = 3


RENEWED = (b"alive", b"waiting", b"gone")
"""What the reply to a renewal says, if nothing has happened yet."""


class ControlledProxy(Proxy):
    """A proxy that delays, holds back or loses data as the test says.

    Args:
        port: of the server.
        delay: seconds that everything takes, in each direction.

    Attributes:
        delay: the same; may be changed.
        held: how often something was held back.
        subscribed_at: when the last confirmation of a subscription was passed on, 0.0 for never.
        looked_at: when the last reply to a renewal was passed on, also to one of a waiter.
        messages: how many messages were passed on.
        lost_at: when the last reply was lost.
    """

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self.delay = delay
        self.held = self.messages = 0
        self.subscribed_at = self.looked_at = self.lost_at = 0.0
        self._holding: tuple[bytes, bool] | None = None
        self._losing: tuple[bytes, int] | None = None
        self._released = threading.Event()
        super().__init__(port)

    @property
    def port(self) -> int:
        """Where it begins."""
        return int(self.url.split(":")[2].split("/")[0])

    def hold_back(self, text: bytes, *, replies: bool) -> None:
        """Have the first connection on which this text comes stop there, in that direction."""
        self._holding = (text, replies)

    def release(self) -> float:
        """Let pass what was held back; returns when."""
        self._holding = None
        self._released.set()
        return time.monotonic()

    def lose(self, text: bytes, more: int = 0) -> None:
        """Lose the first reply with this text, and so many replies after it, with connections."""
        self._losing = (text, 1 + more)

    def is_losing(self) -> bool:
        """Whether something is to be lost still."""
        return self._losing is not None

    def close(self) -> None:
        """End all connections, and accept no more."""
        self.release()
        super().close()

    def _pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        # Data in flight does not stop what comes after it: so there are two threads.
        passing: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def read() -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    passing.put((time.monotonic() + self.delay, data))
            passing.put((0.0, b""))

        threading.Thread(target=read, daemon=True).start()
        with suppress(OSError):
            while (entry := passing.get())[1]:
                due, data = entry
                until_now(lambda due=due: time.monotonic() >= due, "it arrives")
                if self._stops_at(data, replies):
                    self._released.wait()
                if replies and self._loses(data):
                    break
                if replies:  # before: what it brings about may be quicker than this thread
                    self._note(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _stops_at(self, data: bytes, replies: bool) -> bool:
        with self._lock:
            if self._holding is None or self._holding[1] != replies:
                return False
            if self._holding[0] not in data:
                return False
            self._holding = None
            self.held += 1
            return True

    def _loses(self, data: bytes) -> bool:
        with self._lock:
            if self._losing is None or not data.startswith(b"$"):
                return False
            text, count = self._losing
            if text not in data:
                return False
            # Any reply follows: that to the same call, sent again.
            self._losing = (b"", count - 1) if count > 1 else None
            self.lost_at = time.monotonic()
            self.lost += 1
            return True

    def _note(self, data: bytes) -> None:
        if b"subscribe\r\n" in data:
            self.subscribed_at = time.monotonic()
        elif data.startswith(b"$") and any(word in data for word in RENEWED):
            self.looked_at = time.monotonic()
        self.messages += data.count(b"message\r\n")


class Party:
    """Who takes a slot, and is to be notified of its loss: one store, as a process has one.

    Attributes:
        store: its store.
        begun_at: when it had its slot, 0.0 as long as it has none.
        notified_at: when it was notified of the loss, 0.0 as long as it was not.
        failure: what else ended it.
    """

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.begun_at = self.notified_at = 0.0
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Have it ask for its slot."""
        self._thread.start()

    def ask(self, operation: str, *given: Any) -> Any:
        """Carry out an operation of its own store."""
        raise NotImplementedError

    def end(self) -> None:
        """Have it let go."""
        self._over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.store.close()
        assert self.failure is None, repr(self.failure)

    def _hold(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self._hold()
        except LeaseLost:
            self.notified_at = self.notified_at or time.monotonic()
        except BaseException as error:
            self.failure = error


class ThreadParty(Party):
    """In a thread: it looks whether its lease is lost."""

    def ask(self, operation: str, *given: Any) -> Any:
        return getattr(self.store.sync_face(), operation)(*given)

    def _hold(self) -> None:
        with SyncLimiter(self.store).hold(LIMIT) as lease:
            self.begun_at = time.monotonic()
            while not lease.lost:
                if self._over.wait(0.002):
                    return
            self.notified_at = time.monotonic()


class LoopParty(Party):
    """In an event loop: its body is cancelled."""

    _loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        super().start()
        until_now(lambda: hasattr(self, "_loop"), "its event loop runs")

    def ask(self, operation: str, *given: Any) -> Any:
        asked = getattr(self.store.async_face(), operation)(*given)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(PATIENCE)

    def block(self) -> Callable[[], float]:
        """Block the event loop; returns what lets it go on, and says when it did."""
        begun, over = threading.Event(), threading.Event()
        ended: list[float] = []

        def blocked() -> None:
            begun.set()
            over.wait(PATIENCE)
            ended.append(time.monotonic())

        def go_on() -> float:
            over.set()
            until_now(lambda: ended, "the event loop runs again")
            return ended[0]

        self._loop.call_soon_threadsafe(blocked)
        begun.wait(PATIENCE)
        return go_on

    def _hold(self) -> None:
        async def hold() -> None:
            self._loop = asyncio.get_running_loop()
            over = asyncio.Event()
            threading.Thread(target=self._pass_on, args=(over,), daemon=True).start()
            limiter = Limiter(self.store)
            try:
                async with limiter.hold(LIMIT):
                    self.begun_at = time.monotonic()
                    try:
                        await over.wait()
                    except asyncio.CancelledError:
                        self.notified_at = time.monotonic()
                        raise
            finally:
                await self.store.aclose()

        asyncio.run(hold())

    def _pass_on(self, over: asyncio.Event) -> None:
        self._over.wait()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(over.set)


class RoundTrips:
    """Measures round trips to a server while a test waits: on a busy machine they take longer."""

    def __init__(self, url: str) -> None:
        self.longest = 0.0
        make: Any = redis.Redis.from_url
        self._client = make(url, socket_timeout=PATIENCE)
        self._client.ping()

    def measure(self) -> None:
        """Make one."""
        began = time.monotonic()
        self._client.ping()
        self.longest = max(self.longest, time.monotonic() - began)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def bound(self) -> float:
        """Return the seconds within which a party has to be notified."""
        return max(BOUND, ROUND_TRIPS * self.longest)


def seconds_until(
    notified_at: Callable[[], float], since: float, url: str, *, bound: float = BOUND
) -> float:
    """Wait until a party is notified; returns how many seconds it took, fails if too many.

    Args:
        notified_at: returns when they were notified, 0.0 as long as they were not.
        since: from when the seconds count.
        url: of the server, through the proxy that the message passes.
        bound: the bound, on a machine that is not busy.
    """
    trips = RoundTrips(url)
    try:
        trips.measure()

        def is_notified() -> bool:
            if not notified_at():
                trips.measure()
            return bool(notified_at())

        until_now(is_notified, "the party is notified")
        trips.measure()
    finally:
        trips.close()
    took = max(0.0, notified_at() - since)
    assert took <= max(bound, trips.bound()), (
        f"notified after {took:.2f} s; a round trip took {trips.longest:.3f} s at the most"
    )
    return took
