"""Drives a coroutine step by step, to cancel it at exactly one of them."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Collection, Coroutine
from typing import Any


@types.coroutine
def stepped(coroutine: Coroutine[Any, Any, Any], suspends: Callable[[int], None]) -> Any:
    """Await a coroutine; `suspends` gets the number of each await as it begins to wait."""
    return (yield from _drive(coroutine, suspends, ()))


@types.coroutine
def interrupted_late(coroutine: Coroutine[Any, Any, Any], at: Collection[int]) -> Any:
    """Await a coroutine, and raise CancelledError in place of the results of some of its awaits.

    This is what a task sees that is cancelled in the tick in which what it waited for came true.
    """
    return (yield from _drive(coroutine, lambda _: None, at))


def _drive(
    coroutine: Coroutine[Any, Any, Any], suspends: Callable[[int], None], fail_at: Collection[int]
) -> Any:
    number = 0
    resume: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            waits_for = resume(value)
        except StopIteration as done:
            return done.value
        number += 1
        suspends(number)
        try:
            value = yield waits_for
            resume = coroutine.send
        except BaseException as error:
            resume, value = coroutine.throw, error
        else:
            if number in fail_at:
                resume, value = coroutine.throw, asyncio.CancelledError()
