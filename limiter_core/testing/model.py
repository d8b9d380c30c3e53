"""The rules S1 to S19, written to be obviously right, and slow: what a store is compared with.

A `World` is all that is true of a store at one moment. It is no store: where the rules leave a
choice (which of several keys that came free is served first, in which blocking key's queue a
waiter sits, whether a wake-up brings the grant along), the world has somebody `choose`. `outcomes`
plays an operation once for every way to choose, so that what a store did can be looked up among
all that it may do.

Four definitions, where the rules name a thing but not how it is counted:

- the *fair round* of a waiter that comes into a queue (S7) is one more than the later of two: the
  last round of which a grouped waiter was served, and the last round given to the waiters of its
  group; without a group, one more than the first of the two. Each priority counts its own rounds,
  anew whenever the queue was empty.
- *the oldest holders* under CANCEL_RUNNING are those of the oldest grants; those who were asked to
  let go before count as making room; who has not taken up its slot yet makes room at once.
- a ticket that *lapses* (S17) is queued again after those were served who waited when it lapsed.
- when the last worker of a gate goes, or the first comes (S17), all keys on which jobs of any gate
  wait are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    Held,
    Loss,
    Mode,
    Presence,
    Queued,
    Refusal,
    Refused,
    Replaced,
    Request,
)
from limiter_core.store import DEFERRED, OFFERS
from limiter_core.testing._model_state import Holding, Waiting, demand_of, gate_of, keys_of
from limiter_core.testing._state_changes import Moves, cancelling, hold_end, is_over, ticket_end

__all__ = ("World", "outcomes")

R = TypeVar("R")


class World(Moves):
    """What is true of a store, and how operations change it."""

    def acquire(self, request: Request, now: float) -> Answer:
        """Answer a request (S1)."""
        presence = request.presence
        if presence is not None and request.mode is not Mode.LOOK and not presence.leaving:
            if self.presences.get((presence.name, presence.worker), 0) <= now:
                self._see(presence, now)
        self.reap(keys_of(request), now)
        if request.mode is Mode.LOOK:
            return self._look_for(request, now)
        known = self.holder(request.id) or self.waiter(request.id)
        if known is None and request.id not in self.ended:
            if (refused := self._let_in(request, now)) is not None:
                return refused
        return self._standing(request, now)

    def release(self, request_id: str, now: float) -> bool:
        """Remove a lease or a ticket (S5, S15, S19)."""
        self.ended.pop(request_id, None)
        member = self.holder(request_id) or self.waiter(request_id)
        if member is None:
            return False
        keys = keys_of(member.request)
        self.reap(keys, now)
        found = (self.holder(request_id) or self.waiter(request_id)) is not None
        self.remove(request_id)
        self.serve(keys, now)
        return found

    def renew(self, ids: Iterable[str], now: float) -> tuple[set[str], set[str]]:
        """Start lease times again; return which are gone, and which are to let go (S10)."""
        gone: set[str] = set()
        preempted: set[str] = set()
        for request_id in ids:
            member = self.holder(request_id) or self.waiter(request_id)
            if member is not None:
                self.reap(keys_of(member.request), now)
            holder, waiter = self.holder(request_id), self.waiter(request_id)
            if waiter is not None:
                self.change(waiter, expires_at=ticket_end(waiter.request, now))
            elif holder is None:
                gone.add(request_id)
            else:
                if holder.preempted:
                    preempted.add(request_id)
                if holder.claimed:  # a claim time is not prolonged
                    self.change(holder, expires_at=now + holder.request.lease)
        return gone, preempted

    def evict(self, request_id: str, now: float) -> bool:
        """Take a slot back (S6)."""
        holder = self.holder(request_id)
        if holder is not None:
            self.reap(keys_of(holder.request), now)
            holder = self.holder(request_id)
        if holder is None:
            return False
        self.remove(request_id)
        if holder.claimed or holder.request.payload is None:
            self.tell_end(holder, Loss.EVICTED)
            self.serve(keys_of(holder.request), now)
        else:  # a job that has not come for its slot yet
            self._pass_over([holder], keys_of(holder.request), now)
        return True

    def set_limit(self, key: str, limit: int | None, now: float) -> None:
        """Override the declared limits, or (None) return to them (S12)."""
        self.reap([key], now)
        self.overrides.pop(key, None)
        if limit is not None:
            self.overrides[key] = limit
        self.serve([key], now)

    def set_paused(self, key: str, paused: bool, now: float) -> None:
        """Admit nobody, or admit again (S12)."""
        self.reap([key], now)
        self.paused.discard(key)
        if paused:
            self.paused.add(key)
        self.serve([key], now)

    def evict_waiter(self, request_id: str, now: float) -> bool:
        """End the waiting of a ticket, or of a slot that nobody took up (S19)."""
        member = self.holder(request_id) or self.waiter(request_id)
        if member is not None:
            self.reap(keys_of(member.request), now)
        holder, waiter = self.holder(request_id), self.waiter(request_id)
        if (holder is None or holder.claimed) and (waiter is None or waiter.evicted):
            return False
        member = holder or waiter
        assert member is not None
        request, home = member.request, waiter.home if waiter else keys_of(member.request)[0]
        self.remove(request_id)
        if self.is_present(gate_of(request), now):
            refused = self._refusal(demand_of(request, home), Refusal.EVICTED)
            self.send_away(request, refused, now)
        else:
            ticket = Waiting(request, *member.arrival(), now, None, home, evicted=True)
            self.waiters.append(ticket)
        self.serve(keys_of(request), now)
        return True

    def sweep(self, now: float, presence: Presence | None = None) -> None:
        """Reap the keys on which jobs wait or were handed a slot, in any order or at once (S17).

        The others too, or not: their processes look after themselves.
        """
        if presence is not None:
            self._see(presence, now)
        if self.choose(2):
            if len(keys := self._keys_with_ended(now)) > 1 and self.choose(2):
                self._reap_together(keys, now)
            while keys := self._keys_with_ended(now):
                self.reap([keys[self.choose(len(keys))]], now)
        while keys := sorted(self._keys_of_jobs().intersection(self._keys_with_ended(now))):
            self.reap([keys[self.choose(len(keys))]], now)

    def _see(self, presence: Presence, now: float) -> None:
        """Note that a worker is there, or leaves; serve whom that concerns (S17)."""
        if self.see(presence, now):
            keys = sorted({w.home for w in self.waiters if gate_of(w.request)})
            while keys:
                key = keys.pop(self.choose(len(keys)))
                self.reap([key], now)
                self.serve([key], now)

    def _keys_of_jobs(self) -> set[str]:
        waiting = {waiter.home for waiter in self.waiters if waiter.request.payload is not None}
        offered = (
            holder.request
            for holder in self.holders
            if not holder.claimed and holder.request.payload is not None
        )
        return waiting.union(*map(keys_of, offered))

    # -- time --------------------------------------------------------------------------------------

    def reap(self, keys: Sequence[str], now: float) -> None:
        """Drop what ended on these keys, and serve who waits (S2)."""
        for key in keys:
            self._reap_together([key], now)

    def _reap_together(self, keys: Sequence[str], now: float) -> None:
        ended = [
            holder
            for holder in self.holders
            if is_over(holder.due(), now) and not set(keys).isdisjoint(keys_of(holder.request))
        ]
        dead = [w for w in self.waiters if w.home in keys and is_over(w.expires_at, now)]
        lapsed = [h for h in ended if not h.claimed and h.request.payload is not None]
        for number, holder in enumerate(lapsed):
            if self.is_present(gate_of(holder.request), now) and gate_of(holder.request):
                lapsed[number] = replace(holder, offers=holder.offers + 1)
        over = [*(holder.request for holder in ended), *(waiter.request for waiter in dead)]
        lapsed_ids = {holder.request.id for holder in lapsed}
        for request in over:
            self.remove(request.id)
        for holder in ended:
            if holder.request.id not in lapsed_ids:
                overran = is_over(holder.ends_at, now)
                self.tell_end(holder, Loss.OVERRAN if overran else Loss.EXPIRED)
        freed = [key for request in over for key in keys_of(request)]
        for waiter in [w for w in self.waiters if w.home in keys]:
            if is_over(waiter.deferred_until, now):
                self.change(waiter, deferred_until=None)
        freed += [w.home for w in self.waiters if w.home in keys and gate_of(w.request)]
        self._pass_over(sorted(lapsed, key=lambda holder: holder.due() or 0.0), freed, now)

    def _pass_over(self, lapsed: Sequence[Holding], freed: Sequence[str], now: float) -> None:
        self.serve(freed, now)
        for holder in lapsed:
            offers, until = holder.offers, holder.deferred_until
            until = None if is_over(until, now) else until
            if offers >= OFFERS:
                offers, until = 0, now + DEFERRED
            ticket = Waiting(
                holder.request,
                *holder.arrival(),
                now,
                None,
                offers=offers,
                deferred_until=until,
            )
            self.waiters.append(ticket)
            self.sit_down(ticket, holder.request.demands[0], now)
        if lapsed:
            self.serve(freed, now)

    def _keys_with_ended(self, now: float) -> list[str]:
        holders = [holder for holder in self.holders if is_over(holder.due(), now)]
        dead = [waiter.home for waiter in self.waiters if is_over(waiter.expires_at, now)]
        homes = {waiter.home for waiter in self.waiters}
        dead += [w.home for w in self.waiters if is_over(w.deferred_until, now)]
        dead += [key for key in homes if self._head_fits(key, now)]
        return sorted({*dead, *(key for holder in holders for key in keys_of(holder.request))})

    # -- coming in ---------------------------------------------------------------------------------

    def _let_in(self, request: Request, now: float) -> Refused | None:
        """Grant it, or let it wait; else return the refusal (S3, S8, S9, S13)."""
        for demand in request.demands:
            if demand.cost > demand.limit > 0:
                return self._refusal(demand, Refusal.COST)
        self.sequence += 1
        order = request.order
        if order is None:
            order = self.last_order = max(self.last_order + 1, int(now * 1_000_000))
        ticket = Waiting(request, order, self.sequence, now, ticket_end(request, now))
        if request.mode is Mode.RECLAIM:
            blocking = [demand for demand in request.demands if not self.fits(demand)]
        else:
            blocking = [d for d in request.demands if self.blocks(d, ticket.arrival(), now)]
        if not blocking:
            self.grant(ticket, now, claimed=True)
            return None
        if request.mode is not Mode.WAIT:
            return self._refusal(blocking[0])
        if (refusing := cancelling(blocking)) is not None:
            return self._refusal(refusing)
        home = blocking[self.choose(len(blocking))]
        in_line = 0 if home.on_conflict.supersedes else len(self.in_line(home.key, now))
        if home.max_waiting is not None and in_line >= home.max_waiting:
            return self._refusal(home, Refusal.QUEUE_FULL)
        self.waiters.append(ticket)
        self.serve(self.take_place(ticket, home, now), now)
        return None

    def _look_for(self, request: Request, now: float) -> Answer:
        """Return where a request stands, and change nothing."""
        holder, waiter = self.holder(request.id), self.waiter(request.id)
        if holder is not None:
            return Held(_left(holder, now)) if holder.claimed else Granted(0, _left(holder, now))
        if waiter is not None and waiter.evicted:
            return self._end_of_evicted(waiter)
        if waiter is None and request.id not in self.ended:
            return self._refusal(request.demands[0], Refusal.UNKNOWN)
        return self._standing(request, now)

    def _standing(self, request: Request, now: float) -> Answer:
        """Return where a known request stands; take its slot up if it has one."""
        holder, waiter = self.holder(request.id), self.waiter(request.id)
        if waiter is not None and waiter.evicted:
            return self._end_evicted(waiter, now)
        if waiter is not None:
            if request.mode is not Mode.LOOK:
                self.change(waiter, expires_at=ticket_end(waiter.request, now))
            demand = demand_of(waiter.request, waiter.home)
            limit = 0 if demand.key in self.paused else self.limit(demand)
            return Queued(demand.key, limit, self.in_use(demand.key), waiter.order, None)
        if holder is None:
            return self.ended[request.id][0]
        if holder.claimed and request.payload is not None:
            if holder.request.claimant != request.claimant:
                return Held(_left(holder, now))
        ends_at = holder.ends_at if holder.claimed else hold_end(request, now)
        # What was handed over counts, whatever the request that takes it up demands.
        granted = holder.request.demands
        taker = holder.request if holder.claimed else request._replace(demands=granted)
        end = now + request.lease
        taken = self.change(holder, request=taker, claimed=True, expires_at=end, ends_at=ends_at)
        return Granted(0, _left(taken, now))

    def _refusal(self, demand: Demand, reason: Refusal = Refusal.FULL) -> Refused:
        limit = 0 if demand.key in self.paused else self.limit(demand)
        return Refused(demand.key, limit, self.in_use(demand.key), None, reason)

    # -- serving -----------------------------------------------------------------------------------

    def serve(self, keys: Iterable[str], now: float) -> None:
        """Hand what is free to those whose turn it is, until no head of a queue fits (S6)."""
        pending = list(dict.fromkeys(keys))
        for waiter in [w for w in self.waiters if w.evicted and w.home in pending]:
            if self.is_present(gate_of(waiter.request), now):
                self._end_evicted(waiter, now)
        while ready := [key for key in pending if self._next_in_line(key, now)]:
            key = ready[self.choose(len(ready))]
            while (ticket := self._next_in_line(key, now)) is not None:
                pending.extend(self._attend(ticket, now))

    def _end_of_evicted(self, waiter: Waiting) -> Refused | Replaced:
        if waiter.replaced:
            return Replaced(waiter.home)
        return self._refusal(demand_of(waiter.request, waiter.home), Refusal.EVICTED)

    def _end_evicted(self, waiter: Waiting, now: float) -> Refused | Replaced:
        """Tell a gate of a job whose waiting ended while it had no worker."""
        answer = self._end_of_evicted(waiter)
        self.send_away(waiter.request, answer, now)
        return answer

    def _head_fits(self, key: str, now: float) -> bool:
        """Whether the first in a key's queue could be served; the dead do not count (S2)."""
        for waiter in self.in_line(key, now):
            if not is_over(waiter.expires_at, now):
                return key not in self.paused and self.fits(demand_of(waiter.request, key))
        return False

    def _next_in_line(self, key: str, now: float) -> Waiting | None:
        """Return the first in a key's queue if it fits there; the dead do not count (S2)."""
        for waiter in self.in_line(key, now):
            if is_over(waiter.expires_at, now):
                self.remove(waiter.request.id)
                continue
            fits = key not in self.paused and self.fits(demand_of(waiter.request, key))
            return waiter if fits else None
        return None

    def _attend(self, ticket: Waiting, now: float) -> list[str]:
        """Serve a ticket whose turn it is on its key; return the keys to be served for it (S9)."""
        others = [demand for demand in ticket.request.demands if demand.key != ticket.home]
        blocking = [demand for demand in others if self.blocks(demand, ticket.arrival(), now)]
        if not blocking:
            home = demand_of(ticket.request, ticket.home)
            if home.group is not None:
                served = self.served_rounds.get((home.key, home.priority), 0)
                self.served_rounds[home.key, home.priority] = max(served, ticket.round)
            self.remove(ticket.request.id)
            claimed = ticket.request.listener is not None and self.choose(2) == 1
            self.grant(ticket, now, claimed=claimed)
            self.tell(ticket.request, Granted, delivered=claimed)
            return []
        if (refusing := cancelling(blocking)) is not None:
            self.send_away(ticket.request, self._refusal(refusing), now)
            return []
        standing = self.stand_up(ticket)
        return self.take_place(standing, blocking[self.choose(len(blocking))], now)


def outcomes(world: World, operation: Callable[[World], R]) -> list[tuple[World, R]]:
    """Play an operation once for every way to choose; return what is true then, and its result."""
    found: list[tuple[World, R]] = []
    plans: list[list[int]] = [[]]
    while plans:
        plan = plans.pop()
        choices = _Choices(plan)
        after = World()
        after.take_over(world)
        after.choose = choices.choose
        result = operation(after)
        if not any(after.same_as(other) and result == known for other, known in found):
            found.append((after, result))
        plans.extend(choices.alternatives())
    return found


class _Choices:
    """Chooses as planned, then the first; remembers what else it could have chosen."""

    def __init__(self, plan: list[int]) -> None:
        self._plan = plan
        self._made: list[int] = []
        self._counts: list[int] = []

    def choose(self, count: int) -> int:
        """Return one of `count` choices."""
        position = len(self._made)
        self._made.append(self._plan[position] if position < len(self._plan) else 0)
        self._counts.append(count)
        return self._made[-1]

    def alternatives(self) -> list[list[int]]:
        """Return the plans that differ from what was chosen beyond the plan."""
        return [
            [*self._made[:position], choice]
            for position in range(len(self._plan), len(self._made))
            for choice in range(1, self._counts[position])
        ]


def _left(holder: Holding, now: float) -> float | None:
    due = holder.due()
    return None if due is None else due - now
