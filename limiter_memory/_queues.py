"""Which waiter is served next, and which holder is preempted: the rules of admission and queues.

The lower half of the state machine: what any step does with free slots, and with a ticket that
enters a queue (S3, S6 to S9, the conflict resolutions).
"""

from __future__ import annotations

from collections.abc import Sequence

from limiter_core.limits import ConflictResolution
from limiter_core.requests import (
    Demand,
    Loss,
    Mode,
    Refusal,
    Refused,
    Replaced,
    Request,
)
from limiter_memory._answers import (
    granted,
    has_precedence,
    in_seconds,
    microseconds,
    refusing_demand,
)
from limiter_memory._notifications import Notifications
from limiter_memory._records import Holder, KeyState, Ticket

# An enum's members take their time to be looked up.
RECLAIM = Mode.RECLAIM
WAIT = Mode.WAIT
LOOK = Mode.LOOK
CANCEL = ConflictResolution.CANCEL


class Queues(Notifications):
    """The key table, and how it changes when slots become free or a call has to wait."""

    # -- admission -------------------------------------------------------------------------------

    def _blocked_elsewhere(self, ticket: Ticket, now: int) -> list[Demand]:
        """Return the demands, other than at home, that the head of a queue cannot have met now."""
        keys, presences = self.table.keys, self.table.presences
        return [
            demand
            for demand in ticket.request.demands
            if demand is not ticket.home
            and not (
                (state := keys[demand.key]).fits(demand)
                and has_precedence(state, demand, (ticket.order, ticket.sequence), presences, now)
            )
        ]

    def _grant(
        self, request: Request, order: int, sequence: int, now: int, *, handed_over: bool = False
    ) -> Holder:
        token = now if now > self._last_token else self._last_token + 1
        if request.mode is RECLAIM and request.fencing_token is not None:
            token = request.fencing_token  # the same lease, so the same number
            self._last_token = max(self._last_token, token)
        else:
            self._last_token = token
        # A waiter in this process takes its slot up as it is woken; any other has to come for it.
        has_listener, max_hold = request.listener is not None, request.max_hold
        claimed = not handed_over or has_listener
        holder = Holder(request, token, now, order, sequence, claimed)
        if not has_listener:
            holder.expires_at = now + microseconds(request.lease if claimed else request.claim)
        if claimed and max_hold is not None:
            holder.ends_at = now + microseconds(max_hold)
        self.table.add_holder(holder)
        if holder.ends_at is not None and not handed_over:
            for demand in request.demands:
                self._set_watcher(demand.key)
        return holder

    def _serve(self, keys: Sequence[str], now: int) -> None:
        """Hand what is free on these keys to the waiters whose turn it is (S6), then tidy up.

        Afterwards the head of no queue fits its own key: no call waits while a slot is free.
        """
        work = list(keys)
        touched = keys
        while work:
            state = self.table.keys.get(work.pop())
            if state is not None and (state.queue.live or state.jobs or state.evicted):
                more = self._serve_key(state, now)
                if more:
                    work.extend(more)
                    touched = [*touched, *more]
        for key in touched:
            if self.table.expiring:
                self._set_watcher(key)
            self.table.forget_idle(key)

    def _serve_if_waiting(self, key: str, now: int) -> None:
        """Do what `_serve` does, in fewer steps, for one key."""
        state = self.table.keys.get(key)
        if state is not None and (state.queue.live or state.jobs or state.evicted):
            more = self._serve_key(state, now)
            if more:
                self._serve([key, *more], now)
                return
        if self.table.expiring:
            self._set_watcher(key)
        self.table.forget_idle(key)

    def _serve_key(self, state: KeyState, now: int) -> list[str]:
        """Serve one key; returns other keys that have to be served, or looked after, for it."""
        more: list[str] = []
        presences = self.table.presences
        if state.evicted:
            self._notify_evicted(state, now)
        queue, jobs = state.queue, state.jobs
        while (ticket := state.head(presences, now) if jobs else queue.first()) is not None:
            home, demands = ticket.home, ticket.request.demands
            if ticket.expires_at is not None and ticket.expires_at <= now:
                more.extend(demand.key for demand in demands)
                self._remove_ticket(ticket)  # it lapsed, and was not reaped yet (S16)
                continue
            limit = home.limit if state.override is None else state.override
            if state.paused or state.in_use + home.cost > limit:
                break  # a wide waiter blocks those behind it (S8)
            if len(demands) > 1:
                more.extend(demand.key for demand in demands)
                blocking = self._blocked_elsewhere(ticket, now)
                if blocking:
                    more.extend(self._wait_elsewhere(ticket, blocking, now))
                    continue
            self._hand_over(state, ticket, now)
        if state.jobs:
            # The waiters behind a job are served when the last worker leaves that can wake it.
            name = "" if ticket is None else ticket.name
            state.recheck = presences.until(name) if name else 0
        return more

    def _notify_evicted(self, state: KeyState, now: int) -> None:
        """Notify the gates that have a worker again of their jobs that were evicted meanwhile."""
        for name in [name for name in state.evicted if self.table.presences.has(name, now)]:
            for ticket in list(state.evicted[name].values()):
                self.end_evicted(ticket, now)

    def end_of_evicted(self, ticket: Ticket, now: int) -> Refused | Replaced:
        """Return the answer for a ticket that `keep_evicted` kept."""
        if ticket.replaced:
            return Replaced(ticket.home.key)
        return self._refusal(ticket.home, now, Refusal.EVICTED)

    def end_evicted(self, ticket: Ticket, now: int) -> Refused | Replaced:
        """Forget a ticket that was kept until its gate could be notified."""
        answer = self.end_of_evicted(ticket, now)
        self._remember(ticket.request, answer, now)
        self.table.forget_evicted(ticket)
        return answer

    def _set_watcher(self, key: str) -> None:
        """Have the first call in a queue look at its key when the next lease or ticket ends.

        A store without a thread notices an end only in a step; so a waiter makes one in time.
        """
        state = self.table.keys.get(key)
        if state is None or not (state.expiries.live or state.recheck):
            return
        head, due = state.queue.first(), state.next_event()
        if head is None or due is None or (head is state.watcher and state.watched <= due):
            return
        state.watcher, state.watched = head, due
        if head.request.listener is not None:
            self.calls.append((head.request, None))

    def _wait_elsewhere(self, ticket: Ticket, blocking: Sequence[Demand], now: int) -> list[str]:
        """Let a ticket wait on in the queue of a key that blocks it (S9), or end it.

        Returns:
            The keys that have to be served afterwards.
        """
        refusing = refusing_demand(ticket.request, blocking)
        if refusing is not None:
            refused = self._refusal(refusing, now, blocking=blocking)
            self._end_ticket(ticket, refused, now)
            return []
        self.table.dequeue(ticket)
        return self._enter_queue(ticket, blocking[0], now)

    def _hand_over(self, state: KeyState, ticket: Ticket, now: int) -> None:
        home, request = ticket.home, ticket.request
        if home.group is not None:
            state.fair_rounds().served(home.priority, home.group, ticket.round)
        self.table.remove_first(state, ticket)
        holder = self._grant(request, ticket.order, ticket.sequence, now, handed_over=True)
        holder.ticket = ticket
        self.notify(request, granted(holder, now))
        del self.table.tickets[request.id]

    # -- waiting ---------------------------------------------------------------------------------

    def _enter_queue(self, ticket: Ticket, home: Demand, now: int) -> list[str]:
        """Put a ticket into a key's queue, and apply its conflict resolution to others.

        Returns:
            The keys that have to be served afterwards.
        """
        state = self.table.keys[home.key]
        if not home.on_conflict.supersedes:
            self.table.enqueue(ticket, home, now)
            if ticket.name:
                self._set_watcher(home.key)
            return []
        if self._is_superseded(state, ticket):
            self._remember(ticket.request, Replaced(home.key), now)
            self.table.remove_ticket(ticket)
            return [demand.key for demand in ticket.request.demands]
        to_serve = [home.key]
        for other in list(state.waiting()):
            if other is not ticket and other.older_than(ticket):
                to_serve.extend(demand.key for demand in other.request.demands)
                if self.table.presences.has(other.name, now):
                    self._end_ticket(other, Replaced(home.key), now)
                else:
                    self.table.dequeue(other)
                    self._keep_replaced(other, home.key)
        self.table.enqueue(ticket, home, now)
        if home.on_conflict is ConflictResolution.CANCEL_RUNNING:
            to_serve.extend(self._preempt(state, home, now))
        return to_serve

    def _keep_replaced(self, ticket: Ticket, key: str) -> None:
        """Keep an unqueued ticket until its gate has a worker to notify of the supersession."""
        ticket.home = next(demand for demand in ticket.request.demands if demand.key == key)
        ticket.replaced = True
        self.table.keep_evicted(ticket)

    def lapse(self, holder: Holder, now: int) -> Ticket:
        """Make a ticket of a job that did not claim its slot; it is in no queue yet."""
        request, before = holder.request, holder.ticket
        since = now if before is None else before.since
        ticket = Ticket(request, holder.order, holder.sequence, since, None, request.demands[0])
        if before is not None:
            ticket.offers, ticket.deferred_until = before.offers, before.deferred_until
            ticket.declared = before.declared
        self.judge(ticket, now)
        self.table.tickets[request.id] = ticket
        self.table.remove_holder(holder)
        return ticket

    def _is_superseded(self, state: KeyState, ticket: Ticket) -> bool:
        """Whether a newer call took this one's place before it came (jobs ask out of order)."""
        return any(
            ticket.older_than(other)
            and any(d.key == state.key and d.on_conflict.supersedes for d in other.request.demands)
            for other in state.waiting()
        )

    def _preempt(self, state: KeyState, demand: Demand, now: int) -> list[str]:
        """Preempt the oldest holders until the demand would fit; return the keys that lost one."""
        limit = state.limit_for(demand)
        if state.paused or demand.cost > limit:
            return []  # no holder is in the way: no call is admitted
        lost: list[str] = []
        missing = state.in_use + demand.cost - limit
        missing -= sum(_cost(h, state.key) for h in state.holders.values() if h.preempted)
        for holder in [holder for holder in state.holders.values() if not holder.preempted]:
            if missing <= 0:
                break
            missing -= _cost(holder, state.key)
            request = holder.request
            if holder.claimed:
                if request.listener is not None:
                    self.calls.append((request, Loss.PREEMPTED))
                holder.preempted = True
            else:  # handed over, but not claimed: for its caller it still waits
                lost.extend(demand.key for demand in request.demands)
                name = "" if request.presence is None else request.presence.name
                if request.payload is None or self.table.presences.has(name, now):
                    self._remember(request, Replaced(state.key), now)
                    self.table.remove_holder(holder)
                else:
                    ticket = self.lapse(holder, now)
                    self.table.add_ticket(ticket)
                    self._keep_replaced(ticket, state.key)
        return lost

    def _remove_ticket(self, ticket: Ticket) -> None:
        self.table.dequeue(ticket)
        self.table.remove_ticket(ticket)

    def _end_ticket(self, ticket: Ticket, answer: Refused | Replaced, now: int) -> None:
        """Remove a ticket that did not ask for it, and keep the answer for when it asks."""
        self._remember(ticket.request, answer, now)
        self._remove_ticket(ticket)

    def _refusal(
        self,
        demand: Demand,
        now: int,
        reason: Refusal = Refusal.FULL,
        blocking: Sequence[Demand] = (),
    ) -> Refused:
        state = self.table.state(demand.key)
        limit = 0 if state.paused else state.limit_for(demand)
        waiting = sum(map(len, state.in_line(self.table.presences, now)))
        blocked_by = tuple(each.key for each in blocking) if len(blocking) > 1 else ()
        held_for = None
        for oldest in state.holders.values():
            held_for = in_seconds(now - oldest.since)
            break
        return Refused(demand.key, limit, state.in_use, held_for, reason, waiting, blocked_by)

    # -- policies --------------------------------------------------------------------------------

    def declare_again(self, ticket: Ticket, now: int) -> None:
        """Have a queued ticket judged by the policies in force; `_serve` has to follow (S22)."""
        self.judge(ticket, now)
        self.table.note_end(ticket)

    def judge(self, ticket: Ticket, now: int) -> None:
        """Have a ticket judged by the policies in force (S22)."""
        if not self.policies.settings and ticket.declared is None:
            return
        declared = ticket.request.demands if ticket.declared is None else ticket.declared
        demands = self.policies.judged(declared, now)
        ticket.declared = declared
        if demands != ticket.request.demands:
            home = next(demand for demand in demands if demand.key == ticket.home.key)
            ticket.request = ticket.request._replace(demands=demands)
            ticket.home = home
        ticket.policy_ends = self.policies.next_end(declared, now)


def _cost(holder: Holder, key: str) -> int:
    return next(demand.cost for demand in holder.request.demands if demand.key == key)
