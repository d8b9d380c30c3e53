"""Where a block of code is: whether it lies around the running code, and whether a task is in it.

A hold that was entered by a `with` statement is open exactly while the frame of that statement is
inside of the block. So only the frame is certain, and neither the task nor the thread: code that
enters by hand may leave elsewhere, and a generator may be advanced by another one each time.
Frames are known by their ids, since a reference would keep all their variables.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from opcode import opmap
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    GeneratorType,
    MethodType,
)
from typing import Any, TypeVar, cast

ANYWHERE = 0
"""A block that is left before its coroutine ends: its task can be cancelled at any time."""
STACKED = -2
"""As ANYWHERE; but an exit stack leaves the block, perhaps in another task."""
NOWHERE = -1
"""A block that has no known end: entered by hand, perhaps to be left by others."""

_ENTERING = ("__aenter__", "enter_async_context")
"""Functions that enter a hold for the block of another."""

_STATEMENTS = frozenset(
    opmap[name] for name in ("BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL") if name in opmap
)
"""What `with` and `async with` look methods up by: in Python up to 3.13, and in later ones."""

_GET_AWAITABLE = opmap["GET_AWAITABLE"]
_OF_ENTERING = 1
"""Its argument in an `async with` statement that enters: 2 where that leaves, 0 elsewhere."""
_FURTHEST_BACK = 10
"""Bytes to look for it in front of the instruction at which a frame awaits."""

_MOST_AWAITS = 10_000
_AWAITING = (CoroutineType, AsyncGeneratorType, GeneratorType)
_STEPS = (
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
)
"""What is awaited for one step of an async generator, or in place of a coroutine."""

current_frame = sys._getframe  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
"""Returns the frame of so many calls up: 0 is the caller's own."""

M = TypeVar("M", bound=Callable[..., Any])


class _StatementExit:
    """An exit method that notes on its object, as `by_statement`, what has looked it up.

    A `with` statement loads the exit method before it calls the enter method (Python's reference,
    8.5): what enters otherwise does it by hand, also if it has looked it up before, to find out
    whether there is one. `ExitStack` looks it up on the class.
    """

    __slots__ = ("_method",)

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __get__(self, hold: Any, owner: Any = None) -> Any:
        if hold is None:
            return self._method
        frame = current_frame(1)
        try:
            hold.by_statement = frame.f_code.co_code[frame.f_lasti] in _STATEMENTS
        except IndexError:  # compiled code may have a frame without instructions
            hold.by_statement = False
        return MethodType(self._method, hold)


def noting_statements(method: M) -> M:
    """Decorate `__exit__` or `__aexit__`: see `_StatementExit`."""
    return cast(M, _StatementExit(method))


def frames_on_stack() -> set[int]:
    """Return the ids of the frames that are being executed, in this thread or task."""
    found: set[int] = set()
    frame: FrameType | None = current_frame(1)
    while frame is not None:
        found.add(id(frame))
        frame = frame.f_back
    return found


def is_coroutine(frame: FrameType) -> bool:
    """Whether a frame is that of a coroutine function."""
    return bool(frame.f_code.co_flags & CO_COROUTINE)


def enters_by_statement(frame: FrameType | None) -> bool:
    """Whether what a frame awaits is the enter method of an `async with` statement.

    What is called `__aenter__` may be called by hand, and its block be left anywhere. In doubt,
    also in a Python that compiles it in another way: no.
    """
    if frame is None:
        return False
    code, last = frame.f_code.co_code, frame.f_lasti
    for at in range(last - 2, max(last - _FURTHEST_BACK, 0), -2):
        if code[at] == _GET_AWAITABLE:
            return code[at + 1] == _OF_ENTERING
    return False


def where_to_cancel(frame: FrameType | None, *, by_statement: bool) -> int:
    """Return when the task may be cancelled in which a hold is being entered.

    Args:
        frame: what enters it.
        by_statement: whether that is certainly an `async with` statement.

    Returns:
        ANYWHERE, STACKED, NOWHERE, or the id of the frame of an async generator: then only while
        that runs, for while it rests at a `yield` its task does its consumer's work.
    """
    anywhere = ANYWHERE
    by_statement = by_statement or enters_by_statement(frame)
    while frame is not None:
        name = frame.f_code.co_name
        if name == "enter_async_context":
            anywhere = STACKED
            by_statement = True
        elif name == "__aenter__":
            by_statement = enters_by_statement(frame.f_back)
        elif not by_statement:
            return NOWHERE
        elif not frame.f_code.co_flags & CO_ASYNC_GENERATOR:
            return anywhere
        elif frame.f_back is None or frame.f_back.f_code.co_name not in _ENTERING:
            return id(frame)
        frame = frame.f_back
    return NOWHERE


def awaits_in(awaited: Any, frame_id: int) -> bool:
    """Whether what a task awaits lies in a frame.

    Args:
        awaited: the task's coroutine.
        frame_id: the frame's.
    """
    frame: object
    for _ in range(_MOST_AWAITS):
        if isinstance(awaited, CoroutineType):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, AsyncGeneratorType):
            frame, awaited = awaited.ag_frame, awaited.ag_await
        elif isinstance(awaited, GeneratorType):
            frame, awaited = awaited.gi_frame, cast(Any, awaited.gi_yieldfrom)
        elif type(awaited).__name__ in _STEPS:  # it does not expose of what
            frame, awaited = None, _stepped(gc.get_referents(awaited))
        else:
            return False
        if id(frame) == frame_id:
            return True
    return False


def _stepped(referents: list[Any]) -> Any:
    for each in referents:
        if isinstance(each, _AWAITING) or type(each).__name__ in _STEPS:
            return cast(Any, each)
    return None
