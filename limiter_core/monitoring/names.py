"""The keys of each limit's name, summed up: what metrics and a list of limits show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from limiter_core.monitoring.key_status import KeyStatus

__all__ = ("NameStatus", "by_name", "total_of")


@dataclass(frozen=True, slots=True)
class NameStatus:
    """All keys of one name.

    Attributes:
        name: the name of the limits; empty for keys whose name is not known.
        keys: keys in use.
        in_use: slots in use, of all of them.
        limit: the sum of their limits; keys whose limit is not known count as 0.
        waiting: tickets in line.
        dormant: tickets of queues without a worker.
        paused: keys that an operator paused.
        overridden: keys with an operator's limit.
        oldest_wait: seconds that the longest waiter waits; None if none waits.
        hand_offs: seen in the last minute, a lower bound.
    """

    name: str
    keys: int
    in_use: int
    limit: int
    waiting: int
    dormant: int
    paused: int
    overridden: int
    oldest_wait: float | None
    hand_offs: int


def by_name(statuses: Iterable[KeyStatus]) -> list[NameStatus]:
    """Return the sums over the keys in use, in the order of their names."""
    groups: dict[str, list[KeyStatus]] = {}
    for status in statuses:
        if status.in_demand:
            groups.setdefault(status.name, []).append(status)
    return [_sum_of(name, groups[name]) for name in sorted(groups)]


def total_of(name: str, parts: Iterable[NameStatus]) -> NameStatus:
    """Return the sum of several names, under another one."""
    parts = list(parts)
    waits = [each.oldest_wait for each in parts if each.oldest_wait is not None]
    return NameStatus(
        name=name,
        keys=sum(each.keys for each in parts),
        in_use=sum(each.in_use for each in parts),
        limit=sum(each.limit for each in parts),
        waiting=sum(each.waiting for each in parts),
        dormant=sum(each.dormant for each in parts),
        paused=sum(each.paused for each in parts),
        overridden=sum(each.overridden for each in parts),
        oldest_wait=max(waits, default=None),
        hand_offs=sum(each.hand_offs for each in parts),
    )


def _sum_of(name: str, keys: list[KeyStatus]) -> NameStatus:
    waits = [each.oldest_wait for each in keys if each.oldest_wait is not None]
    return NameStatus(
        name=name,
        keys=len(keys),
        in_use=sum(each.in_use for each in keys),
        limit=sum(each.limit or 0 for each in keys),
        waiting=sum(each.waiting for each in keys),
        dormant=sum(each.dormant for each in keys),
        paused=sum(each.paused for each in keys),
        overridden=sum(each.override is not None for each in keys),
        oldest_wait=max(waits, default=None),
        hand_offs=sum(each.hand_offs for each in keys),
    )
