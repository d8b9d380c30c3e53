"""Plain integers behind the observable instruments: they cost a call far less than the SDK does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import RLock
from weakref import ref

from limiter_otel._sample import Sample

NAME = "limiter.name"
ADAPTER = "limiter.adapter"
OUTCOME = "limiter.outcome"

UNKNOWN = "unknown"
"""The name of a job's limits where this process knows its ticket alone."""

_MOST_COMBINATIONS = 1000
"""Of names whose series are looked up at once; names themselves are bounded by the core."""

Attributes = Mapping[str, str]

_numbers = itertools.count()


class Tally:
    """A number that is counted up without a lock: that takes a tenth of the time.

    Attributes:
        add: adds one. Of all threads and finalizers at once, none is lost.
    """

    __slots__ = ("_counter", "add")

    def __init__(self) -> None:
        self._counter = itertools.count()
        self.add = self._counter.__next__

    def read(self) -> int:
        """Return the number. Only its text says it without counting on."""
        return int(repr(self._counter).removeprefix("count(").removesuffix(")"))


class Series:
    """The counts of one limit name and one adapter.

    Attributes:
        name: of the limit.
        attributes: its name, and its adapter if there is one.
        granted: the number of grants.
        ended: the number of granted leases that have ended.
        forgotten: the number of those that will not be counted as ended.
        waiting: what ends the waits of calls, by a number for each.
        is_waited_for: whether any has waited: so these are calls, and no jobs.
        calls: the number of other outcomes, by outcome.
        lost: the number of lost leases, by reason.
        holds: which of them are measured.
        waits: which of them are measured, and become spans.
    """

    __slots__ = (
        "_with_outcome",
        "attributes",
        "calls",
        "ended",
        "forgotten",
        "granted",
        "holds",
        "is_waited_for",
        "lost",
        "name",
        "waiting",
        "waits",
    )

    def __init__(self, name: str, adapter: str | None) -> None:
        self.name = name
        self.attributes = {NAME: name} if adapter is None else {NAME: name, ADAPTER: adapter}
        self.granted = Tally()
        self.ended = Tally()
        self.forgotten = 0
        self.waiting: dict[int, ref[Callable[[], object]]] = {}
        self.is_waited_for = False
        self.calls: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.holds = Sample()
        self.waits = Sample()
        self._with_outcome: dict[str, Attributes] = {}

    def with_outcome(self, outcome: str) -> Attributes:
        """Return the attributes of a series of one outcome."""
        found = self._with_outcome.get(outcome)
        if found is None:
            found = self._with_outcome[outcome] = {**self.attributes, OUTCOME: outcome}
        return found

    def held(self) -> int:
        """Return the number of leases that are held; with the lock of the counts."""
        ended = self.ended.read()  # first: what is granted meanwhile may have ended
        return self.granted.read() - ended - self.forgotten

    def begin_wait(self) -> Callable[[], object]:
        """Count a call that waits from now on; returns a function that counts it no more.

        If an exception is thrown in, that function may be lost: its collection has the same effect.
        """
        self.is_waited_for = True
        waiting, number = self.waiting, next(_numbers)
        end = partial(waiting.pop, number, None)
        waiting[number] = ref(end)
        return end

    def count_waiting(self) -> int:
        """Return the number of calls that wait."""
        waiting = self.waiting
        for number, end in waiting.copy().items():
            if end() is None:
                waiting.pop(number, None)
        return len(waiting)


class Counts:
    """The series of this process.

    Attributes:
        lock: held to read, and for rare changes, for a few instructions. A finalizer that
            interrupts them may release a lease, so it is reentrant.
        store_errors: how often a store began to fail, by the type of the error.
        by_names: the series of most events, found without a call of `of`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin from zero; in a forked process, which holds nothing."""
        self.lock = RLock()
        self.store_errors: dict[str, int] = {}
        self._series: dict[tuple[str, str | None], Series] = {}
        self.by_names: dict[tuple[tuple[str, ...], str | None], tuple[Series, ...]] = {}

    def nothing_held(self) -> None:
        """Forget what is held, and what waits: their ends will not be sent."""
        with self.lock:
            for series in self._series.values():
                series.forgotten += series.held()
                series.waiting = {}

    def of(self, names: tuple[str, ...], adapter: str | None) -> tuple[Series, ...]:
        """Return the series that an event counts for: one for each name."""
        found = self.by_names.get((names, adapter))
        if found is None:
            with self.lock:
                found = tuple(self.named(name, adapter) for name in dict.fromkeys(names or ("",)))
                if len(self.by_names) >= _MOST_COMBINATIONS:
                    self.by_names.clear()
                self.by_names[names, adapter] = found
        return found

    def named(self, name: str, adapter: str | None) -> Series:
        """Return the series of a name."""
        found = self._series.get((name or UNKNOWN, adapter))
        if found is None:
            with self.lock:
                new = Series(name or UNKNOWN, adapter)
                found = self._series.setdefault((new.name, adapter), new)
        return found

    def outcome(self, series: tuple[Series, ...], outcome: str) -> None:
        """Count an outcome of a call or a job."""
        with self.lock:
            for each in series:
                each.calls[outcome] = each.calls.get(outcome, 0) + 1

    def lost(self, series: tuple[Series, ...], reason: str) -> None:
        """Count a lease that was lost."""
        with self.lock:
            for each in series:
                each.ended.add()
                each.lost[reason] = each.lost.get(reason, 0) + 1

    def store_failed(self, error: str) -> None:
        """Count a store that began to fail."""
        with self.lock:
            self.store_errors[error] = self.store_errors.get(error, 0) + 1

    # -- what the observable instruments read ------------------------------------------------------

    def all_held(self) -> Iterator[tuple[int, Attributes]]:
        """Yield the held leases of each series."""
        with self.lock:
            held = [(each.held(), each.attributes) for each in self._series.values()]
        yield from held

    def all_waiting(self) -> Iterator[tuple[int, Attributes]]:
        """Yield the waiting calls of each series; jobs wait in the store, not in a process."""
        yield from [
            (each.count_waiting(), each.attributes)
            for each in self._all()
            if each.is_waited_for or ADAPTER not in each.attributes
        ]

    def all_calls(self) -> Iterator[tuple[int, Attributes]]:
        """Yield the calls of each series and outcome."""
        for series in self._all():
            with self.lock:
                counted = [("granted", series.granted.read()), *series.calls.items()]
            for outcome, count in counted:
                if count:
                    yield count, series.with_outcome(outcome)

    def all_lost(self) -> Iterator[tuple[int, Attributes]]:
        """Yield the lost leases of each series and reason."""
        for series in self._all():
            with self.lock:
                counted = list(series.lost.items())
            for reason, count in counted:
                yield count, series.with_outcome(reason)

    def all_store_errors(self) -> Iterator[tuple[int, Attributes]]:
        """Yield the failures of stores, by the type of the error."""
        with self.lock:
            counted = list(self.store_errors.items())
        for error, count in counted:
            yield count, {"error.type": error}

    def _all(self) -> list[Series]:
        with self.lock:
            return list(self._series.values())
