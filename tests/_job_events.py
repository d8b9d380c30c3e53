"""A burst of jobs in real workers, which note their events: what every queue is tested with.

The workers of a queue run one function for each of `LIMITS`. Its body notes when it begins and
ends, and lasts until the test lets all bodies end. Each process appends its events to a file.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import limiter_core
from limiter_core import LIMIT_BY, SyncLimiter, events
from limiter_core.events import Event
from limiter_core.testing import OverlapRecorder
from tests.core._events import ENDS, EventRecorder
from tests.redis._tools import until

URL = os.environ.get("JOBS_URL", "redis://localhost:6379/0")
FOLDER = Path(os.environ.get("JOBS_EVENTS", "."))

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"max_concurrent": 2},
    "once": {"on_conflict": "cancel"},
    "hurried": {"timeout": 0.6},
    "crowded": {"max_waiting": 1},
    "latest": {"on_conflict": "keep_latest"},
    "newest": {"on_conflict": "cancel_running"},
}
"""The options of the limits, by the names of the jobs' functions, which are their keys as well."""

ATTEMPTS = 17
REFUSALS = {
    "once-2": ("full", "is not run: all slots are in use on", "is full: 1 of 1 slots in use"),
    "hurried-2": (
        "timeout",
        "is not run: its timeout was over before a slot was free on",
        "timed out waiting for",
    ),
    "crowded-3": (
        "queue_full",
        "is not run: the most that may wait do so already on",
        "so are its slots: 1 of 1 in use",
    ),
    "latest-2": (
        "superseded",
        "is not run: a newer call took its place on",
        "took the place of this one",
    ),
}
"""The refused jobs of the burst: why, in the event, the log and the result."""

_STEP = 0.01


def by(name: str) -> Any:
    return LIMIT_BY.constant(name)


def options_of(name: str) -> dict[str, Any]:
    """Return the options of a limit: of a class of the core or of an adapter."""
    return {"max_concurrent": 1, "name": f"{name} limit", **OPTIONS[name]}


# -- in a worker -----------------------------------------------------------------------------------


def _append(name: str, line: bytes) -> None:
    file = os.open(FOLDER / f"{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, line + b"\n")
    finally:
        os.close(file)


def observe() -> None:
    """Have a worker append each event to a file; a test that imports its jobs does not."""
    if "JOBS_EVENTS" in os.environ:
        limiter_core.observe(lambda event: _append("events", base64.b64encode(pickle.dumps(event))))


@contextmanager
def noted(name: str) -> Generator[None]:
    """Note begin and end of a job's body."""
    begin = time.time()
    _append("bodies", json.dumps({"name": name, "begin": begin}).encode())
    try:
        yield
    finally:
        _append("bodies", json.dumps({"name": name, "begin": begin, "end": time.time()}).encode())


def may_end() -> bool:
    return (FOLDER / "may end").exists()


async def body(name: str) -> None:
    """Run until bodies may end."""
    with noted(name):
        while not may_end():  # noqa: ASYNC110  (it is in a file)
            await asyncio.sleep(_STEP)


# -- in a test -------------------------------------------------------------------------------------


class Queue(Protocol):
    """A queue of the tests."""

    limiter: SyncLimiter
    grants_first: bool
    """Whether a grant is sent before its body begins: not where another process runs the body."""

    async def add(self, function: str, name: str) -> None:
        """Add a job under a name."""

    async def cancel(self, name: str) -> None:
        """Cancel a job that waits, in the queue's own way."""

    async def error(self, name: str) -> str | None:
        """Return what the result of a job says of its failure; None if there is no result."""

    def output(self) -> str:
        """Return what the workers logged."""
        ...

    def stop(self) -> None:
        """Have the workers end in good order."""


class Burst:
    """Jobs that run, wait, are refused, time out, are superseded, preempted and cancelled."""

    def __init__(self, queue: Queue, folder: Path) -> None:
        self._queue = queue
        self._folder = folder
        self._own = EventRecorder()
        """Events of this process: it may be what ends a job that waits."""

    async def run(self) -> None:
        """Run all, and check what the events, the log and the results say."""
        remove = limiter_core.observe(self._own)
        try:
            await self._run()
        finally:
            remove()

    async def _run(self) -> None:
        queue = self._queue
        runs = [f"{name}-1" for name in OPTIONS] + ["plain-2"]
        for name in runs:
            await self._add(name)
        await self._until(lambda: set(runs) <= set(self.bodies()), "the first run")
        for name in ("once-2", "hurried-2", "crowded-2", "latest-2"):
            await self._add(name)
        await self._until_waiting(crowded=1, latest=1)
        for name in ("crowded-3", "latest-3", "newest-2", "plain-3", "plain-4", "plain-5"):
            await self._add(name)
        await self._until(lambda: "newest-2" in self.bodies(), "the newest runs")
        await self._until_waiting(plain=3, latest=1, hurried=0)
        await queue.cancel("plain-4")
        await self._until_waiting(plain=2)
        texts = {name: await self._error(name) for name in (*REFUSALS, "newest-1")}
        (self._folder / "may end").touch()
        ran = {*runs, "crowded-2", "latest-3", "newest-2", "plain-3", "plain-5"}
        await self._until(self._is_idle, "no job waits or runs")
        queue.stop()
        assert set(self.bodies()) == ran
        self._check_events(ran)
        self._check_log(queue.output())
        for name, (_, _, why) in REFUSALS.items():
            key = name.partition("-")[0]
            assert why in texts[name], texts
            assert f"{key!r} ({key} limit)" in texts[name], texts
        assert "lost the lease on 'newest': a newer call took the slot" in texts["newest-1"]

    def bodies(self) -> dict[str, tuple[float, float | None]]:
        """Return begin and end of each body, None for one that was killed, or still runs."""
        found: dict[str, tuple[float, float | None]] = {}
        for line in _lines(self._folder.glob("*.bodies")):
            noted = json.loads(line)
            assert noted["name"] not in found or "end" in noted, f"{noted['name']} began twice"
            found[noted["name"]] = noted["begin"], noted.get("end")
        return found

    def events(self) -> EventRecorder:
        """Return the events of all workers, those of each process in their order."""
        recorder = EventRecorder()
        lines = _lines(self._folder.glob("*.events"))
        noted = [pickle.loads(base64.b64decode(line)) for line in lines]
        recorder.events = [*noted, *self._own.events]
        return recorder

    def _check_events(self, ran: set[str]) -> None:
        seen = self.events()
        seen.check_invariants(ATTEMPTS)
        granted = {self._name_of(event): event for event in seen.all(events.Granted)}
        assert set(granted) == ran
        refused = {self._name_of(event): event.reason for event in seen.all(events.Refused)}
        assert refused == {name: reason for name, (reason, _, _) in REFUSALS.items()}
        assert self._name_of(seen.one(events.Cancelled)) == "plain-4"
        assert self._name_of(seen.one(events.Preempted)) == "newest-1"
        for event in seen.events:
            function = self._name_of(event).partition("-")[0]
            assert (event.function or "").rpartition(".")[2] == function, event
            # A process that never had the job, and ends its waiting, may not know its limits.
            if event.keys or not isinstance(event, events.Cancelled):
                assert (event.keys, event.names) == ((function,), (f"{function} limit",)), event
        ended = {self._name_of(event): event for event in seen.events if isinstance(event, ENDS)}
        for name, limit in OPTIONS.items():
            self._check_overlap(name, limit.get("max_concurrent", 1), granted, ended)

    def _check_overlap(
        self,
        function: str,
        limit: int,
        granted: dict[str, events.Granted],
        ended: dict[str, Event],
    ) -> None:
        """Compare grants and their ends with what ran, by a recorder that knows no limiter."""
        bodies: list[tuple[float, float]] = []
        grants: list[tuple[float, float]] = []
        held: list[tuple[float, float]] = []
        for name, (begin, end) in self.bodies().items():
            if name.partition("-")[0] != function:
                continue
            since, until_ = granted[name].time, ended[name].time
            last = until_ if end is None else end  # a body that was killed notes no end
            since = since if self._queue.grants_first else begin
            assert since <= begin <= last <= until_, name
            bodies.append((begin, last))
            grants.append((since, last))
            held.append((since, until_))
        assert peak(bodies) == peak(grants) == limit
        # A release is sent when the store has confirmed it: the next may have the slot by then.
        assert limit <= peak(held) <= 2 * limit

    def _check_log(self, output: str) -> None:
        lines = [line for line in output.splitlines() if "'" in line]

        def logged(name: str, what: str, key: str) -> int:
            said = f"{what} {key!r} ({key} limit)"
            return sum(said in line and self._is_named_in(name, line) for line in lines)

        for name, (_, what, _) in REFUSALS.items():
            assert logged(name, what, name.partition("-")[0]) == 1, (name, output)
        for name in ("plain-3", "plain-4", "plain-5"):
            assert logged(name, "waits for", "plain") == 1, (name, output)
        for name in ("plain-3", "plain-5"):
            assert logged(name, "got its slot of", "plain") == 1, (name, output)
        preempted = "has to end: a newer call took its slot of"
        assert logged("newest-1", preempted, "newest") == 1, output
        if not self._own.events:
            left = [line for line in output.splitlines() if "left the queue of" in line]
            assert len(left) == 1, output
            assert "plain-4" in left[0]

    async def _add(self, name: str) -> None:
        await self._queue.add(name.partition("-")[0], name)

    async def _error(self, name: str) -> str:
        end = time.monotonic() + 20.0
        while (text := await self._queue.error(name)) is None:
            assert time.monotonic() < end, f"{name} has no result\n{self._queue.output()}"
            await asyncio.sleep(_STEP)
        return text

    def _is_idle(self) -> bool:
        states = [self._queue.limiter.inspect(key) for key in OPTIONS]
        return not any(state.in_use or state.waiting for state in states)

    async def _until_waiting(self, **numbers: int) -> None:
        def waiting() -> bool:
            inspect = self._queue.limiter.inspect
            return all(inspect(key).waiting == number for key, number in numbers.items())

        await self._until(waiting, f"{numbers} wait")

    async def _until(self, condition: Any, name: str) -> None:
        try:
            await until(condition, name)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.bodies()}\n{self._queue.output()}") from None

    def _name_of(self, event: Event) -> str:
        """Return the name of the job that an event is of: it is in its id."""
        names = [f"{name}-{number}" for name in OPTIONS for number in range(1, 6)]
        (found,) = [name for name in names if self._is_named_in(name, event.id)]
        return found

    def _is_named_in(self, name: str, text: str) -> bool:
        return name in text


def peak(spans: Iterable[tuple[float, float]]) -> int:
    """Return how many of these overlapped at most, as the overlap recorder counts it."""
    recorder = OverlapRecorder()
    moments: list[tuple[float, int, int]] = []
    for number, (begin, end) in enumerate(spans):
        moments += [(begin, 1, number), (end, 0, number)]  # at one moment, ends come first
    blocks: dict[int, ExitStack] = {}
    for _, begins, number in sorted(moments):
        if begins:
            blocks[number] = ExitStack()
            blocks[number].enter_context(recorder.holding("it"))
        else:
            blocks[number].close()
    return recorder.peak("it")


def _lines(files: Iterable[Path]) -> list[bytes]:
    return [line for path in files for line in path.read_bytes().split(b"\n")[:-1]]
