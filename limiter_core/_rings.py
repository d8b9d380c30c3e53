"""Calls that wait for each other: each holds slots that another one waits for, in a ring.

A waiting call that itself holds slots announces its leases behind the label of its ticket
(`_held_leases`), and looks from time to time: at the keys that it holds for waiters that announced
leases, at the keys of those leases for further ones, and so on. Of all that wait for it in this way
a call remains in the ring whose slots are kept by calls that remain. Two looks with the same ids
are needed: then each of the tickets has waited, and each of the leases was held, from the end of
the first look to the beginning of the second, at the same time.

Calls with a timeout, or in a hold with a `max_hold`, go on by themselves: they announce nothing,
and so are in no ring.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from limiter_core._held_leases import HeldLease, with_held
from limiter_core._observed_call import ObservedCall
from limiter_core.requests import Demand, KeySnapshot, Request
from limiter_core.tracing import split_label

logger = logging.getLogger("limiter")

Looks = Generator[str, KeySnapshot | None, None]
"""Yields keys to inspect; is sent their state, None if the store did not answer in time."""

_PAUSES = 0.75, 0.75, 2.0, 4.0
"""Seconds between the first looks; then the last of them. The call that completes a ring looks at
once: only that the others report it, too, may come later."""
_PAUSE_OF_SEVERAL = 0.75
"""Seconds between the looks of a call that waits for several keys: it may complete a ring without
beginning to wait, when it moves from the queue of one to that of another."""
FIRST_LOOK = 1.0
"""Seconds that a call waits before it announces what it holds, and looks."""
MAX_KEYS = 50
"""Keys that one look inspects at the most."""

_MAX_REPORTED = 1000
_reported: set[frozenset[str]] = set()
"""The tickets of the rings that this process has reported."""


class WaitingCall(Protocol):
    """The part of a call that matters here."""

    id: str
    demands: tuple[Demand, ...]
    request: Request
    observed: ObservedCall | None


@dataclass(frozen=True, slots=True)
class Member:
    """A call that waits, and holds.

    Attributes:
        id: its ticket.
        key: where it waits.
        cost: the slots that it wants there.
        limit: the limit that it declares there.
        label: the name that its caller gave.
        held: what it holds.
    """

    id: str
    key: str
    cost: int
    limit: int
    label: str
    held: tuple[HeldLease, ...]


class Ring(NamedTuple):
    """Calls that wait for each other.

    Attributes:
        members: each waits for the next, the last for the first.
        others: keep slots from the members, too, and wait for them.
    """

    members: tuple[Member, ...]
    others: tuple[Member, ...]

    def ids(self) -> frozenset[str]:
        """Return the ids of the tickets and leases, and the keys."""
        found: set[str] = set()
        for member in (*self.members, *self.others):
            found |= {member.id, f"key {member.key}", *(lease.id for lease in member.held)}
        return frozenset(found)


class RingWatch:
    """Looks for a ring that a waiting call is in.

    Args:
        held: the leases that it holds until it goes on.
        now: on the clock of the call.
    """

    def __init__(self, held: tuple[HeldLease, ...], now: float) -> None:
        self._held = held
        self._pauses = iter(_PAUSES)
        self._pause = _PAUSE_OF_SEVERAL
        self._seen: frozenset[str] | None = None
        self._announced = False
        self.look_at = now + FIRST_LOOK

    def announce(self, call: WaitingCall, now: float) -> None:
        """Have the next request of the call say what it holds, once it has waited for a while."""
        if not self._announced and now >= self.look_at:
            self._announced = True
            call.request = call.request._replace(label=with_held(call.request.label, self._held))

    def look(self, call: WaitingCall, key: str, now: float) -> Looks:
        """Look once, and report a ring that the look before saw, too.

        Args:
            call: the call.
            key: where it waits.
            now: on its clock.
        """
        if len(call.demands) == 1:
            self._pause = next(self._pauses, self._pause)
        self.look_at = now + self._pause
        demand = next(each for each in call.demands if each.key == key)
        label = split_label(call.request.label)[0]
        start = Member(call.id, key, demand.cost, demand.limit, label, self._held)
        ring = yield from find_ring(start)
        ids = None if ring is None else ring.ids()
        if ring is not None and ids == self._seen:
            _report(call, ring)
        self._seen = ids


def find_ring(start: Member) -> Generator[str, KeySnapshot | None, Ring | None]:
    """Return the ring that begins with a call, None if there is none. Yields as `Looks` does.

    What it waits for is looked at last, and only if others wait for what it holds: many may wait
    there, and each call would have to look at the keys of all.
    """
    states: dict[str, KeySnapshot] = {}
    members = {start.id: start}
    to_look_at = deque(_keys(start))
    # Where there are too many keys, a ring of those that are known is one all the same.
    while to_look_at and len(states) < MAX_KEYS:
        key = to_look_at.popleft()
        if key in states:
            continue
        state = yield key
        if state is None:
            return None
        states[key] = state
        for waiter in state.waiters:
            if waiter.holds and waiter.id not in members:
                member = Member(
                    waiter.id, key, waiter.cost, waiter.limit, waiter.label, waiter.holds
                )
                members[waiter.id] = member
                to_look_at.extend(_keys(member))
    if len(members) == 1:
        return None
    if start.key not in states:
        state = yield start.key
        if state is None:
            return None
        states[start.key] = state
    return _ring_of(start, _stuck(members, states), states)


def _keys(*members: Member) -> list[str]:
    keys = (key for member in members for lease in member.held for key in lease.keys)
    return list(dict.fromkeys(keys))


def _stuck(members: dict[str, Member], states: dict[str, KeySnapshot]) -> dict[str, Member]:
    """Return those that cannot go on before another one of them does."""
    stuck = dict(members)
    while True:
        owner = {lease.id: each for each in stuck.values() for lease in each.held}
        free = [
            each.id
            for each in stuck.values()
            if _kept(states[each.key], owner) + each.cost <= _limit(each, states[each.key])
        ]
        if not free:
            return stuck
        for ticket in free:
            del stuck[ticket]


def _limit(member: Member, state: KeySnapshot) -> int:
    return member.limit if state.override is None else state.override


def _kept(state: KeySnapshot, owner: dict[str, Member]) -> int:
    """Return the slots of a key that these calls keep; one that is preempted will release."""
    return sum(
        holder.cost for holder in state.holders if holder.id in owner and not holder.preempted
    )


def _ring_of(
    start: Member, stuck: dict[str, Member], states: dict[str, KeySnapshot]
) -> Ring | None:
    """Return the shortest ring from `start` back to it, and then others that they wait for."""
    if start.id not in stuck:
        return None
    owner = {lease.id: each for each in stuck.values() for lease in each.held}

    def waits_for(member: Member) -> list[Member]:
        holders = states[member.key].holders
        return [owner[each.id] for each in holders if each.id in owner]

    came_from: dict[str, Member] = {}
    reached = [start]  # in the order of their distance
    ring: list[Member] = []
    for member in reached:
        for other in waits_for(member):
            if other is start and member is not start and not ring:
                ring = [member]
                while ring[0] is not start:
                    ring.insert(0, came_from[ring[0].id])
            elif other is not start and other.id not in came_from:
                came_from[other.id] = member
                reached.append(other)
    if not ring:
        return None
    return Ring(tuple(ring), tuple(each for each in reached if each not in ring))


def _report(call: WaitingCall, ring: Ring) -> None:
    members = (*ring.members, *ring.others)
    tickets = frozenset(member.id for member in members)
    if tickets in _reported:
        return
    if len(_reported) >= _MAX_REPORTED:
        _reported.clear()
    _reported.add(tickets)
    labels = tuple(member.label for member in ring.members)
    keys = tuple(member.key for member in ring.members)
    waits = "; ".join(
        f"{each.label} waits for {each.key!r} while it holds {' and '.join(map(repr, _keys(each)))}"
        for each in members
    )
    logger.warning(
        "calls wait for each other, and none of them will go on by itself: %s. Take both limits in "
        "one hold, or in the same order everywhere, or give one of the calls a timeout",
        waits,
        extra={
            "outcome": "waiting for each other",
            "ring": labels,
            "ring_keys": keys,
            "lease_ids": [lease.id for each in members for lease in each.held],
        },
    )
    if call.observed is not None:
        call.observed.waiting_for_each_other(labels, keys)
