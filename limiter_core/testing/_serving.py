"""Serving in the model of the rules: what has ended is reaped, and freed slots are handed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from limiter_core.requests import Demand, Granted, Loss, Refusal, Refused, Replaced
from limiter_core.store import DEFERRED, OFFERS
from limiter_core.testing._model_state import Holding, Waiting, demand_of, gate_of, keys_of
from limiter_core.testing._state_changes import StateChanges, cancelling, is_over


class Serving(StateChanges):
    """What follows when a lease or a ticket ends, or a limit changes."""

    # -- time --------------------------------------------------------------------------------------

    def reap(self, keys: Sequence[str], now: float) -> None:
        """Remove what ended on these keys, and serve the waiters (S2)."""
        for key in keys:
            self._reap_together([key], now)

    def _reap_together(self, keys: Sequence[str], now: float) -> None:
        ended = [
            holder
            for holder in self.holders
            if is_over(holder.due(), now) and not set(keys).isdisjoint(keys_of(holder.request))
        ]
        expired = [w for w in self.waiters if w.home in keys and is_over(w.expires_at, now)]
        lapsed = [h for h in ended if not h.claimed and h.request.payload is not None]
        for number, holder in enumerate(lapsed):
            if self.is_present(gate_of(holder.request), now) and gate_of(holder.request):
                lapsed[number] = replace(holder, offers=holder.offers + 1)
        over = [*(holder.request for holder in ended), *(waiter.request for waiter in expired)]
        lapsed_ids = {holder.request.id for holder in lapsed}
        for request in over:
            self.remove(request.id)
        for holder in ended:
            if holder.request.id not in lapsed_ids:
                overran = is_over(holder.ends_at, now)
                self.notify_end(holder, Loss.OVERRAN if overran else Loss.EXPIRED)
        freed = [key for request in over for key in keys_of(request)]
        for waiter in [w for w in self.waiters if w.home in keys]:
            if is_over(waiter.deferred_until, now):
                self.change(waiter, deferred_until=None)
        freed += [w.home for w in self.waiters if w.home in keys]
        self._requeue_lapsed(sorted(lapsed, key=lambda holder: holder.due() or 0.0), freed, now)

    def _requeue_lapsed(self, lapsed: Sequence[Holding], freed: Sequence[str], now: float) -> None:
        self.serve(freed, now)
        for holder in lapsed:
            offers, until = holder.offers, holder.deferred_until
            until = None if is_over(until, now) else until
            if offers >= OFFERS:
                offers, until = 0, now + DEFERRED
            ticket = Waiting(
                holder.waiting_request(),
                *holder.arrival(),
                now,
                None,
                offers=offers,
                deferred_until=until,
            )
            self.waiters.append(ticket)
            self.enqueue(ticket, holder.declared[0], now)
        if lapsed:
            self.serve(freed, now)

    def _keys_with_ended(self, now: float) -> list[str]:
        holders = [holder for holder in self.holders if is_over(holder.due(), now)]
        expired = [waiter.home for waiter in self.waiters if is_over(waiter.expires_at, now)]
        homes = {waiter.home for waiter in self.waiters}
        expired += [w.home for w in self.waiters if is_over(w.deferred_until, now)]
        expired += [key for key in homes if self._head_fits(key, now)]
        return sorted({*expired, *(key for holder in holders for key in keys_of(holder.request))})

    # -- handing on -------------------------------------------------------------------------------

    def serve(self, keys: Iterable[str], now: float) -> None:
        """Hand free slots to the heads of the queues, until no head fits (S6)."""
        pending = list(dict.fromkeys(keys))
        for waiter in [w for w in self.waiters if w.evicted and w.home in pending]:
            if self.is_present(gate_of(waiter.request), now):
                self._end_evicted(waiter, now)
        while ready := [key for key in pending if self._servable_head(key, now)]:
            key = ready[self.choose(len(ready))]
            while (ticket := self._servable_head(key, now)) is not None:
                pending.extend(self._serve_ticket(ticket, now))

    def _end_of_evicted(self, waiter: Waiting, now: float) -> Refused | Replaced:
        if waiter.replaced:
            return Replaced(waiter.home)
        return self._refusal(demand_of(waiter.request, waiter.home), now, Refusal.EVICTED)

    def _end_evicted(self, waiter: Waiting, now: float) -> Refused | Replaced:
        """Notify a gate of a job whose waiting ended while it had no worker."""
        answer = self._end_of_evicted(waiter, now)
        self.dismiss(waiter.request, answer, now)
        return answer

    def _head_fits(self, key: str, now: float) -> bool:
        """Whether the first in a key's queue could be served; ended tickets do not count (S2)."""
        for waiter in self.served_queue(key, now):
            if not is_over(waiter.expires_at, now):
                return key not in self.paused and self.fits(demand_of(waiter.request, key), now)
        return False

    def _servable_head(self, key: str, now: float) -> Waiting | None:
        """Return the first in a key's queue if it fits; ended tickets do not count (S2)."""
        for waiter in self.served_queue(key, now):
            if is_over(waiter.expires_at, now):
                self.remove(waiter.request.id)
                continue
            fits = key not in self.paused and self.fits(demand_of(waiter.request, key), now)
            return waiter if fits else None
        return None

    def _serve_ticket(self, ticket: Waiting, now: float) -> list[str]:
        """Serve the head of a queue; return the keys to be served for it (S9)."""
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
            self.notify(ticket.request, Granted, delivered=claimed)
            return []
        if (refusing := cancelling(blocking)) is not None:
            self.dismiss(ticket.request, self._refusal(refusing, now, blocking=blocking), now)
            return []
        unqueued = self.dequeue(ticket)
        return self.enter_queue(unqueued, blocking[self.choose(len(blocking))], now)

    def _refusal(
        self,
        demand: Demand,
        now: float,
        reason: Refusal = Refusal.FULL,
        blocking: Sequence[Demand] = (),
    ) -> Refused:
        limit = 0 if demand.key in self.paused else self.limit(demand, now)
        held_for = [now - holder.since for holder in self.holders_of(demand.key)]
        return Refused(
            demand.key,
            limit,
            self.in_use(demand.key),
            max(held_for, default=None),
            reason,
            len(self.served_queue(demand.key, now)),
            tuple(each.key for each in blocking) if len(blocking) > 1 else (),
        )
