"""The replay: makes the calls of a plan, through the real limiter, on a real or a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio
import trio
from trio.testing import MockClock

from limiter_cli.demo.plan import Planned
from limiter_cli.demo.record import Outcome, Record, Turn
from limiter_core import (
    LeaseLost,
    Limiter,
    LimiterError,
    LimitReached,
    Superseded,
    WaitTimeout,
)
from limiter_core.store import Store
from limiter_memory import MemoryStore

__all__ = ("Replay", "Watch", "run_replay")

_APART = 1e-9
"""Seconds by which a call comes after the call before it, if all else puts them at one moment.

Calls that arrive, are served or end at one moment so do it in the order of the log, on every run.
An event loop alone does not promise that, and trio draws lots.
"""


class Replay:
    """One run of a plan.

    Attributes:
        limiter: what the calls go through.
        record: what happened so far.
        total: how many calls there are.
    """

    def __init__(self, calls: Sequence[Planned], limiter: Limiter, *, speed: float = 1.0) -> None:
        self.limiter = limiter
        self.record = Record()
        self.total = len(calls)
        self._calls = calls
        self._speed = speed
        self._start = 0.0

    def now(self) -> float:
        """Return the seconds of the log that have passed."""
        return (anyio.current_time() - self._start) * self._speed

    async def run(self) -> None:
        """Make every call at its time, and return when the last has left.

        Raises:
            LimiterError: in an exception group: the store failed, or an operator changed a limit
                so that a call can never run.
        """
        self._start = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for place, planned in enumerate(self._calls):
                due = self._start + planned.call.at / self._speed + place * _APART
                await anyio.sleep_until(due)
                tasks.start_soon(self._call, planned, place)

    async def _call(self, planned: Planned, place: int) -> None:
        turn = self.record.arrived(planned, self.now())
        outcome, key = Outcome.RAN, None
        try:
            if planned.limits:
                async with self.limiter.hold(planned.limits, planned.view):
                    await anyio.sleep(place * _APART)
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
        self.record.left(turn, self.now(), outcome, key)

    async def _body(self, turn: Turn) -> None:
        self.record.began(turn, self.now())
        try:
            await anyio.sleep(turn.planned.call.duration / self._speed)
        finally:
            self.record.ended(turn, self.now())


Watch = Callable[[Replay], Coroutine[Any, Any, None]]
"""Runs beside a replay, and is cancelled when that is over."""


def run_replay(
    calls: Sequence[Planned],
    *,
    store: str | Store = "memory://",
    fast: bool = False,
    speed: float = 1.0,
    watch: Watch | None = None,
) -> Record:
    """Replay a plan from beginning to end.

    Args:
        calls: in the order of their times.
        store: a store, or its URL.
        fast: run on a clock that jumps to the next event whenever nothing else is left to do.
            A store that is given must live in this process and go by `trio.current_time`.
        speed: seconds of the log in a second of the clock.
        watch: what runs beside it.

    Raises:
        ConfigurationError: the URL names no store.
        ImportError: the store's extra is not installed.
        LimiterError: the store failed during the replay.
    """

    async def run() -> Record:
        backing = MemoryStore(clock=trio.current_time) if fast and isinstance(store, str) else store
        async with Limiter(backing) as limiter:
            replay = Replay(calls, limiter, speed=speed)
            async with anyio.create_task_group() as beside:
                if watch is not None:
                    beside.start_soon(watch, replay)
                await replay.run()
                beside.cancel_scope.cancel()
            return replay.record

    options: dict[str, Any] = {"clock": MockClock(autojump_threshold=0)} if fast else {}
    try:
        return anyio.run(run, backend="trio" if fast else "asyncio", backend_options=options)
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
