"""The table of all keys, their holders and tickets: always consistent, and without rules.

Each method moves one holder or ticket and updates everything that is derived from it: the
slots in use, the queues, the notes of what ends when. All of that can be made anew from `holders`,
`tickets` and what an operator set: so the table recovers from an interrupted step. These change
first, or last (see `_recovery`).
"""

from __future__ import annotations

from collections.abc import Iterable

from limiter_core.requests import Demand
from limiter_memory._heap import Heap
from limiter_memory._presence import Presences
from limiter_memory._records import FairRounds, Holder, KeyState, Ticket

_IDLE_KEYS = 64


class KeyTable:
    """All keys of one store, their holders and tickets."""

    __slots__ = ("expiring", "holders", "idle", "keys", "presences", "tickets")

    def __init__(self) -> None:
        self.keys: dict[str, KeyState] = {}
        self.holders: dict[str, Holder] = {}
        self.tickets: dict[str, Ticket] = {}
        self.expiring: dict[str, None] = {}
        """Keys on which a lease, a ticket or the presence of a worker can end; only these need to
        be reaped."""
        self.presences = Presences()
        self.idle: dict[str, None] = {}
        """The last keys that were in use no more, which are kept; some may be in use again."""

    # -- keys ------------------------------------------------------------------------------------

    def state(self, key: str) -> KeyState:
        """Return the state of a key, a new one if it was not in use."""
        state = self.keys.get(key)
        if state is None:
            state = self.keys[key] = KeyState(key)
        return state

    def forget_idle(self, key: str) -> None:
        """Forget a key that is not in use any more (S14).

        Not at once: the last few are kept for the next call, which most often is for one of them.
        """
        if key in self.idle:
            return
        state = self.keys.get(key)
        if state is not None and not state.holders and state.idle():
            self.idle[key] = None
            if len(self.idle) > _IDLE_KEYS:
                oldest = next(iter(self.idle))
                del self.idle[oldest]
                if self.keys[oldest].idle():
                    del self.keys[oldest]

    def forget_all_idle(self, demands: Iterable[Demand]) -> None:
        """Forget those of the demanded keys that are not in use any more."""
        for demand in demands:
            self.forget_idle(demand.key)

    def note_names(self, demands: Iterable[Demand]) -> None:
        """Note the names of the limits with which a new request was admitted or queued (S20)."""
        for demand in demands:
            state, name = self.keys[demand.key], demand.name
            if name:
                state.name = name
            elif state.name and state.idle():
                state.name = ""

    def in_use(self) -> list[str]:
        """Return the keys in use."""
        return [key for key, state in self.keys.items() if not state.idle()]

    # -- holders ---------------------------------------------------------------------------------

    def add_holder(self, holder: Holder) -> None:
        """Give a holder the slots it demands, whatever is in use."""
        request = holder.request
        request_id = request.id
        self.holders[request_id] = holder
        for demand in request.demands:
            key = demand.key
            state = self.keys.get(key) or self.state(key)
            state.in_use += demand.cost
            state.holders[request_id] = holder
        if holder.expires_at is not None or holder.ends_at is not None:
            self.note_end(holder)

    def remove_holder(self, holder: Holder) -> None:
        """Take its slots back."""
        request = holder.request
        request_id = request.id
        del self.holders[request_id]
        for demand in request.demands:
            key = demand.key
            state = self.keys[key]
            state.in_use -= demand.cost
            del state.holders[request_id]
            if self.expiring and key in self.expiring:
                self._forget_end(state, holder)

    # -- tickets: in the queue of one key, or unqueued (waiting on all keys) -----------------------

    def add_ticket(self, ticket: Ticket) -> None:
        """Add a ticket, in no queue yet."""
        request = ticket.request
        self.tickets[request.id] = ticket
        if len(request.demands) > 1:
            for demand in request.demands:
                self.state(demand.key).elsewhere[request.id] = ticket

    def enqueue(self, ticket: Ticket, home: Demand, now: int, round_: int | None = None) -> None:
        """Put a ticket into the queue of one of its keys; in a new round, unless one is given."""
        state = self.keys.get(home.key) or self.state(home.key)
        ticket.home = home
        rounds = state.rounds
        if round_ is None:
            round_ = 1 if rounds is None else state.next_round(home, self.presences, now)
        ticket.round = round_
        if home.group is not None:
            if rounds is None:
                rounds = state.rounds = FairRounds()
            rounds.enter(ticket)
        name = ticket.name
        if not name:
            state.queue.push(ticket.rank(), ticket)
        else:
            heap = state.jobs.get(name)
            if heap is None:
                heap = state.jobs[name] = Heap[Ticket]()
            heap.push(ticket.rank(), ticket)
            self.expiring[home.key] = None
            until = self.presences.until(name)
            if until > now and not 0 < state.recheck <= until:
                state.recheck = until
        if len(ticket.request.demands) > 1:
            del state.elsewhere[ticket.request.id]
        if ticket.due() is not None:
            self.note_end(ticket)

    def take_place_again(self, ticket: Ticket) -> None:
        """Let a ticket that was deferred take its place in its queue again."""
        state = self.keys[ticket.home.key]
        heap = state.heap_of(ticket)
        heap.remove(ticket)
        ticket.deferred_until = None
        heap.push(ticket.rank(), ticket)
        self._forget_end(state, ticket)

    def dequeue(self, ticket: Ticket) -> None:
        """Take a ticket out of its queue; it still waits."""
        state = self.keys[ticket.home.key]
        state.heap_of(ticket).remove(ticket)
        self._left(state, ticket)
        if len(ticket.request.demands) > 1:
            state.elsewhere[ticket.request.id] = ticket

    def _left(self, state: KeyState, ticket: Ticket) -> None:
        """Update what depends on a ticket's place in a queue that it has left."""
        if state.watcher is ticket:
            state.watcher = None
        if ticket.name and not state.jobs[ticket.name].live:
            del state.jobs[ticket.name]
            if not state.jobs:
                state.recheck = 0
        if state.rounds is not None:
            state.rounds.leave(ticket)
            if not state.queue.live and not state.jobs:
                state.rounds = None
        if self.expiring and state.key in self.expiring:
            self._forget_end(state, ticket)

    def remove_first(self, state: KeyState, ticket: Ticket) -> None:
        """Take the first of its part of a queue out of it; `tickets` has it until it holds."""
        name, demands = ticket.name, ticket.request.demands
        (state.jobs[name] if name else state.queue).pop_first()
        if name or state.rounds is not None or state.watcher is not None or self.expiring:
            self._left(state, ticket)
        if len(demands) > 1:
            for demand in demands:
                if demand is not ticket.home:
                    del self.keys[demand.key].elsewhere[ticket.request.id]

    def keep_evicted(self, ticket: Ticket) -> None:
        """Keep an unqueued ticket until its gate can be notified that its waiting is over."""
        key = ticket.home.key
        ticket.offers, ticket.deferred_until = 0, None
        ticket.evicted = True
        if len(ticket.request.demands) > 1:
            for demand in ticket.request.demands:
                state = self.keys[demand.key]
                del state.elsewhere[ticket.request.id]
                if demand is not ticket.home:
                    state.evicted_elsewhere += 1
        self.state(key).evicted.setdefault(ticket.name, {})[ticket.request.id] = ticket
        self.expiring[key] = None

    def forget_evicted(self, ticket: Ticket) -> None:
        """Forget a ticket that `keep_evicted` kept."""
        state = self.keys[ticket.home.key]
        del self.tickets[ticket.request.id]
        del state.evicted[ticket.name][ticket.request.id]
        if not state.evicted[ticket.name]:
            del state.evicted[ticket.name]
        self._tidy_expiring(state)
        for demand in ticket.request.demands:
            if demand is not ticket.home:
                self.keys[demand.key].evicted_elsewhere -= 1
                self.forget_idle(demand.key)

    def remove_ticket(self, ticket: Ticket) -> None:
        """Take a standing ticket away."""
        request = ticket.request
        del self.tickets[request.id]
        if len(request.demands) > 1:
            for demand in request.demands:
                del self.keys[demand.key].elsewhere[request.id]

    # -- ends ------------------------------------------------------------------------------------

    def note_end(self, member: Holder | Ticket) -> None:
        """Note on its keys when a member ends. Renewals need not move the note (see `reap`)."""
        due = member.due()
        if isinstance(member, Ticket):
            keys = [member.home.key]
        else:
            keys = [demand.key for demand in member.request.demands]
        for key in keys:
            state = self.keys[key]
            self._forget_end(state, member)
            if due is not None:
                state.expiries.push(due, member)
                self.expiring[key] = None

    def _forget_end(self, state: KeyState, member: Holder | Ticket) -> None:
        state.expiries.remove(member)
        self._tidy_expiring(state)

    def _tidy_expiring(self, state: KeyState) -> None:
        if not (state.expiries.live or state.jobs or state.evicted):
            self.expiring.pop(state.key, None)
