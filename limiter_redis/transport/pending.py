"""Operations of an event loop that are not answered yet, and the futures of their replies.

They are settled here, and only here: each way out of a batch ends in `deliver`, in `fail`, or at
the deadline of the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from limiter_core.errors import StoreError
from limiter_core.requests import from_fields
from limiter_core.system_clock import system_clock as time
from limiter_redis.connection.deadlines import NoAnswer
from limiter_redis.protocol import commands
from limiter_redis.protocol.errors import store_error


class Pending(NamedTuple):
    """An operation, and the future of its reply.

    Attributes:
        operation: the operation.
        future: of its reply.
        at: when it was asked for, on the monotonic clock.
    """

    operation: commands.Operation
    future: asyncio.Future[str]
    at: float


def new_pending(
    loop: asyncio.AbstractEventLoop,
    operation: commands.Operation,
    deadline: float | None,
    new_error: Callable[[commands.Operation], StoreError],
) -> Pending:
    """Return an operation that fails at a deadline (monotonic), whatever becomes of it.

    Args:
        loop: of its future.
        operation: the operation.
        deadline: when it fails, None for never.
        new_error: makes the error of that.
    """
    future: asyncio.Future[str] = loop.create_future()
    now = time.monotonic()
    if deadline is not None:
        timer = loop.call_later(
            max(0.0, deadline - now), _out_of_time, future, operation, new_error
        )
        future.add_done_callback(lambda _: timer.cancel())
    return from_fields(Pending, (operation, future, now))


def _out_of_time(
    future: asyncio.Future[str],
    operation: commands.Operation,
    new_error: Callable[[commands.Operation], StoreError],
) -> None:
    _set_error(future, new_error(operation))


def deliver(asked: Iterable[Pending], lines: Sequence[str]) -> None:
    """Hand out the replies: one line for each, at least."""
    for (_, future, _), line in zip(asked, lines, strict=False):
        if not future.done():
            future.set_result(line)


def fail(
    asked: Iterable[Pending], new_error: Callable[[Sequence[commands.Operation]], Any]
) -> None:
    """Notify all callers why there is no reply.

    Args:
        asked: the operations.
        new_error: makes a `StoreError` for one: each gets one of its own, for raising one changes
            it.
    """
    for operation, future, _ in asked:
        _set_error(future, new_error([operation]))


def fail_overdue(asked: Iterable[Pending], before: float, where: str) -> None:
    """Notify all callers that asked before some time that there is no reply."""
    for operation, future, at in asked:
        if at <= before:
            error = NoAnswer("Timeout reading from the server")
            _set_error(future, store_error(error, where, [operation]))


def _set_error(future: asyncio.Future[str], error: StoreError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # if its task has gone nothing else will look at it
