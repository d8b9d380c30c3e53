"""`KeyStatus`: what a list of keys shows of one key, from its snapshot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from limiter_core.keys import split_scope
from limiter_core.requests import NO_LIMIT, KeySnapshot

__all__ = ("KeyStatus", "adapters_in", "scope_of", "status_of")

_JOB = re.compile(r"(arq|docket|saq):")
"""How the tickets of jobs begin, and the adapters that name them so."""

_CELERY_TASK = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:\d+:\d+")


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key as of the last look at it.

    Attributes:
        key: the key's text.
        name: what its limit is called; empty if the store does not know it.
        scope: the scope in front of the key, decoded; None without one.
        adapters: the job queues whose jobs hold or wait (`celery`, `docket`, `arq`, `saq`), sorted;
            empty for calls.
        limit: the limit in force; None if it is not known, since nothing uses the key, or if the
            key bounds nothing.
        in_use: slots in use.
        waiting: tickets in line, without those that are dormant.
        dormant: tickets of queues without a worker.
        paused: whether an operator paused it.
        override: the operator's limit, None without one.
        declared: the numbers that holders and waiters declare, ascending.
        oldest_wait: seconds that the longest waiter of those shown in a snapshot waits; None if
            none waits.
        hand_offs: hand-offs seen in the last minute. A lower bound: a slot that was taken and
            given back between two looks is not seen.
        looked_at: when this was seen, on the collector's clock.
        unreadable: why the last look failed, if the store could not read the key's records; the
            rest is then of an earlier look.
    """

    key: str
    name: str
    scope: str | None
    adapters: tuple[str, ...]
    limit: int | None
    in_use: int
    waiting: int
    dormant: int
    paused: bool
    override: int | None
    declared: tuple[int, ...]
    oldest_wait: float | None
    hand_offs: int
    looked_at: float
    unreadable: str = ""

    @property
    def in_demand(self) -> bool:
        """Whether something holds it or waits for it, or an operator changed it."""
        return bool(
            self.in_use or self.waiting or self.dormant or self.paused or self.override is not None
        )

    @property
    def load(self) -> float:
        """Slots in use and tickets in line, relative to the limit; what "busiest first" goes by.

        A key whose limit is 0, or that is paused, counts as full as soon as a ticket waits.
        """
        if self.limit is None or self.limit <= 0:
            return float(self.in_use + self.waiting)
        return (self.in_use + self.waiting) / self.limit


def status_of(
    snapshot: KeySnapshot, *, looked_at: float, hand_offs: int, before: KeyStatus | None
) -> KeyStatus:
    """Return the status of a key by a snapshot.

    Args:
        snapshot: the snapshot.
        looked_at: when it was taken, on the collector's clock.
        hand_offs: seen in the last minute.
        before: the status before: what the store forgets of a key that nobody uses (its name and
            its limit) is kept from it.
    """
    known = bool(snapshot.declared) or snapshot.override is not None
    limit = snapshot.limit if known else before.limit if before else None
    waits = [each.waiting_for for each in snapshot.waiters]
    return KeyStatus(
        key=snapshot.key,
        name=snapshot.name or (before.name if before else ""),
        scope=scope_of(snapshot.key),
        adapters=adapters_in(snapshot) or (before.adapters if before else ()),
        limit=None if limit is None or limit >= NO_LIMIT else limit,
        in_use=snapshot.in_use,
        waiting=snapshot.waiting,
        dormant=sum(each.waiting for each in snapshot.dormant),
        paused=snapshot.paused,
        override=snapshot.override,
        declared=snapshot.declared,
        oldest_wait=max(waits, default=None),
        hand_offs=hand_offs,
        looked_at=looked_at,
    )


def scope_of(key: str) -> str | None:
    """Return the scope of a key, decoded, None without one."""
    scope, _ = split_scope(key)
    return None if scope is None else unquote(scope)


def adapters_in(snapshot: KeySnapshot) -> tuple[str, ...]:
    """Return the adapters whose jobs hold or wait, by their gates and by the form of their ids."""
    gates = [each.name for each in snapshot.waiters if each.name]
    gates += [each.name for each in snapshot.dormant]
    found = {gate.partition(":")[0] for gate in gates}
    for each in [*(each.id for each in snapshot.holders), *(each.id for each in snapshot.waiters)]:
        if job := _JOB.match(each):
            found.add(job[1])
        elif _CELERY_TASK.match(each):
            found.add("celery")
    return tuple(sorted(found))
