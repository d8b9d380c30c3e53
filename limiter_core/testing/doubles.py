"""Doubles for tests of code that uses a limiter: a store that admits every call, and one none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from limiter_core.errors import WaitTimeout
from limiter_core.limits import ConflictResolution
from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    HolderSnapshot,
    KeySnapshot,
    Loss,
    Mode,
    Notice,
    Presence,
    Queued,
    Refusal,
    Refused,
    Renewal,
    Request,
    WaiterSnapshot,
)
from limiter_core.store import AsyncStore, Capabilities, SyncStore
from limiter_core.system_clock import system_clock as time
from limiter_core.testing.awaited import AwaitedStore

__all__ = ("FullStore", "UnlimitedStore")


@dataclass(frozen=True, slots=True)
class _Member:
    """A caller that the store knows of: a holder of the one, a waiter of the other."""

    request: Request
    number: int  # the fencing token, or the arrival order
    since: float

    def demand(self, key: str) -> Demand:
        return next(demand for demand in self.request.demands if demand.key == key)


class _Double:
    """What both doubles share: they remember the calls that have not left."""

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._members: dict[str, _Member] = {}
        self._last_number = 0

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # as of a store: its calls are seen through both

    def __getstate__(self) -> dict[str, Any]:
        # It answers the same in any process; the calls that it remembers are of this one.
        return {**vars(self), "_lock": None, "_members": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @property
    def capabilities(self) -> Capabilities:
        """Both faces; nothing in it suspends."""
        return Capabilities(suspends=False)

    def sync_face(self) -> SyncStore:
        """Return the operations for threads: the store itself."""
        return self

    def async_face(self) -> AsyncStore:
        """Return the operations for the event loop."""
        return AwaitedStore(self)

    def now(self) -> float:
        """Return the clock that it was given, or the system's monotonic one."""
        return time.monotonic() if self._clock is None else self._clock()

    def acquire(self, request: Request) -> Answer:
        """Answer a request, each double in its own way."""
        raise NotImplementedError

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """Forget a lease or a ticket; whether it was known."""
        with self._lock:
            return self._members.pop(lease_id, None) is not None

    def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:  # noqa: ARG002
        """Remove nothing; see `release`."""
        return self.release(lease_id, keys)

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:  # noqa: ARG002
        """Forget a lease or a ticket."""
        self.release(lease_id, keys)

    def let_expire(self, lease_id: str, claimant: str = "") -> None:  # noqa: ARG002
        """Forget a lease: nothing ends by itself here."""
        self.release(lease_id)

    def renew(self, ids: Sequence[str]) -> Renewal:
        """Name the ids that are not known; nothing ends by itself here."""
        with self._lock:
            return Renewal({id_: Loss.FORGOTTEN for id_ in ids if id_ not in self._members})

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """Remove a ticket."""
        return self.release(ticket_id)

    def evict(self, lease_id: str) -> bool:  # noqa: ARG002
        """Do nothing: there is no such holder."""
        return False

    def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """Do nothing: a double notifies no waiter."""
        return False

    def sweep(self, presence: Presence | None = None) -> None:
        """Do nothing: nothing ends by itself here."""

    def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        """Return the state of a key."""
        raise NotImplementedError

    def keys(self, *, after_slice: Callable[[], object] | None = None) -> Iterator[str]:  # noqa: ARG002  (one slice)
        """Yield the keys with holders or waiters."""
        with self._lock:
            members = list(self._members.values())
        return iter({demand.key: None for m in members for demand in m.request.demands})

    def set_limit(self, key: str, limit: int) -> None:
        """Do nothing: this store knows no limits."""

    def reset_limit(self, key: str) -> None:
        """Do nothing."""

    def pause(self, key: str) -> None:
        """Do nothing."""

    def resume(self, key: str) -> None:
        """Do nothing."""

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        """Do nothing: no ticket is ever handed a slot here."""

    def close(self) -> None:
        """Do nothing."""

    def _enter(self, request: Request) -> _Member:
        known = self._members.get(request.id)
        if known is not None:
            return known
        seconds = time.time() if self._clock is None else self._clock()
        self._last_number = max(self._last_number + 1, int(seconds * 1_000_000))
        member = _Member(request, self._last_number, self.now())
        self._members[request.id] = member
        return member

    def _of(self, key: str) -> list[_Member]:
        return [
            member
            for member in self._members.values()
            if any(demand.key == key for demand in member.request.demands)
        ]


class UnlimitedStore(_Double):
    """Admits every call at once: for tests of code whose limits do not matter::

        limiter = Limiter(UnlimitedStore())

    No call waits, whatever the limits are. Fencing tokens rise, `inspect` shows the holders, and
    `evict` takes a lease away, to test what a body does that loses it. Overrides and pauses have
    no effect.

    Args:
        clock: for the times in `inspect`; the default is the system's.
    """

    def acquire(self, request: Request) -> Granted:
        """Grant it, for as long as the process lives."""
        with self._lock:
            return Granted(self._enter(request).number, None)

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """Do nothing: every call gets its slot at once."""
        return False

    def evict(self, lease_id: str) -> bool:
        """Remove a lease, and notify its holder."""
        with self._lock:
            member = self._members.pop(lease_id, None)
        if member is None:
            return False
        if member.request.listener is not None:
            member.request.listener.lease_lost(Loss.EVICTED)
        return True

    def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:  # noqa: ARG002
        """Return the holders of the key."""
        with self._lock:
            members, now = self._of(key), self.now()
        holders = tuple(
            HolderSnapshot(
                id=member.request.id,
                cost=member.demand(key).cost,
                limit=member.demand(key).limit,
                fencing_token=member.number,
                held_for=now - member.since,
                expires_in=None,
                claimed=True,
                preempted=False,
                label=member.request.label,
            )
            for member in members
        )
        declared = tuple(sorted({holder.limit for holder in holders}))
        in_use = sum(holder.cost for holder in holders)
        limit = max(declared, default=0)
        name = members[-1].demand(key).name if members else ""
        return KeySnapshot(
            key, limit, in_use, 0, False, None, declared, holders, waiters=(), name=name
        )


class FullStore(_Double):
    """Never grants anything: for tests of timeouts and refusals::

        limiter = Limiter(FullStore())

    Every key is full, with holders that never release: a try, or a call under `CANCEL`,
    is refused; a call that would wait gets its `WaitTimeout` at once, whatever its timeout. Only
    durable tickets wait (`max_waiting` is kept, no call is superseded).

    Args:
        clock: for the times in `inspect`; the default is the system's.
    """

    def acquire(self, request: Request) -> Queued | Refused:
        """Refuse it, or let it wait in the queue of its first key."""
        with self._lock:
            refused = self._refuse(request)
            if refused is not None:
                return refused
            home = request.demands[0]
            if request.listener is not None and request.payload is None:
                raise WaitTimeout(home.key, home.limit, home.limit, None, home.name)
            order = self._enter(request).number
        return Queued(home.key, home.limit, home.limit, order, None)

    def _refuse(self, request: Request) -> Refused | None:
        if request.id in self._members:
            return None
        home = request.demands[0]
        for demand in request.demands:
            if demand.cost > demand.limit > 0:
                return _full(demand, Refusal.COST)
        if request.mode is Mode.LOOK:
            return _full(home, Refusal.UNKNOWN)
        if request.mode is not Mode.WAIT:
            return _full(home)
        for demand in request.demands:
            if demand.on_conflict is ConflictResolution.CANCEL:
                return _full(demand)
        if home.max_waiting is not None and len(self._queue(home.key)) >= home.max_waiting:
            return _full(home, Refusal.QUEUE_FULL)
        return None

    def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:  # noqa: ARG002
        """Return the waiters of the key; it is full as long as there are any."""
        with self._lock:
            members, now = self._queue(key), self.now()
        waiters = tuple(
            WaiterSnapshot(
                id=member.request.id,
                cost=member.demand(key).cost,
                limit=member.demand(key).limit,
                priority=member.demand(key).priority,
                group=member.demand(key).group,
                waiting_for=now - member.since,
                durable=member.request.payload is not None,
                label=member.request.label,
            )
            for member in members
        )
        declared = tuple(sorted({waiter.limit for waiter in waiters}))
        limit = max(declared, default=0)
        shown = waiters[: KeySnapshot.WAITERS_SHOWN]
        name = members[-1].demand(key).name if members else ""
        return KeySnapshot(
            key,
            limit,
            limit,
            len(waiters),
            False,
            None,
            declared,
            holders=(),
            waiters=shown,
            name=name,
        )

    def _queue(self, key: str) -> list[_Member]:
        return [member for member in self._of(key) if member.request.demands[0].key == key]


def _full(demand: Demand, reason: Refusal = Refusal.FULL) -> Refused:
    in_use = 0 if reason is Refusal.COST else demand.limit
    return Refused(demand.key, demand.limit, in_use, None, reason)
