"""`Limiter.hold`, and the same around one call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from inspect import CO_COROUTINE
from types import TracebackType
from typing import TypeVar

from limiter_core._async_calls import AsyncCall, Client
from limiter_core._async_engine import AsyncEngine
from limiter_core._blocks import ANYWHERE, current_frame, noting_statements, where_to_cancel
from limiter_core._engine import WAIT
from limiter_core._prepare import Arguments, Limits
from limiter_core.arguments import ArgumentView
from limiter_core.errors import ConfigurationError
from limiter_core.lease import Lease

R = TypeVar("R")


async def run_held(
    engine: AsyncEngine,
    limits: Limits,
    view: ArgumentView,
    body: Callable[[Lease], Awaitable[R]],
    timeout: float | None = None,
    *,
    client: Client | None = None,
) -> R:
    """Await a body while holding slots: as a `Hold` around it does, in fewer steps."""
    call: AsyncCall | None = None
    try:
        call = await engine.take(limits, view, timeout, WAIT, client)
        try:
            engine.began(call, id(current_frame()))
            if call.on_lost == "cancel":
                call.guard_body(ANYWHERE)
            lease = Lease(call, engine, watched=False)
            result = await body(lease)
            call.unguard_body(None, None, None)
            return result  # noqa: TRY300  (an exception may be thrown in here, too)
        except BaseException as error:
            if call.unguard_body(type(error), error, error.__traceback__):
                raise call.loss_error() from error
            raise
        finally:
            if not call.closed or call.forgotten:
                await engine.release_call(call)
    except BaseException:
        if call is not None:
            engine.abandon(call)
        raise


class Hold(AbstractAsyncContextManager[Lease]):
    """`Limiter.hold`: takes the slots, arms the body against a lost lease, gives them back."""

    __slots__ = (
        "_arguments",
        "_call",
        "_client",
        "_engine",
        "_lease",
        "_limits",
        "_timeout",
        "by_statement",
    )

    def __init__(
        self,
        engine: AsyncEngine,
        limits: Limits,
        arguments: Arguments,
        timeout: float | None,
        client: Client | None = None,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._arguments = arguments
        self._timeout = timeout
        self._client = client
        self._call: AsyncCall | None = None
        self.by_statement = False

    async def __aenter__(self) -> Lease:
        if self._call is not None:
            raise ConfigurationError("a hold can be entered once; call hold() again")
        engine = self._engine
        by_statement = self.by_statement  # not later: others may look the exit up meanwhile
        try:
            call = self._call = await engine.take(
                self._limits, self._arguments, self._timeout, WAIT, self._client
            )
            frame = current_frame(1)
            if by_statement:
                engine.began(call, id(frame))
            if call.on_lost == "cancel":
                if by_statement and frame.f_code.co_flags & CO_COROUTINE:
                    call.guard_body(ANYWHERE)
                else:
                    call.guard_body(where_to_cancel(frame, by_statement=by_statement))
            lease = self._lease = Lease(call, engine)
            return lease  # noqa: TRY300  (an exception may be thrown in here, too)
        except BaseException:
            if self._call is not None:
                engine.abandon(self._call)
            raise

    def begin_stream(self) -> None:
        """Note that an async generator holds it: its event loop closes one that is collected."""
        if self._call is not None:
            self._call.in_stream = True

    def check(self) -> None:
        """Raise if the lease is lost, unless its limits ask for a warning only; between two items.

        Raises:
            LeaseLost: it is.
        """
        call = self._call
        if call is not None and call.on_lost == "cancel" and call.is_lost():
            raise call.loss_error()

    @noting_statements
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            call = self._call
            assert call is not None
            try:
                interrupted = call.unguard_body(kind, error, traceback)
            finally:
                if not call.closed or call.forgotten:
                    await self._engine.release_call(call)
        except BaseException:
            if self._call is not None:
                self._engine.abandon(self._call)
            raise
        if interrupted:
            raise call.loss_error() from error
