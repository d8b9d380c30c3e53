"""A trial: one party behind a proxy loses its slot, or is granted one, and is notified."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from limiter_core import ConflictResolution
from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_redis import RedisStore

from ._fake_time import FAKED, ServerClock
from ._notified_parties import KEY, LEASE, ControlledProxy, LoopParty, Party, ThreadParty
from ._servers import OneNode, Process
from ._tools import until_now

WORLDS = {"threads": ThreadParty, "asyncio": LoopParty}
SHORT = 1.5
"""Seconds of a lease that ends without a word."""


class NotificationTrial:
    """One party behind a proxy, and another, without a proxy, that takes its slot.

    Args:
        server: the server.
        news: what happens.
        world: where the party runs.
        clock: the server's time, where it is in our hands.
    """

    def __init__(
        self,
        server: Process,
        news: str,
        world: str,
        *,
        clock: ServerClock | None = None,
    ) -> None:
        self.server = server
        self.proxy = ControlledProxy(server.port)
        self._clock = clock
        self._given = {"script": FAKED} if clock is not None else {}
        self._is_cluster = isinstance(server, OneNode)
        if self._is_cluster:  # a node names itself: so clients come by the proxy
            server.admin.config_set("cluster-announce-port", self.proxy.port)
        self._other = self._store(server.port)
        self._face: Any = self._other.sync_face()
        self._first_ends_at = 0.0
        self.waits = news in ("handed over", "run out")
        if self.waits:
            lease = SHORT if news == "run out" else LEASE
            first = self._face.acquire(Request("first", (Demand(KEY, 1),), lease=lease))
            assert isinstance(first, Granted)
            self._first_ends_at = time.monotonic() + SHORT
        self.party: Party = WORLDS[world](self._store(self.proxy.port))
        self._happen = getattr(self, "_" + news.replace(" ", "_"))

    def _store(self, port: int) -> RedisStore:
        scheme = "redis+cluster" if self._is_cluster else "redis"
        return RedisStore(f"{scheme}://127.0.0.1:{port}", **self._given)

    # -- what may happen: each returns when it has ------------------------------------------------

    def happens(self, ask: Callable[..., Any] | None = None) -> float:
        """Have it happen; returns when it has. `ask` carries operations out, if not the other."""
        self._happen(ask or (lambda operation, *given: getattr(self._face, operation)(*given)))
        return time.monotonic()

    def _rival(self) -> Request:
        latest = ConflictResolution.CANCEL_RUNNING
        return Request("rival", (Demand(KEY, 1, on_conflict=latest),), lease=LEASE)

    def _preempted(self, ask: Callable[..., Any]) -> None:
        assert isinstance(ask("acquire", self._rival()), Queued)

    def _evicted(self, ask: Callable[..., Any]) -> None:
        [holder] = self._face.inspect(KEY).holders
        ask("evict", holder.id)
        assert not self._face.inspect(KEY).holders

    def _expired(self, ask: Callable[..., Any]) -> None:
        assert self._clock is not None
        self._clock.advance(LEASE + 1)
        assert isinstance(ask("acquire", self._rival()), Granted)

    def _handed_over(self, ask: Callable[..., Any]) -> None:
        ask("release", "first")

    def _run_out(self, ask: Callable[..., Any]) -> None:
        until_now(lambda: time.monotonic() >= self._first_ends_at, "the lease has ended")

    # -- the party --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have the party hold its slot, or wait for it."""
        self.party.start()
        self.until_known()
        if not self.waits:
            until_now(lambda: self.party.begun_at, "it has its slot")

    def until_known(self) -> None:
        """Wait until the server knows of it."""

        def is_known() -> bool:
            seen = self._face.inspect(KEY)
            return bool(seen.waiting if self.waits else seen.holders)

        until_now(is_known, "the server knows of it")

    def until_subscribed(self) -> float:
        """Wait until messages can arrive; returns from when on."""
        until_now(lambda: self.proxy.subscribed_at, "messages can arrive")
        return self.proxy.subscribed_at

    def until_settled(self) -> None:
        """Wait until its process has looked at what was said before it received messages, too."""
        at = self.until_subscribed()
        until_now(lambda: self.proxy.looked_at > at, "it has looked")

    def notified_at(self) -> float:
        """When the party was notified, 0.0 as long as it was not."""
        return self.party.begun_at if self.waits else self.party.notified_at

    def close(self) -> None:
        self.proxy.release()
        if self.party._thread.is_alive():
            self.party.end()
        for each in ("first", "rival"):
            self._face.release(each)
        self._other.close()
        self.proxy.close()


@contextmanager
def running_trial(*given: Any, **named: Any) -> Iterator[NotificationTrial]:
    trial = NotificationTrial(*given, **named)
    try:
        yield trial
    finally:
        trial.close()
