"""`SyncLimiter`: the front door for threads. `Limiter` without `await`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import ParamSpec, Self, TypeVar

from limiter_core._checks import check_timeout
from limiter_core._copies import Copyable
from limiter_core._engine import WARN_AFTER, OnStoreError
from limiter_core._functions import check_plain_function, check_result
from limiter_core._limited import limited_sync
from limiter_core._operator import Operator, run_operation
from limiter_core._operator_checks import check_key, one_limit
from limiter_core._prepare import (
    Arguments,
    Limits,
    check_limits,
    demands_of,
    key_of,
    run_now,
    view_of,
)
from limiter_core._streams import GeneratorHold
from limiter_core._sync_engine import SyncEngine
from limiter_core._sync_hold import Hold
from limiter_core.arguments import binder_of
from limiter_core.errors import LimitReached
from limiter_core.events import Observer
from limiter_core.explanation import Explanation, explained
from limiter_core.lease import SyncLease
from limiter_core.limits import ConcurrencyLimit
from limiter_core.policies import Change, Policy
from limiter_core.requests import Demand, KeySnapshot, Mode
from limiter_core.store import Store

__all__ = ("SyncLimiter",)

P = ParamSpec("P")
R = TypeVar("R")


class SyncLimiter(Copyable):
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
        return self._engine.lease(limits, arguments, timeout, Mode.WAIT)

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

        return limited_sync(
            checked,
            lambda arguments: Hold(self._engine, checked, arguments, timeout),
            lambda arguments: GeneratorHold(self._engine, checked, arguments, timeout),
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

    # -- looking, and operating ------------------------------------------------------------------

    def key_for(self, limit: ConcurrencyLimit, arguments: Arguments = None) -> str:
        """Return the key that a call with these arguments has under the limit."""
        return run_now(key_of(one_limit(limit), view_of(arguments)))

    def inspect(self, limit: ConcurrencyLimit | str, arguments: Arguments = None) -> KeySnapshot:
        """Return the state of a key: the limit, slots in use, holders, waiters.

        Args:
            limit: a limit, whose key is derived from the arguments; or the key itself: then the
                limit in force is the highest number that the users of the key declare.
            arguments: as for `hold`.
        """
        self._engine.check_open()
        if isinstance(limit, str):
            return self._face.inspect(check_key(limit))
        demands = run_now(demands_of((one_limit(limit),), view_of(arguments)))
        (judged,) = run_operation(self._operator.judged(demands))
        return self._face.inspect(judged.key).declared_as(judged.limit)

    def explain(self, limits: Limits | str, arguments: Arguments = None) -> Explanation:
        """Return why a call that is made now would have to wait, and how long that may take.

        Nothing is taken, and no place in line. `str()` of it is a readable paragraph.

        Args:
            limits: as for `hold`; or a key itself, for a call of one slot.
            arguments: as for `hold`.
        """
        self._engine.check_open()
        if isinstance(limits, str):
            state = self._face.inspect(check_key(limits))
            return explained((Demand(limits, max(state.declared, default=1)),), (state,))
        demands = run_now(demands_of(check_limits(limits), view_of(arguments)))
        demands = run_operation(self._operator.judged(demands))
        return explained(demands, [self._face.inspect(demand.key) for demand in demands])

    def keys(self) -> Iterator[str]:
        """Iterate over the keys in use: with holders, waiters or an operator's override."""
        self._engine.check_open()
        yield from self._face.keys()

    def set_limit(
        self, key: str, limit: int, *, reason: str | None = None, by: str | None = None
    ) -> None:
        """Override what the code declares for a key, for all callers, until `reset_limit`.

        Raising it admits the waiters that now fit; lowering it lets holders finish; 0 admits
        no call.

        Args:
            key: the key, in use or not.
            limit: the number of slots.
            reason: why, for the log of changes. (So for all changes.)
            by: the operator's name, for the log; default `host:pid`.
        """
        self._engine.check_open()
        run_operation(self._operator.set_limit(key, limit, reason, by))

    def reset_limit(self, key: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Return to what the code declares for a key."""
        self._engine.check_open()
        run_operation(self._operator.reset_limit(key, reason, by))

    def pause(self, key: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Admit no call to a key until `resume`; holders continue, new calls find it full."""
        self._engine.check_open()
        run_operation(self._operator.pause(key, reason, by))

    def resume(self, key: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Admit to a key again."""
        self._engine.check_open()
        run_operation(self._operator.resume(key, reason, by))

    def set_name_limit(
        self,
        name: str,
        limit: int | str,
        *,
        lasts: float | timedelta | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Change:
        """Set the limit of all keys of a name, those in use and future ones.

        In force within a second for all processes of the store; a key's own `set_limit` counts
        before it. Holders keep their slots.

        Args:
            name: the name of the limits, as `inspect` shows it.
            limit: the number of slots of each key; or a share of what the code declares, `"50%"`,
                rounded up.
            lasts: seconds (or a timedelta) after which it ends; None: with `reset_name_limit`.
            reason: as for `set_limit`.
            by: likewise.

        Returns:
            The entry in the log of changes.

        Raises:
            ConfigurationError: a value is wrong, or the store keeps no limits by name.
        """
        self._engine.check_open()
        return run_operation(self._operator.set_name_limit(name, limit, lasts, reason, by))

    def reset_name_limit(
        self, name: str, *, reason: str | None = None, by: str | None = None
    ) -> Change:
        """Return to what the code declares for the keys of a name."""
        self._engine.check_open()
        return run_operation(self._operator.reset_name_limit(name, reason, by))

    def pause_name(
        self,
        name: str,
        *,
        lasts: float | timedelta | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Change:
        """Admit no call of a name until `resume_name`, or for a time; see `set_name_limit`.

        A key with a `set_limit` of its own still admits: that counts before the name.
        """
        self._engine.check_open()
        return run_operation(self._operator.pause_name(name, lasts, reason, by))

    def resume_name(self, name: str, *, reason: str | None = None, by: str | None = None) -> Change:
        """Admit calls of a name again."""
        self._engine.check_open()
        return run_operation(self._operator.resume_name(name, reason, by))

    def policies(self) -> tuple[Policy, ...]:
        """Return what is in force for names, in their order; of a name, its pause comes last."""
        self._engine.check_open()
        return run_operation(self._operator.policies())

    def changes(self) -> tuple[Change, ...]:
        """Return the last changes that operators made, the latest first; at most 100."""
        self._engine.check_open()
        return run_operation(self._operator.changes())

    def evict(
        self,
        lease_id: str,
        key: str | None = None,
        *,
        reason: str | None = None,
        by: str | None = None,
    ) -> bool:
        """Take the slot from a holder that is stuck; its lease is lost, and it is notified.

        Args:
            lease_id: `lease.id`, or the `id` of a holder that `inspect` shows.
            key: where it holds, for the log of changes.
            reason: as for `set_limit`.
            by: likewise.

        Returns:
            Whether there was such a holder.
        """
        self._engine.check_open()
        return run_operation(self._operator.evict(lease_id, key, reason, by))

    def evict_waiter(
        self,
        ticket_id: str,
        key: str | None = None,
        *,
        reason: str | None = None,
        by: str | None = None,
    ) -> bool:
        """End the waiting of a call, which is refused, or of a queued job, which ends as cancelled.

        A job of a queue without a worker ends so when a worker is there again.

        Args:
            ticket_id: the `id` of a waiter that `inspect` shows, or of a holder that has not taken
                its slot up yet.
            key: where it waits, which saves looking for it.
            reason: as for `set_limit`.
            by: likewise.

        Returns:
            Whether there was such a waiter.
        """
        self._engine.check_open()
        return run_operation(self._operator.evict_waiter(ticket_id, key, reason, by))

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
