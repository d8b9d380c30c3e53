"""Calls with names, each in a task or a thread of its own, and what became of them."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import anyio

from limiter_core import Limiter, LimiterError, SyncLimiter
from limiter_memory import MemoryStore

from ._tools import Thread, until


class NamedCalls:
    """Starts calls and knows of each: "asks", "runs", "done" or the name of its error.

    Attributes:
        became: the latest of each call, by name.
        served: the names of the calls that got their slots, in order.
    """

    def __init__(self, store: MemoryStore, world: str = "tasks") -> None:
        self.became: dict[str, str] = {}
        self.served: list[str] = []
        self._store = store
        self._world = world
        self._may_finish: set[str] = set()
        self._all_may_finish = False
        self._threads: list[Thread] = []
        self._lock = threading.Lock()

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._all_may_finish = True
        try:
            return await self._tasks.__aexit__(kind, error, traceback)
        finally:
            if error is None:
                await until(lambda: not any(map(Thread.is_alive, self._threads)), "threads ended")

    async def start(
        self,
        name: str,
        limits: Any,
        arguments: Any = None,
        *,
        timeout: float | None = None,
        world: str | None = None,
    ) -> None:
        """Start a call, and wait until it runs, waits in a queue or was refused."""
        self.became[name] = "asks"
        if (world or self._world) == "threads":
            self._threads.append(Thread(self._thread, name, limits, arguments, timeout))
        else:
            self._tasks.start_soon(self._task, name, limits, arguments, timeout)
        await until(
            lambda: self.became[name] != "asks" or name in self.waiting(), f"{name} has an answer"
        )

    def waiting(self) -> list[str]:
        """Return the names of the calls that wait, per key in the order of the queue."""
        snapshots = [self._store.inspect(key) for key in self._store.keys()]
        return [waiter.label for snapshot in snapshots for waiter in snapshot.waiters]

    async def finish(self, *names: str) -> None:
        """Let the bodies of these calls end, and wait until they did."""
        for name in names:
            self._may_finish.add(name)
            await until(lambda name=name: self.became[name] not in ("asks", "runs"), f"{name} ends")

    async def becomes(self, name: str, what: str) -> None:
        """Wait until a call has become this."""
        await until(lambda: self.became[name] == what, f"{name} becomes {what}")

    def _note(self, name: str, what: str) -> None:
        with self._lock:
            self.became[name] = what
            if what == "runs":
                self.served.append(name)

    def _may(self, name: str) -> bool:
        return self._all_may_finish or name in self._may_finish

    async def _task(self, name: str, limits: Any, arguments: Any, timeout: float | None) -> None:
        limiter = Limiter(self._store, label=name)
        try:
            async with limiter.hold(limits, arguments, timeout=timeout):
                self._note(name, "runs")
                await until(lambda: self._may(name), f"{name} may finish")
        except LimiterError as error:
            self._note(name, type(error).__name__)
        else:
            self._note(name, "done")

    def _thread(self, name: str, limits: Any, arguments: Any, timeout: float | None) -> None:
        limiter = SyncLimiter(self._store, label=name)
        try:
            with limiter.hold(limits, arguments, timeout=timeout) as lease:
                self._note(name, "runs")
                while not self._may(name):
                    lease.check()
                    time.sleep(0.001)
        except LimiterError as error:
            self._note(name, type(error).__name__)
        else:
            self._note(name, "done")
