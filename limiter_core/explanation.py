"""`Explanation`: why a call would have to wait, where it would stand in line, and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from limiter_core._hold_times import expected_wait, hold_times
from limiter_core.durations import duration_text
from limiter_core.limits import ConflictResolution
from limiter_core.requests import (
    Demand,
    DormantSnapshot,
    HolderSnapshot,
    KeySnapshot,
    WaiterSnapshot,
)

__all__ = ("Explanation", "explained", "held_by")

_HOLDERS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a call that is made now would have to wait. `str()` gives it as a paragraph.

    Attributes:
        keys: the state of each key of the call, in the order of its limits.
        blocking: those of the keys that block it: they are full or paused, or waiters have
            precedence. Each has its `name`, `limit`, `in_use` and `holders`, and these their
            `label` and `held_for`, seconds.
        place: the place in line that the call would get, 1 for the first; None if it would run at
            once, or be refused.
        expected_wait: seconds until it can expect its slots, by the mean hold in this process of
            limits of the same name; 0 if nothing blocks it, None if no hold was measured here, or
            an operator has to act. A hint.
        refused: whether the call would be refused at once (`CANCEL`, `max_waiting`, its cost).
    """

    keys: tuple[KeySnapshot, ...]
    blocking: tuple[KeySnapshot, ...]
    place: int | None
    expected_wait: float | None
    refused: bool = False

    def __str__(self) -> str:
        blocking = [_state_of(each) for each in self.blocking]
        dormant = [_dormant(each, key.key) for key in self.keys for each in key.dormant]
        return " ".join([*blocking, self._outlook(), *dormant])

    def _outlook(self) -> str:
        if not self.blocking:
            keys = ", ".join(map(_called, self.keys))
            return f"Nothing blocks a call on {keys} now."
        wait = ""
        if self.expected_wait is not None:
            what = "a slot can be expected in" if self.refused else "and can expect its slots in"
            wait = f", {what} about {duration_text(self.expected_wait)}"
        if self.refused:
            return f"A call would be refused now{wait}."
        return f"A call would be number {self.place} in line{wait}."


def explained(demands: Sequence[Demand], snapshots: Iterable[KeySnapshot]) -> Explanation:
    """Return the explanation for a call.

    Args:
        demands: what it would demand.
        snapshots: the state of their keys, in the same order.
    """
    keys: list[KeySnapshot] = []
    blocking: list[KeySnapshot] = []
    places: list[int] = []
    waits: list[float | None] = []
    refused = False
    for demand, snapshot in zip(demands, snapshots, strict=True):
        limit = demand.limit if snapshot.override is None else snapshot.override
        key = replace(snapshot, limit=limit, name=demand.name or snapshot.name)
        keys.append(key)
        refused |= demand.cost > demand.limit > 0
        ahead = _ahead(demand, key)
        if not (key.paused or ahead or key.in_use + demand.cost > key.limit):
            continue
        blocking.append(key)
        waiting = 0 if demand.on_conflict.supersedes else key.waiting
        refused |= demand.on_conflict is ConflictResolution.CANCEL
        refused |= not places and demand.max_waiting is not None and waiting >= demand.max_waiting
        places.append(ahead + 1)
        waits.append(_wait(key, ahead))
    known = [wait for wait in waits if wait is not None]
    return Explanation(
        tuple(keys),
        tuple(blocking),
        places[0] if places and not refused else None,
        max(known, default=0.0) if len(known) == len(waits) else None,
        refused,
    )


def held_by(holders: Sequence[HolderSnapshot]) -> str:
    """Return which calls hold slots, and for how long; empty if none does."""
    named = [
        f"{each.label or each.id} for {duration_text(each.held_for)}"
        for each in holders[:_HOLDERS_NAMED]
    ]
    if (more := len(holders) - len(named)) > 0:
        named.append(f"{more} more")
    last = named.pop() if named else ""
    return f"held by {', '.join(named)} and {last}" if named else last and f"held by {last}"


def _ahead(demand: Demand, key: KeySnapshot) -> int:
    """Return how many waiters would be served before a new call."""
    if demand.on_conflict.supersedes:
        return 0
    waiters = [each for each in key.waiters if not each.deferred]
    higher = [each for each in waiters if each.priority > demand.priority]
    equal = [each for each in waiters if each.priority == demand.priority]
    ahead = len(higher) + _ahead_by_group(demand.group, equal)
    if ahead == len(key.waiters):
        ahead += key.waiting - len(key.waiters)  # those that the snapshot does not show
    return ahead


def _ahead_by_group(group: str | None, waiters: Sequence[WaiterSnapshot]) -> int:
    """Return the number of waiters of the same priority before a new one of a fair group."""
    groups = Counter(each.group for each in waiters)
    if group is None:
        return groups.total()
    own = groups.pop(group, 0)
    # Each group is served once a round; waiters without one in the first round.
    alone = groups.pop(None, 0)
    return own + alone + sum(min(count, own + 1) for count in groups.values())


def _wait(key: KeySnapshot, ahead: int) -> float | None:
    time = hold_times.of(key.name)
    if time is None or key.paused or key.limit == 0:
        return None
    oldest = key.holders[0].held_for if key.holders else None
    return expected_wait(time.mean, key.limit, oldest, ahead)


def _state_of(key: KeySnapshot) -> str:
    if key.paused:
        state = f"is paused by an operator, {key.in_use} of {key.limit} slots are in use"
    elif key.limit == 0:
        state = "admits no call: its limit is 0"
    elif key.in_use == key.limit:
        state = f"is full: {key.in_use} of {key.limit} slots are in use"
    else:
        state = f"has {key.in_use} of {key.limit} slots in use"
    holders = held_by(key.holders)
    waiting = f"{key.waiting} {'call waits' if key.waiting == 1 else 'calls wait'}"
    parts = [f"{_called(key)} {state}", *([holders] if holders else [])]
    return f"{', '.join(parts)}{f'; {waiting}' if key.waiting else ''}."


def _dormant(dormant: DormantSnapshot, key: str) -> str:
    jobs = f"{dormant.waiting} {'job waits' if dormant.waiting == 1 else 'jobs wait'}"
    absent = dormant.absent_for
    since = "" if absent is None else f" for {duration_text(absent)}"
    return f"{jobs} on {key!r} for a worker of {dormant.name!r}: none was seen{since}."


def _called(key: KeySnapshot) -> str:
    return f"{key.key!r} ({key.name})" if key.name and key.name not in key.key else repr(key.key)
