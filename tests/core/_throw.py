"""Throws an exception into the package, at one line after the other."""

from __future__ import annotations

import asyncio
import functools
import gc
import linecache
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import limiter_core
import limiter_memory
import limiter_redis

PACKAGES = tuple(
    str(Path(package.__file__ or "").parent)
    for package in (limiter_core, limiter_memory, limiter_redis)
)


class Thrown(Exception):
    """As a signal handler raises it, or another thread throws it in."""


class Thrower:
    """A tracer that raises at the nth line that runs in the package's own frames, once.

    Args:
        at: which line, from 1; 0 for none.
        before: a function, by its qualified name: raises before its first line in place of that.

    Attributes:
        files: where else it raises: a prefix of paths each.
    """

    def __init__(self, at: int, *, before: str = "") -> None:
        self.at = at
        self.files: tuple[str, ...] = ()
        self.before = before
        self.lines = 0
        self.where = "nowhere"
        self._seen: dict[tuple[CodeType, int], list[int]] = {}
        self._tracers: dict[str, Callable[[FrameType, str, object], Any] | None] = {}
        self.task: object = None
        """The only task that it counts, if there is one."""
        self.leaves_out: Collection[object] = ()
        """Tasks that it does not count: so that what their event loop calls is left."""

    @property
    def has_thrown(self) -> bool:
        return self.where != "nowhere"

    def interesting(self, *, once: bool = False) -> list[int]:
        """Return the line events that stand for all: of each line the first, the second, the last.

        Args:
            once: of each line the first alone.
        """
        if once:
            return sorted(seen[0] for seen in self._seen.values())
        return sorted({at for seen in self._seen.values() for at in (*seen[:2], seen[-1])})

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Raise in what runs meanwhile, but not in what the garbage collector calls.

        It comes at any moment, for leases of earlier trials, and what is raised in there is lost.
        """
        before, collects = sys.gettrace(), gc.isenabled()
        gc.disable()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)
            if collects:
                gc.enable()

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        if self.has_thrown:  # nothing is left to do
            return None
        file = frame.f_code.co_filename
        try:
            return self._tracers[file]
        except KeyError:
            is_traced = file.startswith(PACKAGES) or (self.files and file.startswith(self.files))
            tracer = self._tracers[file] = self._tracer_of(file) if is_traced else None
            return tracer

    def _tracer_of(self, file: str) -> Callable[[FrameType, str, object], Any]:
        """Return what is called at each line of a file, as cheap as it can be made."""
        only_tracers_throw = _only_tracers_throw(file)

        def at_line(frame: FrameType, event: str, argument: object) -> Any:
            if event != "line":
                return at_line
            if self.before and frame.f_code.co_qualname == self.before:
                self.where = self.before
                raise Thrown(self.before)
            if self.task is not None and asyncio.current_task() is not self.task:
                return at_line
            if self.leaves_out and asyncio.current_task() in self.leaves_out:
                return at_line
            line = frame.f_lineno
            if line in only_tracers_throw and only_tracers_throw[line](frame):
                return at_line
            if frame.f_code.co_name in _LAST_NAMES and _is_before(frame):
                return at_line
            self.lines = lines = self.lines + 1
            if self.at == 0:
                self._seen.setdefault((frame.f_code, line), []).append(lines)
            elif lines == self.at:
                name = Path(file).name
                self.where = f"{name}:{line} in {frame.f_code.co_qualname}"
                raise Thrown(self.where)  # which ends the tracing
            return at_line

        return at_line


@functools.cache
def _only_tracers_throw(file: str) -> dict[int, Callable[[FrameType], bool]]:
    """Return the lines at which a `with` block is left, with `__exit__` not called yet, or a `try`.

    There is no instruction in there at which the interpreter looks for signals and for what threads
    throw, so that no lock is kept for ever. With each is what says whether that is so now.
    """
    lines = [text.strip() for text in linecache.getlines(file)]
    return {
        number: _is_left if text.startswith("with ") else _always
        for number, text in enumerate(lines, 1)
        if text.startswith("with ") or text == "try:"
    }


def _always(frame: FrameType) -> bool:
    return True


def _is_left(frame: FrameType) -> bool:
    return frame.f_lasti > _first_instruction(frame.f_code, frame.f_lineno)


@functools.cache
def _first_instruction(code: CodeType, line: int) -> int:
    return min(start for start, _, number in code.co_lines() if number == line)


_LAST_WORDS = {
    *("Hold.__exit__", "Hold.__aexit__", "GeneratorHold.__exit__"),
    *("Lease.release", "SyncLease.release"),
}
_LAST_NAMES = {"__exit__", "__aexit__", "release", "release_call"}


def _is_before(frame: FrameType) -> bool:
    """Whether what gives a lease back was called, and has not begun yet.

    That is as if it was not called: nobody can guard it, and the lease ends by itself.
    """
    code, caller = frame.f_code, frame.f_back
    is_inner = code.co_name == "release_call" and caller and caller.f_code.co_name == "release"
    if code.co_qualname not in _LAST_WORDS and not is_inner:
        return False
    return frame.f_lineno == min(n for *_, n in code.co_lines() if n and n > code.co_firstlineno)


def sweep(trial: Callable[[Thrower], None], *, once: bool = False) -> int:
    """Have trials made with an exception at each of their lines; how many there were.

    A trial runs under `thrower.tracing()` what is to be interrupted, and then checks all. A line
    that runs often is interrupted the first time, the second and the last; or `once`.
    """
    thrower = Thrower(0)
    trial(thrower)
    events = thrower.interesting(once=once)
    for at in events:
        thrower = Thrower(at)
        try:
            trial(thrower)
        except BaseException as error:
            error.add_note(f"thrown at line event {at}: {thrower.where}")
            raise
    return len(events)


async def sweep_async(trial: Callable[[Thrower], Awaitable[None]]) -> int:
    """Do as `sweep`."""
    thrower = Thrower(0)
    thrower.task = asyncio.current_task()
    await trial(thrower)
    events = thrower.interesting()
    for at in events:
        thrower = Thrower(at)
        thrower.task = asyncio.current_task()
        try:
            await trial(thrower)
        except BaseException as error:
            error.add_note(f"thrown at line event {at}: {thrower.where}")
            raise
    return len(events)
