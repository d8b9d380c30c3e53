"""The rules S1 to S23, written to be obviously right, and slow: stores are compared with it.

A `Model` is the state of a store at one moment. Where the rules leave a choice (which of several
keys with free slots is served first, in which blocking key's queue a waiter is, whether a wake-up
carries the grant), it calls `choose`. `outcomes` runs an operation once for every way to choose, so
that the result of a store can be looked up among all that are allowed.

Four definitions, where the rules name a thing but not its number:

- the *fair round* of a waiter that enters a queue (S7) is one more than the later of two: the
  last round of which a grouped waiter was served, and the last round given to the waiters of its
  group; without a group, one more than the first of the two. Each priority counts its own rounds,
  anew whenever the queue was empty.
- *the oldest holders* under CANCEL_RUNNING are those of the oldest grants. Holders that were
  preempted before count as making room; one that has not claimed its slot makes room at once.
- a ticket that *lapses* (S17) is queued again after the waiters of that moment were served.
- when the last worker of a gate leaves, or the first arrives (S17), all keys on which jobs of any
  gate wait are served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from limiter_core.policies import Change, Policy, parsed_number
from limiter_core.requests import (
    Answer,
    Granted,
    Held,
    Loss,
    Mode,
    Presence,
    Queued,
    Refusal,
    Refused,
    Request,
)
from limiter_core.testing._choices import Choices
from limiter_core.testing._model_state import Holding, Waiting, demand_of, gate_of, keys_of
from limiter_core.testing._serving import Serving
from limiter_core.testing._state_changes import (
    cancelling,
    hold_end,
    ticket_end,
)
from limiter_core.tracing import carries_trace

__all__ = ("Model", "outcomes")

R = TypeVar("R")


class Model(Serving):
    """The state of a store, and how operations change it."""

    def acquire(self, request: Request, now: float) -> Answer:
        """Answer a request (S1)."""
        presence = request.presence
        if presence is not None and request.mode is not Mode.LOOK and not presence.leaving:
            if self.presences.get((presence.name, presence.worker), 0) <= now:
                self._update_presence(presence, now)
        self.reap(keys_of(request), now)
        if request.mode is Mode.LOOK:
            return self._look_for(request, now)
        known = self.holder(request.id) or self.waiter(request.id)
        if known is None and request.id not in self.ended:
            if (refused := self._admit(request, now)) is not None:
                return refused
        return self._status(request, now)

    def release(self, request_id: str, now: float) -> bool:
        """Remove a lease or a ticket (S5, S15, S19); its listener is not notified any more."""
        self.ended.pop(request_id, None)
        member = self.holder(request_id) or self.waiter(request_id)
        if member is None:
            return False
        keys = keys_of(member.request)
        self.reap(keys, now)
        found = (self.holder(request_id) or self.waiter(request_id)) is not None
        self.remove(request_id)
        self.notifications = [
            each for each in self.notifications if each[0] == "notice" or each[1] != request_id
        ]
        self.serve(keys, now)
        return found

    def renew(self, ids: Iterable[str], now: float) -> tuple[set[str], set[str]]:
        """Start lease times again; return which are gone, and which are preempted (S10)."""
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
        """Take a slot from its holder (S6)."""
        holder = self.holder(request_id)
        if holder is not None:
            self.reap(keys_of(holder.request), now)
            holder = self.holder(request_id)
        if holder is None:
            return False
        self.remove(request_id)
        if holder.claimed or holder.request.payload is None:
            self.notify_end(holder, Loss.EVICTED)
            self.serve(keys_of(holder.request), now)
        else:  # a job that has not claimed its slot
            self._requeue_lapsed([holder], keys_of(holder.request), now)
        return True

    def set_limit(self, key: str, limit: int | None, now: float) -> None:
        """Override the declared limits, or (None) return to them (S12)."""
        self.reap([key], now)
        self.note_name(key)
        self.overrides.pop(key, None)
        if limit is not None:
            self.overrides[key] = limit
        self.serve([key], now)

    def set_paused(self, key: str, paused: bool, now: float) -> None:
        """Admit no call, or admit calls again (S12)."""
        self.reap([key], now)
        self.note_name(key)
        self.paused.discard(key)
        if paused:
            self.paused.add(key)
        self.serve([key], now)

    def change_policy(self, change: Change, now: float) -> str:
        """Change what is in force for a name, and serve (S22); return what was in force before."""
        kind = "pause" if change.action in ("pause", "resume") else "limit"
        known = {
            (each.name, "pause" if each.paused else "limit"): each for each in self.in_force(now)
        }
        before = known.get((change.name, kind))
        self.policies.pop((change.name, kind), None)
        if change.action in ("set", "pause"):
            limit, percent = (None, None) if kind == "pause" else parsed_number(change.new)
            ends_at = None if change.lasts is None else now + change.lasts
            policy = Policy(change.name, limit, percent, ends_at=ends_at)
            self.policies[change.name, kind] = policy
        keys = {
            key
            for waiter in self.waiters
            if any(demand.name == change.name for demand in waiter.request.demands)
            for key in keys_of(waiter.request)
        }
        while keys:
            key = sorted(keys)[self.choose(len(keys))]
            keys.discard(key)
            self.reap([key], now)
        return "" if before is None else before.value

    def evict_waiter(self, request_id: str, now: float) -> bool:
        """End the waiting of a ticket, or of a slot that was not claimed (S19)."""
        member = self.holder(request_id) or self.waiter(request_id)
        if member is not None:
            self.reap(keys_of(member.request), now)
        holder, waiter = self.holder(request_id), self.waiter(request_id)
        if (holder is None or holder.claimed) and (waiter is None or waiter.evicted):
            return False
        member = holder or waiter
        assert member is not None
        request, home = (
            member.waiting_request(),
            waiter.home if waiter else keys_of(member.request)[0],
        )
        self.remove(request_id)
        if self.is_present(gate_of(request), now):
            refused = self._refusal(demand_of(request, home), now, Refusal.EVICTED)
            self.dismiss(request, refused, now)
        else:
            ticket = Waiting(request, *member.arrival(), now, None, home, evicted=True)
            self.waiters.append(ticket)
        self.serve(keys_of(request), now)
        return True

    def sweep(self, now: float, presence: Presence | None = None) -> None:
        """Reap the keys on which jobs wait or were handed a slot, in any order or at once (S17).

        The others, too, or not: their own processes reap them.
        """
        if presence is not None:
            self._update_presence(presence, now)
        if self.choose(2):
            if len(keys := self._keys_with_ended(now)) > 1 and self.choose(2):
                self._reap_together(keys, now)
            while keys := self._keys_with_ended(now):
                self.reap([keys[self.choose(len(keys))]], now)
        while keys := sorted(self._keys_of_jobs().intersection(self._keys_with_ended(now))):
            self.reap([keys[self.choose(len(keys))]], now)

    def _update_presence(self, presence: Presence, now: float) -> None:
        """Note that a worker is present, or leaves; serve the jobs that this concerns (S17)."""
        if self.update_presence(presence, now):
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

    # -- admission ---------------------------------------------------------------------------------

    def _admit(self, request: Request, now: float) -> Refused | None:
        """Grant a request, or let it wait; else return the refusal (S3, S8, S9, S13)."""
        for demand in request.demands:
            if demand.cost > demand.limit > 0:
                return self._refusal(demand, now, Refusal.COST)
        self.sequence += 1
        order = request.order
        if order is None:
            order = self.last_order = max(self.last_order + 1, int(now * 1_000_000))
        ticket = Waiting(request, order, self.sequence, now, ticket_end(request, now))
        if request.mode is Mode.RECLAIM:
            blocking = [demand for demand in request.demands if not self.fits(demand, now)]
        else:
            blocking = [d for d in request.demands if self.blocks(d, ticket.arrival(), now)]
        if not blocking:
            self._note_names(request)
            self.grant(ticket, now, claimed=True)
            return None
        if request.mode is not Mode.WAIT:
            return self._refusal(blocking[0], now, blocking=blocking)
        if (refusing := cancelling(blocking)) is not None:
            return self._refusal(refusing, now, blocking=blocking)
        home = blocking[self.choose(len(blocking))]
        waiting = 0 if home.on_conflict.supersedes else len(self.served_queue(home.key, now))
        if home.max_waiting is not None and waiting >= home.max_waiting:
            return self._refusal(home, now, Refusal.QUEUE_FULL, blocking)
        self._note_names(request)
        self.waiters.append(ticket)
        self.serve(self.enter_queue(ticket, home, now), now)
        return None

    def _note_names(self, request: Request) -> None:
        for demand in request.demands:
            self.note_name(demand.key, demand.name)

    def _look_for(self, request: Request, now: float) -> Answer:
        """Return the status of a request, and change nothing."""
        holder, waiter = self.holder(request.id), self.waiter(request.id)
        if holder is not None:
            return Held(_left(holder, now)) if holder.claimed else Granted(0, _left(holder, now))
        if waiter is not None and waiter.evicted:
            return self._end_of_evicted(waiter, now)
        if waiter is None and request.id not in self.ended:
            return self._refusal(request.demands[0], now, Refusal.UNKNOWN)
        return self._status(request, now)

    def _status(self, request: Request, now: float) -> Answer:
        """Return the status of a known request; claim its slot if it has one."""
        holder, waiter = self.holder(request.id), self.waiter(request.id)
        if waiter is not None and waiter.evicted:
            return self._end_evicted(waiter, now)
        if waiter is not None:
            if request.mode is not Mode.LOOK:
                labelled = waiter.request._replace(label=request.label)
                end = ticket_end(waiter.request, now)
                waiter = self.change(waiter, request=labelled, expires_at=end)
            demand = demand_of(waiter.request, waiter.home)
            limit = 0 if demand.key in self.paused else self.limit(demand, now)
            holders = self.holders_of(demand.key)
            traced = carries_trace(waiter.request.label)
            blocker = holders[0].request.label if traced and holders else ""
            in_use = self.in_use(demand.key)
            blocked_by: tuple[str, ...] = ()
            if len(waiter.request.demands) > 1:
                blocked_by = tuple(
                    each.key
                    for each in waiter.request.demands
                    if each is demand or self.blocks(each, waiter.arrival(), now)
                )
            return Queued(demand.key, limit, in_use, waiter.order, None, blocker, blocked_by)
        if holder is None:
            return self.ended[request.id][0]
        if holder.claimed and request.payload is not None:
            if holder.request.claimant != request.claimant:
                return Held(_left(holder, now))
        ends_at = holder.ends_at if holder.claimed else hold_end(request, now)
        # The slots that were handed over count, whatever the request that claims them demands.
        granted = holder.request.demands
        taker = holder.request if holder.claimed else request._replace(demands=granted)
        end = now + request.lease
        taken = self.change(holder, request=taker, claimed=True, expires_at=end, ends_at=ends_at)
        return Granted(0, _left(taken, now))


def outcomes(model: Model, operation: Callable[[Model], R]) -> list[tuple[Model, R]]:
    """Run an operation once for every way to choose; return each state then, and the result."""
    found: list[tuple[Model, R]] = []
    plans: list[list[int]] = [[]]
    while plans:
        plan = plans.pop()
        choices = Choices(plan)
        after = Model()
        after.copy_from(model)
        after.choose = choices.choose
        result = operation(after)
        if not any(after.same_as(other) and result == known for other, known in found):
            found.append((after, result))
        plans.extend(choices.alternatives())
    return found


def _left(holder: Holding, now: float) -> float | None:
    due = holder.due()
    return None if due is None else due - now


World = Model
"""The old name of `Model`; it goes with the next release."""
