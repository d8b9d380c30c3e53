"""`Limiter`: concurrency limits for asyncio and trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import ParamSpec, Self, TypeVar

from limiter_core._async_engine import AsyncEngine
from limiter_core._async_hold import Hold, run_held
from limiter_core._async_operations import AsyncOperations
from limiter_core._checks import check_timeout
from limiter_core._engine import WAIT, WARN_AFTER, OnStoreError
from limiter_core._functions import check_coroutine_function
from limiter_core._limited import AsyncLimited, limited_async
from limiter_core._operator import Operator
from limiter_core._prepare import Arguments, Limits, check_limits
from limiter_core.arguments import binder_of
from limiter_core.errors import LimitReached
from limiter_core.events import Observer
from limiter_core.lease import Lease
from limiter_core.requests import Mode
from limiter_core.store import Store

__all__ = ("Limiter",)

P = ParamSpec("P")
R = TypeVar("R")


class Limiter(AsyncOperations):
    """Limits how many calls run at once; for asyncio and trio.

    One limiter serves all the limits of a program. It opens nothing before its first call, and
    works in a second `asyncio.run` and after a fork. As a context manager it closes itself. A copy
    shares its store; pickled, one of a Redis URL comes back as one of that URL (password included).

    Args:
        store: the URL of a store (`"memory://"`), or a store that other limiters may share.
        on_store_error: what a call does when the store cannot be reached: "raise" retries until
            the call's `timeout` and raises `StoreUnavailable`; "admit" lets it run without a slot.
        label: names this limiter's holders and waiters in `inspect`; default `host:pid`.
        observe: called with each event of this limiter's calls; see `limiter_core.events`.
        warn_after: seconds (or a timedelta) that a call waits before one warning is logged: which
            limit, its place in line, and the holders; None for no warning.

    Raises:
        ConfigurationError: no installed store knows the URL, or the store has no async face.
    """

    def __init__(
        self,
        store: str | Store = "memory://",
        *,
        on_store_error: OnStoreError = "raise",
        label: str | None = None,
        observe: Observer | None = None,
        warn_after: float | timedelta | None = WARN_AFTER,
    ) -> None:
        self._engine = AsyncEngine(
            store,
            on_store_error=on_store_error,
            label=label,
            observe=observe,
            warn_after=warn_after,
        )
        self._face = self._engine.face
        self._operator = Operator(self._engine.store, self._face)

    @property
    def admitted_without_store(self) -> int:
        """How many calls ran without a slot because the store could not be reached.

        Counts only under `on_store_error="admit"`.
        """
        return self._engine.admitted

    # -- taking slots ----------------------------------------------------------------------------

    def hold(
        self, limits: Limits, arguments: Arguments = None, *, timeout: float | None = None
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold a slot around a block of code::

            async with limiter.hold(limit, {"customer_id": 42}) as lease:
                ...

        Where a slot is free and the store needs no network, nothing yields to the event loop
        (as with `asyncio.Semaphore`).

        Args:
            limits: a limit, or several: then all are taken, or none.
            arguments: what the strategies look at, by name.
            timeout: seconds to wait; the shortest of this and the limits' own counts.

        Raises:
            LimitReached: refused: full under `CANCEL`, `WaitTimeout` or `QueueFull`.
            Superseded: a newer call took this one's place in the queue.
            LeaseLost: from the end of the block, if the slot was lost and the block cancelled for
                it (`on_lost="cancel"`); `Preempted` if a newer call took it.
            KeyDerivationError: a strategy found no key in the arguments.
            StoreUnavailable: the store could not be reached in time.
        """
        return Hold(self._engine, limits, arguments, timeout)

    async def acquire(
        self, limits: Limits, arguments: Arguments = None, *, timeout: float | None = None
    ) -> Lease:
        """Take a slot, and keep it until `await lease.release()`.

        For code that does not begin and end in one block; prefer `hold`. A lost lease cancels
        nothing here: ask `lease.lost`, or `lease.check()`.

        Args, Raises: as `hold`.
        """
        return await self._engine.lease(limits, arguments, timeout, WAIT)

    async def try_acquire(self, limits: Limits, arguments: Arguments = None) -> Lease | None:
        """Take a slot if one is free now. Never waits, and never overtakes a waiter.

        A store that does not answer is waited for as long as its own settings say (of Redis: the
        `socket_timeout` of its URL or client, 5 s).

        Returns:
            The lease, or None where the limit is reached.

        Raises:
            KeyDerivationError, StoreUnavailable: as `hold`.
        """
        try:
            return await self._engine.lease(limits, arguments, None, Mode.TRY)
        except LimitReached:
            return None

    def limited(self, limits: Limits, *, timeout: float | None = None) -> AsyncLimited:
        """Decorate a coroutine function so that each call holds a slot while it runs.

        Of an async generator function each generator holds a slot from its first item until it is
        exhausted, closed or collected, in whichever task. `LeaseLost` comes with the next item.

        The strategies see the call's arguments by the function's signature, defaults included.

        Below `@staticmethod`, `@classmethod` and the like, next to the function.

        Args, Raises: as `hold`, from the call; `ConfigurationError`, when it decorates, for what is
            no such function, or has no argument of the name that a limit goes by.
        """
        checked = check_limits(limits)
        check_timeout(timeout)
        return limited_async(self._engine, checked, timeout)

    async def run(
        self,
        limits: Limits,
        function: Callable[P, Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call a coroutine function while holding a slot, and return what it returns.

        Args, Raises: as `hold`; what the function raises passes through.
        """
        check_coroutine_function(function, "Limiter.run()")
        view = binder_of(function)(args, kwargs)
        return await run_held(self._engine, limits, view, lambda _: function(*args, **kwargs))

    # -- beginning and end -----------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the limiter: it takes no more calls, those that run can still finish.

        Calls that wait for a slot raise `StoreError`.
        A store that was given to it stays open; one it made from a URL is closed with it.
        """
        if not self._engine.closed:
            try:
                await self._engine.close_and_wait()
            finally:
                if self._engine.owns_store:
                    await self._face.aclose()

    async def __aenter__(self) -> Self:
        self._engine.check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
