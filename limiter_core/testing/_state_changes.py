"""Changes of single holders and tickets in the model of the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Loss, Refused, Replaced, Request
from limiter_core.testing._model_state import (
    Holding,
    ModelState,
    Waiting,
    demand_of,
    gate_of,
    keys_of,
)

Member = TypeVar("Member", Holding, Waiting)


def cancelling(blocking: list[Demand]) -> Demand | None:
    """Return the first of the blocking demands under which no call may wait."""
    cancel = ConflictResolution.CANCEL
    return next((demand for demand in blocking if demand.on_conflict is cancel), None)


def is_over(end: float | None, now: float) -> bool:
    """Whether a time has come."""
    return end is not None and end <= now


def ticket_end(request: Request, now: float) -> float | None:
    """Return when a ticket ends unless renewed; a durable one never does (S17)."""
    return now + request.lease if request.payload is None else None


def hold_end(request: Request, now: float) -> float | None:
    """Return when a hold that begins now ends in spite of renewals."""
    return None if request.max_hold is None else now + request.max_hold


class StateChanges(ModelState):
    """Changes of single holders and tickets, with the notifications that they cause."""

    def grant(self, ticket: Waiting, now: float, *, claimed: bool) -> None:
        """Give a ticket the slots that it demands."""
        declared = ticket.request.demands
        demands = tuple(self.judged(demand, now) for demand in declared)
        request = ticket.request._replace(demands=demands)
        expires_at = now + (request.lease if claimed else request.claim)
        ends_at = hold_end(request, now) if claimed else None
        self.holders.append(
            Holding(
                request,
                *ticket.arrival(),
                now,
                claimed,
                expires_at,
                ends_at,
                offers=ticket.offers,
                deferred_until=ticket.deferred_until,
                declared=declared,
            )
        )

    def change(self, member: Member, **values: Any) -> Member:
        """Replace a member by one that differs in these values."""
        members: list[Any] = self.holders if isinstance(member, Holding) else self.waiters
        other = replace(member, **values)
        members[members.index(member)] = other
        return other

    def remove(self, request_id: str) -> None:
        """Remove a lease or a ticket."""
        waiter = self.waiter(request_id)
        self.holders = [h for h in self.holders if h.request.id != request_id]
        self.waiters = [w for w in self.waiters if w.request.id != request_id]
        if waiter is not None:
            self._forget_empty_rounds(waiter.home)

    def dismiss(self, request: Request, answer: Refused | Replaced, now: float) -> None:
        """Remove a ticket (or a slot that was not claimed), and keep the answer."""
        self.remove(request.id)
        self.ended[request.id] = (answer, now)
        self.notify(request, type(answer))

    def _replace_older(self, member: Waiting | Holding, key: str, now: float) -> None:
        """Dismiss an older ticket, or unclaimed slot; a dormant one is notified later (S17)."""
        request = member.waiting_request()
        if self.is_present(gate_of(request), now):
            self.dismiss(request, Replaced(key), now)
        else:
            self.remove(request.id)
            kept = Waiting(request, *member.arrival(), now, None, key, evicted=True, replaced=True)
            self.waiters.append(kept)

    def enter_queue(self, ticket: Waiting, home: Demand, now: float) -> list[str]:
        """Put a ticket into a queue, and apply its conflict resolution to others.

        Returns:
            The keys on which slots may be free now.
        """
        freed: list[str] = []
        if home.on_conflict.supersedes:
            others = [
                waiter
                for waiter in self.waiters
                if waiter is not ticket and not waiter.evicted
                if home.key in keys_of(waiter.request)
            ]
            for waiter in others:
                supersedes = demand_of(waiter.request, home.key).on_conflict.supersedes
                if supersedes and ticket.arrival() < waiter.arrival():
                    self.dismiss(ticket.request, Replaced(home.key), now)
                    return keys_of(ticket.request)
            for waiter in others:
                if waiter.arrival() < ticket.arrival():
                    self._replace_older(waiter, home.key, now)
                    freed += keys_of(waiter.request)
            freed.append(home.key)
        self.enqueue(ticket, home, now)
        if home.on_conflict is ConflictResolution.CANCEL_RUNNING:
            freed += self._preempt(home, now)
        return freed

    def enqueue(self, ticket: Waiting, home: Demand, now: float) -> None:
        """Put a ticket into the queue of one of its keys."""
        fair_round = self.next_round(home, now)
        if home.group is not None:
            place = home.key, home.priority, home.group, gate_of(ticket.request)
            self.group_rounds[place] = max(fair_round, self.group_rounds.get(place, 0))
        self.change(ticket, home=home.key, round=fair_round)

    def dequeue(self, ticket: Waiting) -> Waiting:
        """Take a ticket out of its queue; it waits on, in none."""
        unqueued = self.change(ticket, home="")
        self._forget_empty_rounds(ticket.home)
        return unqueued

    def _preempt(self, home: Demand, now: float) -> list[str]:
        """Preempt the oldest holders for a demand; return the keys with slots that are free now."""
        if home.key in self.paused or home.cost > self.limit(home, now):
            return []  # no holder is in the way
        freed: list[str] = []
        holders = self.holders_of(home.key)
        missing = self.in_use(home.key) + home.cost - self.limit(home, now)
        missing -= sum(demand_of(h.request, home.key).cost for h in holders if h.preempted)
        for holder in holders:
            if missing <= 0:
                break
            if holder.preempted:
                continue
            missing -= demand_of(holder.request, home.key).cost
            if holder.claimed:
                self.change(holder, preempted=True)
                self.notify_end(holder, Loss.PREEMPTED)
            else:
                self._replace_older(holder, home.key, now)
                freed += keys_of(holder.request)
        return freed

    def _forget_empty_rounds(self, key: str) -> None:
        """Forget the rounds of groups, and of queues, that are empty."""
        waiting = [(demand_of(w.request, key), gate_of(w.request)) for w in self.queue(key)]
        groups = {(d.key, d.priority, d.group, name) for d, name in waiting}
        self.group_rounds = {
            group: last
            for group, last in self.group_rounds.items()
            if group[0] != key or group in groups
        }
        if not waiting:
            self.served_rounds = {
                place: last for place, last in self.served_rounds.items() if place[0] != key
            }

    # -- notifications -----------------------------------------------------------------------------

    def notify(self, request: Request, answer: type[object], *, delivered: bool = False) -> None:
        """Note that a ticket's waiting has ended, or a slot was not claimed in time."""
        if request.payload is not None:
            self.notifications.append(("notice", request.id, answer))
        if request.listener is not None:
            self.notifications.append(("woken", request.id, delivered and answer is Granted))

    def notify_end(self, holder: Holding, loss: Loss) -> None:
        """Note that a lease has ended, or has to end."""
        if holder.request.listener is not None:
            what, detail = ("lost", loss) if holder.claimed else ("woken", False)
            self.notifications.append((what, holder.request.id, detail))
