"""`MemoryStore`: the slots and tickets of one process, for event loops and threads alike."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from typing import NoReturn, Self
from urllib.parse import urlsplit

from limiter_core.errors import ConfigurationError
from limiter_core.policies import Change, Policy
from limiter_core.registry import without_secrets
from limiter_core.requests import Answer, KeySnapshot, Notice, Presence, Renewal, Request
from limiter_core.store import AsyncStore, Capabilities, SyncStore
from limiter_memory._async_store import AsyncMemoryStore
from limiter_memory._machine import Machine
from limiter_memory._steps import Steps

__all__ = ("MemoryStore", "store_from_url")

_CHUNK = 128
"""Tickets to which a policy is applied in one step."""

_CAPABILITIES = Capabilities(suspends=False, policies=True)
_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()
_named: dict[str, MemoryStore] = {}


class MemoryStore(Steps):
    """Keeps slots and tickets in this process; every rule of `limiter_core.store` holds.

    One lock guards one state machine, so a store may serve any number of event loops (asyncio or
    trio) and threads at once, through both of its faces. Nothing in it waits: a step takes
    microseconds. There is no thread behind it; ends of leases are noticed by the next step.

    Leases need no renewal here: a holder with a listener holds its slot for as long as the
    process lives, or until its `max_hold`; also one whose event loop was closed by hand before it
    could release it. A child process made by `fork` starts with no leases
    and no tickets, but with what operators set: overrides, pauses, policies, and the log.

    Args:
        clock: seconds, monotonic; for tests and simulations. One that has a method `on_advance`,
            as `limiter_core.testing.FakeClock`, wakes all waiters when it moves. The default is
            the system's monotonic clock, shifted to the epoch so that fencing tokens rise over
            restarts.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        super().__init__(clock)
        _stores.add(self)
        follow_clock = getattr(clock, "on_advance", None)
        if follow_clock is not None:
            follow_clock(self.look_at_clock)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        # A copy with slots of its own would let in more than may run.
        return self

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            "the slots of a memory store are in this process, so neither it nor its limiter can "
            "be sent to another one: make the limiter there, or give it the URL of a store that "
            "processes share, such as redis://localhost:6379/0"
        )

    @property
    def capabilities(self) -> Capabilities:
        """All, and its operations never suspend."""
        return _CAPABILITIES

    def sync_face(self) -> SyncStore:
        """Return the operations for threads: the store itself."""
        return self

    def async_face(self) -> AsyncStore:
        """Return the operations for event loops, of asyncio and of trio."""
        return AsyncMemoryStore(self, self, self._clock)

    # -- SyncStore -------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the store's clock in seconds."""
        return self._clock()

    def acquire(self, request: Request) -> Answer:
        """Ask for slots, ask again while waiting, or claim a slot that was handed over."""
        # Written out, not through `_step`: this and `release` are what every call waits for.
        try:
            with self._lock:
                if self._owner:
                    self._recover_step()
                self._owner = get_ident()
                machine = self._machine
                answer = machine.acquire(request, int((self._clock() + self._epoch) * 1_000_000))
                effects = self._take_effects() if machine.calls or machine.notices else None
                self._owner = 0
            if effects is not None or self._postponed:
                self._apply(effects)
            return answer  # noqa: TRY300  (an exception may be thrown in here, too)
        except BaseException:
            self._recover()
            raise

    def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:  # noqa: ARG002
        """Remove the lease of a job if this claimant has it."""
        if self._owner == get_ident() and self._lock.locked():  # as in `release`
            self._postponed.append((lease_id, claimant))
            return True
        return self._step(lambda machine, now: machine.release_claim(lease_id, claimant, now))

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """Remove the lease or the ticket of this id, and hand its slots on."""
        try:
            thread = get_ident()
            if self._owner == thread and self._lock.locked():
                # The garbage collector closed a generator with a hold in it while this thread made
                # a step. The step goes first.
                self._postponed.append((lease_id, None))
                return True
            with self._lock:
                if self._owner:
                    self._recover_step()
                self._owner = thread
                machine = self._machine
                found = machine.release(lease_id, int((self._clock() + self._epoch) * 1_000_000))
                effects = self._take_effects() if machine.calls or machine.notices else None
                self._owner = 0
            if effects is not None or self._postponed:
                self._apply(effects)
            return found  # noqa: TRY300  (an exception may be thrown in here, too)
        except BaseException:
            self._recover()
            raise

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        """Release: nothing in here waits."""
        if claimant:
            self.release_claim(lease_id, keys, claimant)
        else:
            self.release(lease_id, keys)

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        """Have a lease end with its lease time, counted from now."""
        self._step(lambda machine, now: machine.let_expire(lease_id, claimant, now))

    def renew(self, ids: Sequence[str]) -> Renewal:
        """Start the lease time of these leases and tickets again."""
        return self._step(lambda machine, now: machine.renew(ids, now))

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """Remove a ticket, or a slot that was not claimed yet."""
        return self._step(lambda machine, now: machine.withdraw(ticket_id, now))

    def evict(self, lease_id: str) -> bool:
        """Take the slot from a holder, and notify it."""
        return self._step(lambda machine, now: machine.evict(lease_id, now))

    def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """End the waiting of a ticket, also of one whose slot was not claimed yet."""
        return self._step(lambda machine, now: machine.evict_waiter(ticket_id, now))

    def sweep(self, presence: Presence | None = None) -> None:
        """Reap all that ended unnoticed, on every key."""
        self._step(lambda machine, now: machine.sweep(now, presence))

    def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:  # noqa: ARG002
        """Return the state of a key."""
        return self._step(lambda machine, now: machine.inspect(key, now))

    def keys(self, *, after_slice: Callable[[], object] | None = None) -> Iterator[str]:  # noqa: ARG002  (one slice)
        """Yield the keys in use, as they were at the start."""
        return iter(self._step(lambda machine, _: machine.table.in_use()))

    def set_limit(self, key: str, limit: int) -> None:
        """Override every declared limit of the key until `reset_limit`."""
        self._step(lambda machine, now: machine.set_limit(key, limit, now))

    def reset_limit(self, key: str) -> None:
        """Return to the declared limits."""
        self._step(lambda machine, now: machine.set_limit(key, None, now))

    def pause(self, key: str) -> None:
        """Admit no call to the key until `resume`."""
        self._step(lambda machine, now: machine.set_paused(key, True, now))

    def resume(self, key: str) -> None:
        """End a pause, and admit the waiters that fit."""
        self._step(lambda machine, now: machine.set_paused(key, False, now))

    def change_policy(self, change: Change) -> Change:
        """Change what is in force for a name, and serve those that fit now."""
        entry = self._step(lambda machine, now: machine.change_policy(change, now))
        waiting = self._step(lambda machine, _: machine.waiting_by_name(change.name))
        for start in range(0, len(waiting), _CHUNK):
            self._step(_applying_policies(waiting[start : start + _CHUNK]))
        return entry

    def policies(self) -> tuple[Policy, ...]:
        """Return what is in force for names."""
        return self._step(lambda machine, now: machine.policies.in_force(now))

    def log_change(self, change: Change) -> Change:
        """Add a change of a key to the log."""
        return self._step(lambda machine, now: machine.policies.log(change, now))

    def changes(self) -> tuple[Change, ...]:
        """Return the log, the last change first."""
        return self._step(lambda machine, _: tuple(machine.policies.changes))

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        """Have the notices of durable tickets sent to `callback`."""
        self._on_notice_callback = callback

    def close(self) -> None:
        """Do nothing: there is nothing to give up."""

    def look_at_clock(self) -> None:
        """Reap what has ended by now, and have all waiters check their timeouts."""

        def look(machine: Machine, now: int) -> None:
            machine.sweep(now)
            machine.wake_waiting()

        self._step(look)


def _applying_policies(tickets: Sequence[str]) -> Callable[[Machine, int], None]:
    return lambda machine, now: machine.apply_policies(tickets, now)


def store_from_url(url: str) -> MemoryStore:
    """Return the store of a `memory://` URL.

    `memory://` is a new store, of its own; `memory://name` is the one store of that name in this
    process.

    Raises:
        ConfigurationError: the URL has more than a name.
    """
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(
            f"a memory store has no path and no options, got {without_secrets(url)!r}: "
            'write "memory://", or "memory://name" for one that several limiters share'
        )
    if not parts.netloc:
        return MemoryStore()
    return _named.setdefault(parts.netloc, MemoryStore())


def _after_fork_in_child() -> None:
    for store in _stores:
        store.start_over_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
