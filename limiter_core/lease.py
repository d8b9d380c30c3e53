"""`Lease` and `SyncLease`: one grant, as its holder has it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Protocol, Self

from limiter_core._async_calls import AsyncCall
from limiter_core._call import Call
from limiter_core.errors import ConfigurationError, named_key

__all__ = ("Lease", "SyncLease")


class _AsyncEngine(Protocol):
    def collected(self, call: Any, watch: object) -> None:
        """Called when a lease was garbage-collected unreleased."""

    def ended(self, call: Any) -> None:
        """Called when a call holds nothing any more for its task or thread."""

    async def release_call(self, call: Any) -> None:
        """Release."""


class _SyncEngine(Protocol):
    def collected(self, call: Any, watch: object) -> None:
        """Called when a lease was garbage-collected unreleased."""

    def ended(self, call: Any) -> None:
        """Called when a call holds nothing any more for its task or thread."""

    def release_call(self, call: Any) -> None:
        """Release."""


class _BaseLease:
    """The properties of both kinds of lease."""

    __slots__ = ()

    _call: Call

    @property
    def id(self) -> str:
        """The lease's id, unique over all processes; what `evict` takes."""
        return self._call.id

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys it holds slots of, in the order of the limits."""
        return self._call.keys

    @property
    def fencing_token(self) -> int:
        """A number higher than that of every earlier grant of each of its keys.

        Send it along with writes, and let the resource refuse a write with a lower number than it
        has seen: so a holder that was frozen past its lease does no harm. 0 for a call that was
        admitted without a slot, because the store was down (`on_store_error="admit"`).
        """
        granted = self._call.granted
        return 0 if granted is None else granted.fencing_token

    @property
    def fencing_tokens(self) -> Mapping[str, int]:
        """The fencing token for each of its keys."""
        return self._call.fencing_tokens()

    @property
    def lost(self) -> bool:
        """Whether the slot is gone (or a newer call asked for it) before it was released.

        A release in time is no loss, and nothing is lost after it.
        """
        return self._call.is_lost()

    @property
    def waited_for(self) -> float:
        """Seconds that it waited for its slots; 0 if they were free at once."""
        return self._call.waited

    def expires_in(self) -> float:
        """Return the seconds until the store ends the lease unless renewed, as `inspect` does.

        `math.inf` if it has no end, 0 once it is lost. With the Redis store it counts as lost a
        tenth of the lease time before that end: a holder has to stop before another begins.
        """
        return self._call.seconds_left()

    def check(self) -> None:
        """Raise if the lease is lost; for long bodies that cannot be cancelled.

        Raises:
            LeaseLost: it is; `Preempted` if a newer call asked for the slot.
        """
        if self._call.is_lost():
            raise self._call.loss_error()

    def __copy__(self) -> Self:
        return self  # there is one of each grant: it is watched for when it is collected

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise ConfigurationError(
            "a lease is renewed and released by the process that holds it, so it cannot be sent to "
            "another one: send its id and its fencing_token"
        )

    def __repr__(self) -> str:
        state = "released" if self._call.closed else "lost" if self.lost else "held"
        demands = self._call.demands
        keys = ", ".join(named_key(each.key, each.name, quoted=False) for each in demands)
        return f"<{type(self).__name__} {self.id} on {keys}: {state}>"


class Lease(_BaseLease):
    """A lease of a `Limiter`. Release it once; again does nothing.

    As a context manager it releases itself::

        async with await limiter.acquire(limit, {"customer_id": 42}) as lease:
            ...

    One that is collected unreleased warns (`ResourceWarning`) and is renewed no more: its slot
    comes back when the lease time is over.
    """

    __slots__ = ("__weakref__", "_call", "_engine")

    def __init__(self, call: AsyncCall, engine: _AsyncEngine, *, watched: bool = True) -> None:
        self._call = call
        self._engine = engine
        call.engine = engine
        if watched:  # else the code that has it releases it, also when it is collected itself
            # No finalizer: one would run for each, and swallow what a signal raises just then.
            call.watch = weakref.ref(self, call.lease_collected)

    async def release(self) -> None:
        """Release the slots, and hand them to the next waiters.

        Idempotent, and safe from cancellation. Never raises for a store that cannot be reached:
        the lease then ends by itself.
        """
        await self._engine.release_call(self._call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.release_call(self._call)


class SyncLease(_BaseLease):
    """A lease of a `SyncLimiter`. Release it once; again does nothing.

    As a context manager it releases itself::

        with limiter.acquire(limit, {"customer_id": 42}) as lease:
            ...

    One that is collected unreleased warns (`ResourceWarning`) and is renewed no more: its slot
    comes back when the lease time is over.
    """

    __slots__ = ("__weakref__", "_call", "_engine")

    def __init__(self, call: Call, engine: _SyncEngine) -> None:
        self._call = call
        self._engine = engine
        # No finalizer: one would run for each lease, and swallow what a signal raises just then.
        call.engine = engine
        call.watch = weakref.ref(self, call.lease_collected)

    def release(self) -> None:
        """Release the slots, and hand them to the next waiters.

        Idempotent. Never raises for a store that cannot be reached: the lease then ends by
        itself.
        """
        self._engine.release_call(self._call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.release_call(self._call)
