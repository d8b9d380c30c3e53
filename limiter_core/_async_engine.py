"""The engine of `Limiter`: carries out, in an event loop, what `_call` decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import anyio

from limiter_core._call import ASK, Call, logger, patience
from limiter_core._engine import Engine, OnStoreError
from limiter_core._prepare import (
    Arguments,
    Limits,
    Terms,
    demands_of,
    limits_of,
    run_async,
    terms_of,
    view_of,
)
from limiter_core._runtime import TaskHandle
from limiter_core.errors import ConfigurationError, StoreError, StoreUnavailable
from limiter_core.lease import Lease
from limiter_core.limits import check_timeout
from limiter_core.requests import Answer, Granted, Loss, Mode, Request
from limiter_core.store import Store

RELEASE_PATIENCE = 5.0
"""Seconds that a release may take, shielded from cancellation; then the lease ends by itself."""


class AsyncCall(Call):
    """A call in an event loop."""

    __slots__ = ("_event", "_handle", "news", "scope")

    def __init__(self, request: Request, terms: Terms, now: Callable[[], float]) -> None:
        self._handle = TaskHandle()
        super().__init__(request, self._handle.task, terms, now)
        self._event: anyio.Event | None = None
        self.news = False
        self.scope: anyio.CancelScope | None = None

    async def wait_for_news(self, seconds: float) -> None:
        """Wait until the store says that asking again is worth it; at most so many seconds."""
        self._event = anyio.Event()
        # In this order: `look_again` notes the news before it looks for an event to set.
        if not self.news:
            if seconds == math.inf:
                await self._event.wait()
            else:
                with anyio.move_on_after(seconds):
                    await self._event.wait()
        self._event = None

    def look_again(self) -> bool:
        """Wake the waiter; whether its event loop is still there."""
        self.news = True
        event = self._event
        return event is None or self._handle.call(event.set)

    def interrupt(self) -> None:
        """Cancel the body of a `hold`."""
        if self.scope is not None:
            self._handle.call(self.scope.cancel)


class AsyncEngine(Engine):
    """Takes slots and gives them back."""

    def __init__(
        self, store: str | Store, *, on_store_error: OnStoreError, label: str | None
    ) -> None:
        super().__init__(store, on_store_error=on_store_error, label=label)
        self.face = self.store.async_face()

    async def take(
        self, limits: Limits, arguments: Arguments, timeout: float | None, mode: Mode
    ) -> AsyncCall:
        """Get the slots, waiting for them if need be, or raise and leave nothing behind."""
        self.check_open()
        checked = limits_of(limits)
        terms = terms_of(checked, check_timeout(timeout))
        demands = await run_async(demands_of(checked, view_of(arguments)))
        call = AsyncCall(self.request(demands, terms, mode), terms, self.face.now)
        started_at = self.face.now()
        try:
            answer = await self._ask(call)
            if not isinstance(answer, Granted):
                deadline = None if terms.timeout is None else started_at + terms.timeout
                await self._wait(call, answer, deadline)
            if call.loss is not None:
                raise call.loss_error()
        except StoreUnavailable as error:
            call.settled = True  # it expires by itself, if it is there at all
            if not self.admits(error):
                raise
        except BaseException:
            await self.give_back(call)
            raise
        self.began(call)
        return call

    async def _ask(self, call: AsyncCall) -> Answer | StoreUnavailable:
        call.news = False
        sent_at = call.now()
        try:
            answer = await self.face.acquire(call.request)
        except StoreUnavailable as error:
            if self.on_store_error == "admit":
                raise
            return error
        if isinstance(answer, Granted):
            call.grant(answer, sent_at)
        return answer

    async def _wait(
        self, call: AsyncCall, first: Answer | StoreUnavailable, deadline: float | None
    ) -> None:
        steps = patience(call, first, deadline=deadline, held_by_owner=self.held_by(call.owner))
        try:
            seconds = next(steps)
            while True:
                if seconds == ASK:
                    seconds = steps.send(await self._ask(call))
                else:
                    await call.wait_for_news(seconds)
                    seconds = steps.send(None)
        except StopIteration:
            return

    async def give_back(self, call: Call) -> None:
        """Release, once. Closed locally first: whatever the store says later is not a loss."""
        if call.closed:
            return
        call.closed = True
        self.ended(call)
        if call.settled:
            return
        if not self.store.capabilities.suspends:
            await self.face.release(call.request.id, call.keys)
            return
        try:
            with anyio.fail_after(RELEASE_PATIENCE, shield=True):
                await self.face.release(call.request.id, call.keys)
        except (StoreError, TimeoutError) as error:
            logger.warning("could not release %s, its lease ends by itself: %s", call.keys, error)


class Hold(AbstractAsyncContextManager[Lease]):
    """`Limiter.hold`: takes the slots, arms the body against a lost lease, gives them back."""

    __slots__ = ("_arguments", "_call", "_engine", "_limits", "_timeout")

    def __init__(
        self, engine: AsyncEngine, limits: Limits, arguments: Arguments, timeout: float | None
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._arguments = arguments
        self._timeout = timeout
        self._call: AsyncCall | None = None

    async def __aenter__(self) -> Lease:
        if self._call is not None:
            raise ConfigurationError("a hold can be entered once; call hold() again")
        engine = self._engine
        call = await engine.take(self._limits, self._arguments, self._timeout, Mode.WAIT)
        self._call = call
        if call.on_lost == "cancel":
            scope = anyio.CancelScope()
            max_hold = call.request.max_hold
            if max_hold is not None:
                scope.deadline = anyio.current_time() + max_hold
            scope.__enter__()
            # In this order: `lease_lost` notes the loss before it looks for a scope to cancel.
            call.scope = scope
            if call.loss is not None:
                scope.cancel()
        return Lease(call, engine.give_back)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        assert call is not None
        try:
            if call.scope is not None:
                call.scope.__exit__(kind, error, traceback)
        finally:
            await self._engine.give_back(call)
        if call.scope is not None and call.scope.cancelled_caught:
            if call.loss is None:  # nobody cancelled the scope: its deadline did
                call.loss = Loss.OVERRAN
            raise call.loss_error() from error
