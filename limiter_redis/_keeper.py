"""The keeper: one daemon thread per process that renews, listens, and looks when time is up.

It has connections of its own, so that neither a busy event loop nor an exhausted pool can make a
lease run out. It runs while somebody in this process waits or holds, and for a little longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import redis
from redis.exceptions import RedisError

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.requests import Granted
from limiter_redis import _protocol as protocol
from limiter_redis._hub import Hub, Live, logger
from limiter_redis._script import Script
from limiter_redis._wire import BATCH, Wire

TICK = 0.1
"""Seconds between looks at the clock; the bound on how late a renewal can be."""

_SHORT_TICK = 0.02
_SHORT_LEASE = 1.0
_IDLE_AFTER = 10.0
"""Seconds without anybody waiting or holding after which the thread ends; the next call starts it
again."""

_RECONNECT_PAUSE = 0.1
_PATIENCE = 2.0
"""Seconds that a reply, or a connection, may take: a renewal must be over long before a lease."""


class Keeper:
    """Keeps alive what the hub knows of."""

    def __init__(
        self,
        hub: Hub,
        connect: Callable[[float], redis.Redis],
        where: str,
        script: Script,
    ) -> None:
        self._hub = hub
        self._connect = connect
        self._where = where
        self._script = script
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._away = False
        self.listening = False
        """Whether messages are heard now."""

    def ensure_running(self) -> None:
        """Start the thread if it does not run."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._stopping.clear()
                    self._thread = threading.Thread(
                        target=self._run, name="limiter-keeper", daemon=True
                    )
                    self._thread.start()

    def stop(self) -> None:
        """End the thread, if it runs."""
        thread = self._thread
        self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_PATIENCE)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        listening = self._connect(_PATIENCE)
        hub = self._hub
        own = self._connect(_PATIENCE)
        wire = Wire(own, hub.namespace, hub.process, self._where, self._script)
        pubsub: Any = cast(Any, listening).pubsub()
        subscribed = False
        over = threading.Event()
        deadlines = threading.Thread(
            target=self._watch_deadlines, args=(over,), name="limiter-deadlines", daemon=True
        )
        deadlines.start()
        idle_since = time.monotonic()
        try:
            while not self._stopping.is_set():
                try:
                    if not subscribed:
                        pubsub.subscribe(self._hub.channel)
                        subscribed = True
                    self._listen(pubsub)
                except (RedisError, OSError):
                    pubsub.reset()
                    subscribed = self.listening = False
                    self._stopping.wait(_RECONNECT_PAUSE)
                self._keep(wire)
                if self._hub.live:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > _IDLE_AFTER and self._may_end():
                    return
        finally:
            over.set()
            if self._thread in (threading.current_thread(), None):  # else the next one runs already
                self._thread = None
                self.listening = False
            pubsub.close()
            listening.connection_pool.disconnect()
            wire.close()

    def _watch_deadlines(self, over: threading.Event) -> None:
        # In a thread of its own: who waits for a server that says nothing cannot tell holders in
        # time that their leases end.
        while not over.wait(self._tick()):
            try:
                self._hub.expire(time.monotonic())
            except Exception:  # noqa: BLE001
                logger.exception("a listener failed")

    def _may_end(self) -> bool:
        with self._lock:
            self._thread = None
            if not self._hub.live:
                return True
            # Somebody came in between, and saw a thread that runs: so it does.
            self._thread = threading.current_thread()
            return False

    def _listen(self, pubsub: Any) -> None:
        """Pass on one tick's messages."""
        until = time.monotonic() + self._tick()
        while (left := until - time.monotonic()) > 0:
            message = pubsub.get_message(timeout=left)
            if message is None:
                return
            if message["type"] == "subscribe":
                self.listening = True
                self._hub.recheck_waiting()  # what was said before this, nobody heard
                return
            if message["type"] == "message":
                self._hub.hear(protocol.lines([message["data"]]))

    def _tick(self) -> float:
        return _SHORT_TICK if self._hub.shortest < _SHORT_LEASE else TICK

    def _keep(self, wire: Wire) -> None:
        """Renew what is due, look at keys whose time is up, give up what could not be renewed."""
        now = time.monotonic()
        try:
            due = self._hub.due(now)
            for start in range(0, len(due), BATCH):
                self._renew(wire, due[start : start + BATCH])
            looks = self._hub.due_looks(now)
            for start in range(0, len(looks), BATCH):
                self._look(wire, looks[start : start + BATCH])
            while self._hub.abandoned:
                operation = protocol.release(*self._hub.abandoned.popitem())
                self._hub.hear(wire.call([operation])[1:])
        except StoreUnavailable as error:
            if not self._away:
                logger.warning("cannot renew leases, will retry until they end: %s", error)
            self._away = True
        except StoreError as error:
            logger.warning("the keeper got an error from the store: %s", error)
        except Exception:  # noqa: BLE001
            # It must not end while leases depend on it, whatever a listener or a reply did.
            logger.exception("the keeper failed, and goes on")
        else:
            self._away = False

    def _renew(self, wire: Wire, lives: list[Live]) -> None:
        sent_at = time.monotonic()
        operations = [protocol.renew(live.request.id, live.key) for live in lives]
        lines = wire.call(operations)
        for live, line in zip(lives, lines, strict=False):
            request = self._hub.renewed(live, line, sent_at)
            if request is not None:
                self._reclaim(wire, live, protocol.acquire(request))
        self._hub.hear(lines[len(lives) :])

    def _reclaim(self, wire: Wire, live: Live, operation: protocol.Operation) -> None:
        sent_at = time.monotonic()
        line, *news = wire.call([operation])
        self._hub.hear(news)
        if self._hub.live.get(live.request.id) is not live:
            # Released while it was asked for again: nobody wants it any more.
            wire.call([protocol.release(live.request.id, live.key)])
            return
        answer = self._hub.settle(live.request, line, sent_at)
        if isinstance(answer, Granted):
            live.listener.lease_renewed(live.expires_at)
        else:
            self._hub.forgotten(live)

    def _look(self, wire: Wire, keys: list[str]) -> None:
        lines = wire.call([protocol.sweep(key) for key in keys])
        if any(live.waiting for live in list(self._hub.live.values())):
            for key, line in zip(keys, lines, strict=False):
                self._hub.look_at(key, protocol.seconds(line))
        self._hub.hear(lines[len(keys) :])
