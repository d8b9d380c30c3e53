"""What `Limiter` has for operators: methods that look at keys, and change what is in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from limiter_core._async_engine import AsyncEngine
from limiter_core._copies import Copyable
from limiter_core._operator import Operator
from limiter_core._operator_checks import check_key, one_limit
from limiter_core._prepare import (
    Arguments,
    Limits,
    check_limits,
    demands_of,
    key_of,
    run_async,
    view_of,
)
from limiter_core.explanation import Explanation, explained
from limiter_core.limits import ConcurrencyLimit
from limiter_core.policies import Change, Policy
from limiter_core.requests import Demand, KeySnapshot
from limiter_core.store import AsyncStore


class AsyncOperations(Copyable):
    """The part of `Limiter` that takes no slots."""

    _engine: AsyncEngine
    _face: AsyncStore
    _operator: Operator

    async def key_for(self, limit: ConcurrencyLimit, arguments: Arguments = None) -> str:
        """Return the key that a call with these arguments has under the limit."""
        return await run_async(key_of(one_limit(limit), view_of(arguments)))

    async def inspect(
        self, limit: ConcurrencyLimit | str, arguments: Arguments = None
    ) -> KeySnapshot:
        """Return the state of a key: the limit, slots in use, holders, waiters.

        Args:
            limit: a limit, whose key is derived from the arguments; or the key itself: then the
                limit in force is the highest number that the users of the key declare.
            arguments: as for `hold`.
        """
        self._engine.check_open()
        if isinstance(limit, str):
            return await self._face.inspect(check_key(limit))
        demands = await run_async(demands_of((one_limit(limit),), view_of(arguments)))
        (judged,) = await run_async(self._operator.judged(demands))
        return (await self._face.inspect(judged.key)).declared_as(judged.limit)

    async def explain(self, limits: Limits | str, arguments: Arguments = None) -> Explanation:
        """Return why a call that is made now would have to wait, and how long that may take.

        Nothing is taken, and no place in line. `str()` of it is a readable paragraph.

        Args:
            limits: as for `hold`; or a key itself, for a call of one slot.
            arguments: as for `hold`.
        """
        self._engine.check_open()
        if isinstance(limits, str):
            state = await self._face.inspect(check_key(limits))
            return explained((Demand(limits, max(state.declared, default=1)),), (state,))
        demands = await run_async(demands_of(check_limits(limits), view_of(arguments)))
        demands = await run_async(self._operator.judged(demands))
        return explained(demands, [await self._face.inspect(demand.key) for demand in demands])

    async def keys(self) -> AsyncIterator[str]:
        """Iterate over the keys in use: with holders, waiters or an operator's override."""
        self._engine.check_open()
        async for key in self._face.keys():
            yield key

    async def set_limit(
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
        await run_async(self._operator.set_limit(key, limit, reason, by))

    async def reset_limit(
        self, key: str, *, reason: str | None = None, by: str | None = None
    ) -> None:
        """Return to what the code declares for a key."""
        self._engine.check_open()
        await run_async(self._operator.reset_limit(key, reason, by))

    async def pause(self, key: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Admit no call to a key until `resume`; holders continue, new calls find it full."""
        self._engine.check_open()
        await run_async(self._operator.pause(key, reason, by))

    async def resume(self, key: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Admit to a key again."""
        self._engine.check_open()
        await run_async(self._operator.resume(key, reason, by))

    async def set_name_limit(
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
        return await run_async(self._operator.set_name_limit(name, limit, lasts, reason, by))

    async def reset_name_limit(
        self, name: str, *, reason: str | None = None, by: str | None = None
    ) -> Change:
        """Return to what the code declares for the keys of a name."""
        self._engine.check_open()
        return await run_async(self._operator.reset_name_limit(name, reason, by))

    async def pause_name(
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
        return await run_async(self._operator.pause_name(name, lasts, reason, by))

    async def resume_name(
        self, name: str, *, reason: str | None = None, by: str | None = None
    ) -> Change:
        """Admit calls of a name again."""
        self._engine.check_open()
        return await run_async(self._operator.resume_name(name, reason, by))

    async def policies(self) -> tuple[Policy, ...]:
        """Return what is in force for names, in their order; of a name, its pause comes last."""
        self._engine.check_open()
        return await run_async(self._operator.policies())

    async def changes(self) -> tuple[Change, ...]:
        """Return the last changes that operators made, the latest first; at most 100."""
        self._engine.check_open()
        return await run_async(self._operator.changes())

    async def evict(
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
        return await run_async(self._operator.evict(lease_id, key, reason, by))

    async def evict_waiter(
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
        return await run_async(self._operator.evict_waiter(ticket_id, key, reason, by))
