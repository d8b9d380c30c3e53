"""An overlap recorder: records which call held what when, independent of stores and limiters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from limiter_core.system_clock import system_clock as time

__all__ = ("Interval", "OverlapRecorder", "Violation")


@dataclass(eq=False, slots=True)
class Interval:
    """One holder's time on a key.

    Attributes:
        key: the key.
        who: the holder's name.
        cost: the slots it held.
        limit: the number of slots it believes the key to have, None for no opinion.
        begin: when it began, on the recorder's clock.
        end: when it ended, None while it holds.
    """

    key: str
    who: str
    cost: int
    limit: int | None
    begin: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A moment at which more was held than the limit of the call that began.

    Attributes:
        key: the key.
        at: the moment, on the recorder's clock.
        in_use: the slots held then.
        limit: the number that was not kept.
        holders: the calls that held them, the newest last.
    """

    key: str
    at: float
    in_use: int
    limit: int
    holders: tuple[Interval, ...]

    def __str__(self) -> str:
        lines = [f"{self.key!r}: {self.in_use} slots in use at {self.at:.6f}, limit {self.limit}:"]
        for holder in self.holders:
            end = "still holding" if holder.end is None else f"until {holder.end:.6f}"
            lines.append(f"  {holder.who}: cost {holder.cost}, from {holder.begin:.6f} {end}")
        return "\n".join(lines)


class OverlapRecorder:
    """Records when bodies run, and reports whether too many ran at once::

        recorder = OverlapRecorder()

        async def job(customer: str) -> None:
            async with limiter.hold(limit, {"customer": customer}):
                with recorder.holding(customer, limit=2):
                    ...

        recorder.assert_within(customer, 2)

    It takes begin and end by its own clock and in its own order, so it does not depend on what it
    watches. May be used from any number of threads and event loops at once.

    Args:
        clock: seconds; only for display, the order of events is the recorder's own.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._intervals: dict[str, list[Interval]] = {}
        self._live: dict[str, list[Interval]] = {}
        self._peaks: dict[str, Violation] = {}
        self._violations: list[Violation] = []

    @contextmanager
    def holding(
        self, key: str, cost: int = 1, limit: int | None = None, *, who: str | None = None
    ) -> Generator[Interval, None, None]:
        """Note that the block holds `cost` slots of `key`.

        Args:
            key: the key.
            cost: the slots held.
            limit: what the holder believes the key's limit to be; more than that at its coming in
                is a violation. None to note only.
            who: the holder's name in messages; default the thread's name and a number.
        """
        interval = self._begin(key, cost, limit, who)
        try:
            yield interval
        finally:
            self._end(interval)

    def intervals(self, key: str) -> tuple[Interval, ...]:
        """Return all that was noted of a key, in the order of beginning."""
        with self._lock:
            return tuple(self._intervals.get(key, ()))

    def peak(self, key: str) -> int:
        """Return the most slots that were ever held at once."""
        with self._lock:
            peak = self._peaks.get(key)
            return 0 if peak is None else peak.in_use

    def violations(self) -> tuple[Violation, ...]:
        """Return the moments at which a holder came in above the limit it gave, in order."""
        with self._lock:
            return tuple(self._violations)

    def assert_within(self, key: str, limit: int) -> None:
        """Check that never more than `limit` slots of `key` were held at once.

        Raises:
            AssertionError: more were; the message shows the holders at the worst moment.
        """
        with self._lock:
            peak = self._peaks.get(key)
        if peak is not None and peak.in_use > limit:
            raise AssertionError(str(Violation(key, peak.at, peak.in_use, limit, peak.holders)))

    def _begin(self, key: str, cost: int, limit: int | None, who: str | None) -> Interval:
        with self._lock:
            noted = self._intervals.setdefault(key, [])
            name = who or f"{threading.current_thread().name} #{len(noted) + 1}"
            interval = Interval(key, name, cost, limit, self._clock())
            noted.append(interval)
            live = self._live.setdefault(key, [])
            live.append(interval)
            in_use = sum(holder.cost for holder in live)
            peak = self._peaks.get(key)
            if peak is None or in_use > peak.in_use:
                self._peaks[key] = Violation(key, interval.begin, in_use, in_use, tuple(live))
            if limit is not None and in_use > limit:
                violation = Violation(key, interval.begin, in_use, limit, tuple(live))
                self._violations.append(violation)
        return interval

    def _end(self, interval: Interval) -> None:
        with self._lock:
            interval.end = self._clock()
            self._live[interval.key].remove(interval)
