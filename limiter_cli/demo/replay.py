"""The replay: makes the calls of a plan, through the real limiter, on a real or a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import anyio

from limiter_cli.demo.plan import Planned
from limiter_cli.demo.record import Outcome, Record, Turn
from limiter_cli.demo.replay_scope import ReplayScope
from limiter_core import (
    KeySnapshot,
    LeaseLost,
    Limiter,
    LimiterError,
    LimitReached,
    Superseded,
    WaitTimeout,
)
from limiter_core.store import Store
from limiter_memory import MemoryStore

__all__ = ("Performance", "Replay", "Watch", "perform", "run_plainly", "run_replay")

R = TypeVar("R")

_DELAY = 1e-9
"""Seconds by which a call comes after the call before it, if all else puts them at one moment.

Calls that arrive, are served or end at one moment so do it in the order of the log, on every run.
An event loop alone does not promise that, and trio draws lots.
"""


class Performance(Protocol):
    """A replay, as its viewer sees it.

    Attributes:
        record: what happened so far.
        total: how many calls there are.
    """

    record: Record
    total: int

    def now(self) -> float:
        """Return the seconds of the log that have passed."""
        ...

    async def inspect(self, key: str) -> KeySnapshot:
        """Return the store's state of a key."""
        ...

    async def run(self) -> None:
        """Make every call at its time, and return when the last has left."""
        ...


Watch = Callable[[Performance], Coroutine[Any, Any, None]]
"""Runs beside a replay, and is cancelled when that is over."""


class Replay:
    """One run of a plan, by this process.

    Args:
        calls: in the order of their times.
        limiter: what they go through.
        record: gets all events; default: a new one.
        scope: that of the limits; None if they have their own.
        speed: seconds of the log in a second of the clock.
        start: when it begins, on the event loop's clock; default: when it is run.
    """

    def __init__(
        self,
        calls: Sequence[Planned],
        limiter: Limiter,
        *,
        record: Record | None = None,
        scope: ReplayScope | None = None,
        speed: float = 1.0,
        start: float | None = None,
    ) -> None:
        self.record = Record() if record is None else record
        self.total = len(calls)
        self._calls = calls
        self._limiter = limiter
        self._scope = scope
        self._speed = speed
        self._start = start

    def now(self) -> float:
        """Return the seconds of the log that have passed."""
        start = self._start
        return 0.0 if start is None else (anyio.current_time() - start) * self._speed

    async def inspect(self, key: str) -> KeySnapshot:
        """Return the store's state of a key."""
        return await self._limiter.inspect(key if self._scope is None else self._scope.key(key))

    async def run(self) -> None:
        """Make every call at its time, and return when the last has left.

        Raises:
            LimiterError: in an exception group: the store failed, or an operator changed a limit
                so that a call can never run.
        """
        if self._start is None:
            self._start = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for planned in self._calls:
                delay = planned.place * _DELAY
                await anyio.sleep_until(self._start + planned.call.at / self._speed + delay)
                tasks.start_soon(self._call, planned)

    async def _call(self, planned: Planned) -> None:
        turn = self.record.arrived(planned, self.now())
        outcome, key = Outcome.RAN, None
        try:
            if planned.limits:
                async with self._limiter.hold(planned.limits, planned.view):
                    await anyio.sleep(planned.place * _DELAY)
                    await self._body(turn)
            else:
                await self._body(turn)
        except WaitTimeout as error:
            outcome, key = Outcome.TIMED_OUT, error.key
        except LimitReached as error:
            outcome, key = Outcome.REFUSED, error.key
        except Superseded as error:
            outcome, key = Outcome.SUPERSEDED, error.key
        except LeaseLost:
            outcome = Outcome.CUT_SHORT
        if key is not None and self._scope is not None:
            key = self._scope.own(key)
        self.record.left(turn, self.now(), outcome, key)

    async def _body(self, turn: Turn) -> None:
        self.record.began(turn, self.now())
        try:
            await anyio.sleep(turn.planned.call.duration / self._speed)
        finally:
            self.record.ended(turn, self.now())


def run_replay(
    calls: Sequence[Planned],
    *,
    store: str | Store = "memory://",
    scope: ReplayScope | None = None,
    fast: bool = False,
    speed: float = 1.0,
    watch: Watch | None = None,
) -> Record:
    """Replay a plan from beginning to end, in this process.

    Args:
        calls: in the order of their times.
        store: a store, or its URL.
        scope: that of the limits; None if they have their own.
        fast: run on a clock that jumps to the next event whenever nothing else is left to do.
            A store that is given must live in this process and go by `trio.current_time`.
        speed: seconds of the log in a second of the clock.
        watch: what runs beside it.

    Raises:
        ConfigurationError: the URL names no store, or a scope is too long.
        ImportError: the store's extra is not installed.
        LimiterError: the store failed during the replay.
    """
    made = calls if scope is None else scope.plan(calls)
    backing = store
    options: dict[str, Any] = {}
    if fast:
        # Here: these take long to import, and no other command needs them.
        import trio  # noqa: PLC0415
        from trio.testing import MockClock  # noqa: PLC0415

        options["clock"] = MockClock(autojump_threshold=0)
        if isinstance(store, str):
            backing = MemoryStore(clock=trio.current_time)

    async def run() -> Record:
        async with Limiter(backing) as limiter:
            replay = Replay(made, limiter, scope=scope, speed=speed)
            return await perform(replay, watch)

    return run_plainly(run, backend="trio" if fast else "asyncio", backend_options=options)


async def perform(performance: Performance, watch: Watch | None) -> Record:
    """Run a replay with a viewer; return what happened."""
    async with anyio.create_task_group() as beside:
        if watch is not None:
            beside.start_soon(watch, performance)
        await performance.run()
        beside.cancel_scope.cancel()
    return performance.record


def run_plainly(run: Callable[[], Coroutine[Any, Any, R]], **options: Any) -> R:
    """Run an event loop; of a group of errors, raise the one that a user should see."""
    try:
        return anyio.run(run, **options)
    except BaseExceptionGroup as group:
        failure = _first(group, LimiterError)
        if failure is None:
            raise
        raise failure from group


def _first(
    group: BaseExceptionGroup[BaseException], kind: type[LimiterError]
) -> LimiterError | None:
    """Return one error of a kind from a group, however deep it lies."""
    for error in group.exceptions:
        found = _first(error, kind) if isinstance(error, BaseExceptionGroup) else error  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if isinstance(found, kind):
            return found
    return None
