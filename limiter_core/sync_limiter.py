"""`SyncLimiter`: concurrency limits for threads; `Limiter` without `await`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import ParamSpec, Self, TypeVar

from limiter_core._checks import check_timeout
from limiter_core._engine import WAIT, WARN_AFTER, OnStoreError
from limiter_core._functions import check_plain_function, check_result
from limiter_core._limited import limited_sync
from limiter_core._operator import Operator
from limiter_core._prepare import Arguments, Limits, check_limits, the_one_or_all
from limiter_core._streams import GeneratorHold
from limiter_core._sync_engine import SyncEngine
from limiter_core._sync_hold import Hold
from limiter_core._sync_operations import SyncOperations
from limiter_core.arguments import binder_of
from limiter_core.errors import LimitReached
from limiter_core.events import Observer
from limiter_core.lease import SyncLease
from limiter_core.requests import Mode
from limiter_core.store import Store

__all__ = ("SyncLimiter",)

P = ParamSpec("P")
R = TypeVar("R")


class SyncLimiter(SyncOperations):
    """Limits how many calls run at once; for threads.

    The same as `Limiter`, method for method, without `await`. One difference follows from
    threads: a running body cannot be cancelled from outside, so a lost lease is only reported. Ask
    `lease.lost` or call `lease.check()` in long bodies.

    Args:
        store: the URL of a store (`"memory://"`), or a store that other limiters may share.
        on_store_error: what a call does when the store cannot be reached: "raise" retries until
            the call's `timeout` and raises `StoreUnavailable`; "admit" lets it run without a slot.
        label: names this limiter's holders and waiters in `inspect`; default `host:pid`.
        observe: called with each event of this limiter's calls; see `limiter_core.events`.
        warn_after: seconds (or a timedelta) that a call waits before one warning is logged: which
            limit, its place in line, and the holders; None for no warning.

    Raises:
        ConfigurationError: no installed store knows the URL, or the store has no sync face.
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
        self._engine = SyncEngine(
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
    ) -> AbstractContextManager[SyncLease]:
        """Hold a slot around a block of code::

            with limiter.hold(limit, {"customer_id": 42}) as lease:
                ...

        Args:
            limits: a limit, or several: then all are taken, or none.
            arguments: what the strategies look at, by name.
            timeout: seconds to wait; the shortest of this and the limits' own counts.

        Raises:
            LimitReached: refused: full under `CANCEL`, `WaitTimeout` or `QueueFull`.
            Superseded: a newer call took this one's place in the queue.
            KeyDerivationError: a strategy found no key in the arguments.
            StoreUnavailable: the store could not be reached in time.
        """
        return Hold(self._engine, limits, arguments, timeout)

    def acquire(
        self, limits: Limits, arguments: Arguments = None, *, timeout: float | None = None
    ) -> SyncLease:
        """Take a slot, and keep it until `lease.release()`.

        For code that does not begin and end in one block; prefer `hold`.

        Args, Raises: as `hold`.
        """
        return self._engine.lease(limits, arguments, timeout, WAIT)

    def try_acquire(self, limits: Limits, arguments: Arguments = None) -> SyncLease | None:
        """Take a slot if one is free now. Never waits, and never overtakes a waiter.

        A store that does not answer is waited for as long as its own settings say (of Redis: the
        `socket_timeout` of its URL or client, 5 s).

        Returns:
            The lease, or None where the limit is reached.

        Raises:
            KeyDerivationError, StoreUnavailable: as `hold`.
        """
        try:
            return self._engine.lease(limits, arguments, None, Mode.TRY)
        except LimitReached:
            return None

    def limited(
        self, limits: Limits, *, timeout: float | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function so that each call holds a slot while it runs.

        Of a generator function each generator holds a slot from its first item until it is
        exhausted, closed or collected, in whichever thread. `LeaseLost` comes with the next item.

        The strategies see the call's arguments by the function's signature, defaults included.

        Below `@staticmethod`, `@classmethod` and the like, next to the function.

        Args, Raises: as `hold`, from the call; `ConfigurationError`, when it decorates, for a
            coroutine function, or one without an argument of the name that a limit goes by.
        """
        checked = check_limits(limits)
        check_timeout(timeout)
        taken = the_one_or_all(checked)
        return limited_sync(
            checked,
            lambda arguments: Hold(self._engine, taken, arguments, timeout),
            lambda arguments: GeneratorHold(self._engine, taken, arguments, timeout),
        )

    def run(
        self, limits: Limits, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call a function while holding a slot, and return what it returns.

        Args, Raises: as `hold`; what the function raises passes through.
        """
        check_plain_function(function, "SyncLimiter.run()")
        with Hold(self._engine, limits, binder_of(function)(args, kwargs), None):
            result = function(*args, **kwargs)
            check_result(result, function, "SyncLimiter.run()")
            return result

    # -- beginning and end -----------------------------------------------------------------------

    def close(self) -> None:
        """Close the limiter: it takes no more calls, those that run can still finish.

        Calls that wait for a slot raise `StoreError`.
        A store that was given to it stays open; one it made from a URL is closed with it.
        """
        if not self._engine.closed:
            try:
                self._engine.close_and_wait()
            finally:
                if self._engine.owns_store:
                    self._face.close()

    def __enter__(self) -> Self:
        self._engine.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
