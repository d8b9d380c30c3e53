"""Admission: the answers to requests, and what a new one takes or begins to wait for. Pure.

See `_machine`, of which this is a part.
"""

from __future__ import annotations

from collections.abc import Sequence

from limiter_core.requests import (
    Answer,
    Demand,
    Held,
    Queued,
    Refusal,
    Refused,
    Request,
    from_fields,
)
from limiter_core.tracing import SEPARATOR
from limiter_memory._answers import (
    granted,
    has_precedence,
    in_seconds,
    lease_end,
    microseconds,
    next_look,
    refusing_demand,
    ticket_end,
)
from limiter_memory._queues import CANCEL, RECLAIM, WAIT
from limiter_memory._reaping import Reaping
from limiter_memory._records import Holder, Ticket


class Admission(Reaping):
    """Where a request stands, and where a new one comes to stand."""

    def __init__(self) -> None:
        super().__init__()
        self._last_order = 0
        self._sequence = 0

    def _answer_look(self, request: Request, now: int) -> Answer:
        """Answer where a request stands, and change nothing."""
        holder = self.table.holders.get(request.id)
        if holder is not None and holder.claimed:
            return _held(holder, now)
        if holder is not None:
            return granted(holder, now)
        ticket = self.table.tickets.get(request.id)
        if ticket is not None and ticket.evicted:
            return self.end_of_evicted(ticket, now)
        if ticket is not None:
            return self._queued(ticket, now)
        self._forget_ended(now)
        if request.id in self._ended:
            return self._ended[request.id]
        self.table.state(request.demands[0].key)
        return self._refused(request, request.demands[0], now, Refusal.UNKNOWN)

    def _answer_holder(self, holder: Holder, request: Request, now: int) -> Answer:
        if holder.claimed and request.payload is not None:
            if holder.request.claimant != request.claimant:
                return _held(holder, now)
        waited = None
        if not holder.claimed:  # the waiter claims what was handed to it
            holder.claimed = True
            if request.payload is not None and holder.ticket is not None:
                waited = in_seconds(now - holder.ticket.since)
            # What was handed over counts, whatever the functions of the call answer today.
            holder.request = request._replace(demands=holder.request.demands)
            if request.max_hold is not None:
                holder.ends_at = now + microseconds(request.max_hold)
        elif holder.request.listener is not request.listener:  # the last to ask is notified
            holder.request = holder.request._replace(listener=request.listener)
        holder.expires_at = lease_end(request, now)
        self.table.note_end(holder)
        answer = granted(holder, now)
        return answer if waited is None else answer._replace(waited=waited)

    def _answer_new(self, request: Request, now: int) -> Answer:
        table = self.table
        sequence = self._sequence = self._sequence + 1
        order, demands = request.order, request.demands
        if order is None:
            order = now if now > self._last_order else self._last_order + 1
            self._last_order = order
        blocking: list[Demand] | None = None
        for demand in demands:
            key, cost, declared = demand.key, demand.cost, demand.limit
            state = table.keys.get(key) or table.state(key)
            limit = declared if state.override is None else state.override
            if cost > declared > 0:  # an override may change again: it may wait for that
                return self._refused(request, demand, now, Refusal.COST)
            if state.in_use + cost > limit or (
                (state.queue.live or state.paused or state.jobs)
                and request.mode is not RECLAIM
                and not has_precedence(state, demand, (order, sequence), table.presences, now)
            ):
                blocking = [demand] if blocking is None else [*blocking, demand]
        if blocking is None:
            table.note_names(demands)
            return granted(self._grant(request, order, sequence, now), now)
        home = blocking[0]
        if request.mode is not WAIT or len(blocking) > 1 or home.on_conflict is CANCEL:
            refusing = refusing_demand(request, blocking)
            if refusing is not None:
                return self._refused(request, refusing, now, blocking=blocking)
        if home.max_waiting is not None:
            # A call that supersedes all waiters finds the queue empty.
            in_line = table.keys[home.key].in_line(table.presences, now)
            in_queue = 0 if home.on_conflict.supersedes else sum(map(len, in_line))
            if in_queue >= home.max_waiting:
                return self._refused(request, home, now, Refusal.QUEUE_FULL, blocking)
        ends = None if request.listener is not None else ticket_end(request, now)
        waiting = request
        if request.payload is not None and request.listener is not None:
            waiting = request._replace(listener=None)  # no caller in this process waits for a job
        ticket = Ticket(waiting, order, sequence, now, ends, home)
        table.note_names(demands)
        table.add_ticket(ticket)
        to_serve = self._enter_queue(ticket, home, now)
        if not to_serve:
            return self._queued(ticket, now)
        self._serve(to_serve, now)
        return self._status(request, now)

    def _status(self, request: Request, now: int) -> Answer:
        """Return where a request stands that has just come in to wait."""
        if request.id in self.table.tickets:
            return self._queued(self.table.tickets[request.id], now)
        if request.id in self.table.holders:
            return self._answer_holder(self.table.holders[request.id], request, now)
        return self._ended[request.id]

    def _queued(self, ticket: Ticket, now: int) -> Queued:
        home = ticket.home
        state = self.table.keys[home.key]
        limit = 0 if state.paused else state.limit_for(home)
        look_again = None
        due = state.next_event()
        if due is not None:
            look_again = next_look(state, now)
            if state.queue.first() is ticket:
                state.watcher, state.watched = ticket, due
        blocker = ""
        request = ticket.request
        if SEPARATOR in request.label and state.holders:
            blocker = next(iter(state.holders.values())).request.label
        blocked_by: tuple[str, ...] = ()
        demands = request.demands
        if len(demands) > 1:
            elsewhere = self._blocked_elsewhere(ticket, now)
            blocked_by = tuple(d.key for d in demands if d is home or d in elsewhere)
        order, in_use = ticket.order, state.in_use
        # fmt: off
        return from_fields(Queued, (
            state.key, limit, in_use, order, look_again, blocker, blocked_by,
        ))
        # fmt: on

    def _refused(
        self,
        request: Request,
        demand: Demand,
        now: int,
        reason: Refusal = Refusal.FULL,
        blocking: Sequence[Demand] = (),
    ) -> Refused:
        answer = self._refusal(demand, now, reason, blocking)
        self.table.forget_all_idle(request.demands)
        return answer


def _held(holder: Holder, now: int) -> Held:
    due = holder.due()
    return Held(None if due is None else in_seconds(due - now))
