"""What the tests of the core share: waiting by name, counting overlaps, telling threads apart."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from limiter_memory import MemoryStore
from tests._polling import PATIENCE, until, until_now


def fork() -> int:
    """Fork this process. The child ends within `PATIENCE`, whatever it waits for."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not as pytest-timeout has it
        signal.alarm(int(PATIENCE))
    return child


def shown(value: object) -> str:
    """Return what a test's id shows of a value: the same in every process, so without addresses."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


async def until_waiting(store: MemoryStore, key: str, count: int) -> None:
    """Wait in an event loop until so many calls wait on a key."""
    await until(lambda: store.inspect(key).waiting == count, f"{count} wait on {key}")


def until_waiting_now(store: MemoryStore, key: str, count: int) -> None:
    """Wait in a thread until so many calls wait on a key."""
    until_now(lambda: store.inspect(key).waiting == count, f"{count} wait on {key}")


async def keys_in_use(limiter: Any) -> list[str]:
    """Return the keys of an async limiter, sorted."""
    return sorted([key async for key in limiter.keys()])


class Thread(threading.Thread):
    """A thread whose result, or whose exception, `join` hands over."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._function, self._args = function, args
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function(*self._args)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread still runs"
        if self._error is not None:
            raise self._error
        return self._result


class OverlapRecorder:
    """Counts who is inside, on its own, from any thread: knows nothing of limiters or stores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: dict[str, int] = {}
        self.highest: dict[str, int] = {}
        self.entered = 0

    @contextmanager
    def inside(self, key: str, cost: int = 1) -> Iterator[None]:
        """Count the block in while it runs."""
        with self._lock:
            self.entered += 1
            self._inside[key] = self._inside.get(key, 0) + cost
            self.highest[key] = max(self.highest.get(key, 0), self._inside[key])
        try:
            yield
        finally:
            with self._lock:
                self._inside[key] -= cost
