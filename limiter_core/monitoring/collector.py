"""`Collector`: finds the keys of a store, looks at them once a second, and keeps what it saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from limiter_core._operator_checks import check_key
from limiter_core._store_methods import bounded_inspect, paced_keys
from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.monitoring.history import BUCKET, Point
from limiter_core.monitoring.key_status import KeyStatus
from limiter_core.monitoring.key_table import KeyTable
from limiter_core.registry import open_store
from limiter_core.requests import KeySnapshot
from limiter_core.store import Store

__all__ = ("Collector", "StoreHealth")

EVERY = 1.0
"""Seconds between two looks, while a viewer watches."""

EVERY_UNSEEN = 0.1
"""Seconds between two looks while keys were found that were never looked at."""

EVERY_IDLE = BUCKET
"""Seconds between two looks while nobody watches: histories go on."""

IDLE_AFTER = 60.0
"""Seconds after which nobody counts as watching, since the last viewer left."""

SEARCH_EVERY = 10.0
"""Seconds from the begin of a search for keys to that of the next one, at the most."""

SEARCH_EVERY_SMALL = 2.0
"""The same while a viewer watches, where the search takes a small share of it."""

SEARCH_SHARE = 0.05
"""The share of the time that a search may take, where the server is full of others' keys."""

HEAD_START = 1.0
"""Seconds of the first search without a pause: a viewer waits for it."""

LOOKS = 1024
"""Keys that one round looks at, at the most: eight batches of the Redis store. With more keys in
use, those that viewers see come first, and the others in turn."""

MOST_KEYS = 20_000
"""Keys that are known at once: about 1.5 kB each."""

PATIENCE = 5.0
"""Seconds that a round waits for the store."""


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """Whether the store answers.

    Attributes:
        unavailable_since: since when it cannot be reached, on the collector's clock; None while it
            can.
        error: what is wrong; empty while it can be reached.
        looked_at: when keys were last seen, on the collector's clock; None before the first time.
        searched: whether all keys have been searched for at least once.
        left_out: keys in use that are not shown, since there are too many.
    """

    unavailable_since: float | None
    error: str
    looked_at: float | None
    searched: bool
    left_out: int


class Collector:
    """What all viewers of a store see. It changes nothing in the store.

    One collector serves any number of viewers: a round of looks takes as many round trips as the
    keys need, once a second. It goes on while the store cannot be reached (`health`), and looks
    every ten seconds only while nobody watches. Run it in an event loop::

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collector.run)

    Args:
        store: a store or its URL. A collector never closes it.
        most_keys: keys that are known at once.

    Raises:
        ConfigurationError: no installed store knows the URL, or the store has no async face.
    """

    def __init__(self, store: str | Store, *, most_keys: int = MOST_KEYS) -> None:
        self._face = open_store(store).async_face()
        self._inspect = bounded_inspect(self._face)
        self._table = KeyTable(most_keys)
        self._watched: Counter[str] = Counter()
        self._viewers = 0
        self._viewed_at = self._face.now()
        self._changed = anyio.Event()
        self._woken = anyio.Event()
        self._unavailable_since: float | None = None
        self._error = ""
        self._looked_at: float | None = None
        self._searched = False

    # -- what viewers see --------------------------------------------------------------------------

    def now(self) -> float:
        """Return the collector's clock, in seconds: that of the store's local deadlines."""
        return self._face.now()

    @property
    def health(self) -> StoreHealth:
        """Whether the store answers, and how complete the list of keys is."""
        return StoreHealth(
            unavailable_since=self._unavailable_since,
            error=self._error,
            looked_at=self._looked_at,
            searched=self._searched,
            left_out=self._table.left_out,
        )

    def statuses(self) -> list[KeyStatus]:
        """Return the keys in use, and those that were within 30 s; in no order."""
        return list(self._table.statuses(self.now()))

    def status(self, key: str) -> KeyStatus | None:
        """Return one of them; also of a key not used any more, for 15 minutes."""
        return self._table.status(key)

    def snapshot(self, key: str) -> KeySnapshot | None:
        """Return the last snapshot of a key that is watched, None before the first look."""
        return self._table.snapshot(key)

    def unseen(self) -> bool:
        """Whether keys were found that have not been looked at yet."""
        return self._table.unseen()

    def history(self, key: str) -> list[Point | None]:
        """Return the last 15 minutes of a key, the oldest first; None where it was not seen."""
        history = self._table.history(key)
        return [] if history is None else history.points(self.now())

    @contextmanager
    def watching(self, *keys: str) -> Generator[None]:
        """Have the collector look every second, and first at these keys, whose snapshots it keeps.

        Raises:
            ConfigurationError: one of them is no key.
        """
        for key in keys:
            check_key(key)
        self.touch()
        self._watched.update(keys)
        self._viewers += 1
        try:
            yield
        finally:
            self._viewers -= 1
            self._watched.subtract(keys)
            self._watched += Counter()  # drops those that nobody watches any more
            self._viewed_at = self.now()

    def touch(self) -> None:
        """Say that a viewer watches now: for viewers that come again and again."""
        was_idle = self._is_idle()
        self._viewed_at = self.now()
        if was_idle:
            self._woken.set()

    async def next_round(self) -> None:
        """Wait for the end of the next round of looks, also of one that fails."""
        await self._changed.wait()

    def notify(self) -> None:
        """End the waiting of all that wait for the next round, now."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _is_idle(self) -> bool:
        return not self._viewers and self.now() - self._viewed_at >= IDLE_AFTER

    # -- work --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look and search until it is cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._search_forever)
            while True:
                began = self.now()
                await self.look()
                every = EVERY_IDLE if self._is_idle() else EVERY
                if self._unavailable_since is None and self.unseen():
                    every = EVERY_UNSEEN
                self._woken = anyio.Event()
                with anyio.move_on_after(max(0.0, began + every - self.now())):
                    await self._woken.wait()

    async def _search_forever(self) -> None:
        while True:
            began = self.now()
            await self.search()
            every = EVERY
            if self._searched and self._unavailable_since is None:
                every = SEARCH_EVERY
                if not self._is_idle():
                    took = self.now() - began
                    every = min(every, max(SEARCH_EVERY_SMALL, took / SEARCH_SHARE))
            await anyio.sleep(max(0.0, began + every - self.now()))

    async def look(self) -> None:
        """Look at the keys once. Does not raise where the store fails; see `health`."""
        now = self.now()
        watched = list(self._watched)
        keys = self._table.due(now, LOOKS, first=watched)
        if self._unavailable_since is not None:
            keys = keys[:1]  # enough to learn that it is there again
        outcomes = await self._inspect_all(keys)
        away: StoreUnavailable | None = None
        now = self.now()
        for key, outcome in outcomes.items():
            if isinstance(outcome, StoreUnavailable):
                away = outcome
            elif isinstance(outcome, StoreError):
                self._table.not_readable(key, str(outcome), now)
            else:
                self._table.seen(outcome, now, watched=key in self._watched)
        if away is not None:
            self._is_away(away)
        elif keys:
            self._is_there()
            self._looked_at = now
        self._table.forget_old(now)
        self.notify()

    async def inspect(self, key: str) -> KeySnapshot:
        """Look at one key now, in a round trip of its own; for what cannot wait for a round.

        Raises:
            ConfigurationError: it is no key.
            StoreError: the store fails.
        """
        snapshot: KeySnapshot = await self._inspect(check_key(key), self.now() + PATIENCE)
        self._table.seen(snapshot, self.now(), watched=key in self._watched)
        return snapshot

    async def search(self) -> None:
        """Search for keys once, in slices. Does not raise where the store fails; see `health`."""
        pace = _Pace(self.now, head_start=0.0 if self._searched else HEAD_START)
        try:
            async for key in paced_keys(self._face, pace.after_slice):
                self._table.found(key, self.now())
                if not self._searched:
                    self._woken.set()  # what the first search finds is looked at while it goes on
        except StoreError as error:
            self._is_away(error)
            return
        self._table.searched()
        self._searched = True
        self._is_there()

    async def _inspect_all(self, keys: list[str]) -> dict[str, KeySnapshot | StoreError]:
        outcomes: dict[str, KeySnapshot | StoreError] = {}
        deadline = self.now() + PATIENCE

        async def inspect(key: str) -> None:
            try:
                outcomes[key] = await self._inspect(key, deadline)
            except StoreError as error:
                outcomes[key] = error

        async with anyio.create_task_group() as tasks:  # they travel together
            for key in keys:
                tasks.start_soon(inspect, key)
        return outcomes

    def _is_away(self, error: StoreError) -> None:
        if self._unavailable_since is None:
            self._unavailable_since = self.now()
        self._error = str(error)

    def _is_there(self) -> None:
        self._unavailable_since, self._error = None, ""


class _Pace:
    """Bounds the share of time that a search takes: after each slice it pauses."""

    def __init__(self, now: Callable[[], float], head_start: float) -> None:
        self._now = now
        self._began = now()
        self._pause_after = self._began + head_start

    async def after_slice(self) -> None:
        now = self._now()
        took = max(0.0, now - self._began) if now >= self._pause_after else 0.0
        await anyio.sleep(took * (1 / SEARCH_SHARE - 1))
        self._began = self._now()
