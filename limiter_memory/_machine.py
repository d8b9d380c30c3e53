"""The rules S1 to S19 of `limiter_core.store`, as a pure state machine.

No I/O, no clock, no lock: `now` comes in (microseconds), answers go out, and what others must be
told gathers in `effects` for the caller to carry out. It is the heart of the memory store, and
the model that other stores are tested against.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from limiter_core.limits import ConflictResolution
from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    Held,
    Loss,
    Mode,
    Notice,
    Queued,
    Refusal,
    Refused,
    Renewal,
    Replaced,
    Request,
)
from limiter_memory._board import Board
from limiter_memory._records import Holder, KeyState, Ticket

REAP_CHUNK = 128
"""Members reaped on one key in one step (S16)."""

_REMEMBER = 60_000_000
"""How long a ticket's bad end is remembered for a waiter that asks again, in microseconds."""


# An enum's members take their time to be looked up.
_RECLAIM = Mode.RECLAIM
_WAIT = Mode.WAIT
_CANCEL = ConflictResolution.CANCEL


class Machine:
    """All keys of one store. Every public method is one atomic step."""

    def __init__(self) -> None:
        self.board = Board()
        self.calls: list[tuple[Request, Answer | Loss | None]] = []
        """Effects: requests whose listener is to hear of an answer or a loss, or (None) has to
        ask again."""
        self.notices: list[Notice] = []
        """Effects: what became of durable tickets."""
        self._ended: dict[str, Refused | Replaced] = {}
        self._ended_order: deque[tuple[int, str]] = deque()
        self._last_token = 0
        self._last_order = 0
        self._sequence = 0

    # -- the steps -------------------------------------------------------------------------------

    def acquire(self, request: Request, now: int) -> Answer:
        """Answer a request: the first time, while it waits, or when it takes up its slot."""
        board = self.board
        if board.expiring:
            self._reap(request.demands, now)
        if request.id in board.holders:
            return self._answer_holder(board.holders[request.id], request, now)
        if request.id in board.tickets:
            ticket = board.tickets[request.id]
            if ticket.expires_at is not None:
                ticket.expires_at = now + _microseconds(request.lease)
            return self._queued(ticket, now)
        if self._ended_order:
            self._forget_ended(now)
            if request.id in self._ended:
                return self._ended[request.id]
        return self._answer_newcomer(request, now)

    def release(self, request_id: str, now: int) -> bool:
        """Remove the lease or ticket of this id; whether there was one."""
        member = self.board.holders.get(request_id) or self.board.tickets.get(request_id)
        if member is None:
            self._ended.pop(request_id, None)
            self._forget_ended(now)
            return False
        demands = member.request.demands
        if self.board.expiring:
            self._reap(demands, now)
            # It may have ended meanwhile, or been handed its slot.
            member = self.board.holders.get(request_id) or self.board.tickets.get(request_id)
        if type(member) is Holder:
            self.board.remove_holder(member)
        elif type(member) is Ticket:
            self._remove_ticket(member)
        if len(demands) == 1:
            self._serve((demands[0].key,), now)
        else:
            self._serve([demand.key for demand in demands], now)
        return member is not None

    def renew(self, ids: Sequence[str], now: int) -> Renewal:
        """Start lease times again. Never creates; names what is gone."""
        board = self.board
        gone: dict[str, Loss] = {}
        preempted: set[str] = set()
        for request_id in ids:
            member = board.holders.get(request_id) or board.tickets.get(request_id)
            if member is not None:
                self._reap(member.request.demands, now)
                member = board.holders.get(request_id) or board.tickets.get(request_id)
            if member is None:
                gone[request_id] = Loss.FORGOTTEN
                continue
            if isinstance(member, Holder):
                if member.preempted:
                    preempted.add(request_id)
                if not member.claimed:
                    continue  # the claim time is not prolonged: the waiter has to come
            if member.expires_at is not None:
                member.expires_at = now + _microseconds(member.request.lease)
        return Renewal(gone, frozenset(preempted))

    def evict(self, lease_id: str, now: int) -> bool:
        """Take a slot back, and tell its holder."""
        holder = self.board.holders.get(lease_id)
        if holder is not None:
            self._reap(holder.request.demands, now)
            holder = self.board.holders.get(lease_id)
        if holder is None:
            return False
        freed = [demand.key for demand in holder.request.demands]
        if holder.claimed or holder.request.payload is None:
            self._end_holder(holder, Loss.EVICTED)
            self._serve(freed, now)
        else:  # a job that has not come for its slot yet: the next is served, but it is not lost
            self.board.remove_holder(holder)
            self._pass_over([holder], freed, now)
        return True

    def sweep(self, now: int) -> None:
        """Reap every key."""
        for key in list(self.board.expiring):
            while self._reap_key(key, now):
                pass

    def set_limit(self, key: str, limit: int | None, now: int) -> None:
        """Override the declared limits of a key, or (None) return to them."""
        self._reap_key(key, now)
        self.board.state(key).override = limit
        self._serve([key], now)

    def set_paused(self, key: str, paused: bool, now: int) -> None:
        """Admit nobody, or admit again."""
        self._reap_key(key, now)
        self.board.state(key).paused = paused
        self._serve([key], now)

    def look(self, key: str, now: int) -> KeyState | None:
        """Return the state of a key as it is now, None if nobody uses it."""
        self._reap_key(key, now)
        return self.board.keys.get(key)

    # -- answers ---------------------------------------------------------------------------------

    def _answer_holder(self, holder: Holder, request: Request, now: int) -> Answer:
        if holder.claimed and request.payload is not None:
            if holder.request.claimant != request.claimant:
                due = holder.due()
                return Held(None if due is None else _seconds(due - now))
        if not holder.claimed:  # the waiter takes up what was handed to it
            holder.claimed = True
            # What was handed over counts, whatever the functions of the call answer today.
            holder.request = request._replace(demands=holder.request.demands)
            if request.max_hold is not None:
                holder.ends_at = now + _microseconds(request.max_hold)
        holder.expires_at = _lease_end(request, now)
        self.board.note_end(holder)
        return _granted(holder, now)

    def _answer_newcomer(self, request: Request, now: int) -> Answer:
        board = self.board
        self._sequence += 1
        order = request.order
        if order is None:
            order = now if now > self._last_order else self._last_order + 1
            self._last_order = order
        blocking: list[Demand] | None = None
        for demand in request.demands:
            state = board.keys.get(demand.key) or board.state(demand.key)
            limit = demand.limit if state.override is None else state.override
            if demand.cost > demand.limit > 0:  # an override may change again: it may wait for that
                return self._refused(request, demand, now, Refusal.COST)
            if state.in_use + demand.cost > limit or (
                (state.queue.live or state.paused)
                and request.mode is not _RECLAIM
                and not _has_precedence(state, demand, order, self._sequence)
            ):
                blocking = [demand] if blocking is None else [*blocking, demand]
        if blocking is None:
            return _granted(self._grant(request, order, self._sequence, now), now)
        home = blocking[0]
        if request.mode is not _WAIT or len(blocking) > 1 or home.on_conflict is _CANCEL:
            refusing = _refusing(request, blocking)
            if refusing is not None:
                return self._refused(request, refusing, now)
        if home.max_waiting is not None:
            # A newcomer that supersedes all who wait finds the queue empty.
            in_queue = 0 if home.on_conflict.supersedes else len(board.keys[home.key].queue)
            if in_queue >= home.max_waiting:
                return self._refused(request, home, now, Refusal.QUEUE_FULL)
        ends = None if request.listener is not None else _ticket_end(request, now)
        ticket = Ticket(request, order, self._sequence, now, ends, home)
        board.add_ticket(ticket)
        to_serve = self._take_place(ticket, home, now)
        if not to_serve:
            return self._queued(ticket, now)
        self._serve(to_serve, now)
        return self._standing(request, now)

    def _standing(self, request: Request, now: int) -> Answer:
        """Return where a request stands that has just come in to wait."""
        if request.id in self.board.tickets:
            return self._queued(self.board.tickets[request.id], now)
        if request.id in self.board.holders:
            return self._answer_holder(self.board.holders[request.id], request, now)
        return self._ended[request.id]

    def _queued(self, ticket: Ticket, now: int) -> Queued:
        home = ticket.home
        state = self.board.keys[home.key]
        limit = 0 if state.paused else state.limit_for(home)
        look_again = None
        if state.expiries.live:
            look_again = _next_end(state, now)
            if state.queue.first() is ticket:
                state.watcher, state.watched = ticket, state.expiries.first_rank()
        return Queued(home.key, limit, state.in_use, ticket.order, look_again)

    def _refused(
        self, request: Request, demand: Demand, now: int, reason: Refusal = Refusal.FULL
    ) -> Refused:
        answer = self._refusal(demand, now, reason)
        self.board.forget_all_idle(request.demands)
        return answer

    def _refusal(self, demand: Demand, now: int, reason: Refusal = Refusal.FULL) -> Refused:
        state = self.board.state(demand.key)
        limit = 0 if state.paused else state.limit_for(demand)
        return Refused(demand.key, limit, state.in_use, _next_end(state, now), reason)

    # -- admission -------------------------------------------------------------------------------

    def _blocked_elsewhere(self, ticket: Ticket) -> list[Demand]:
        """Return the demands, other than at home, that the head of a queue cannot have met now."""
        keys = self.board.keys
        return [
            demand
            for demand in ticket.request.demands
            if demand is not ticket.home
            and not (
                (state := keys[demand.key]).fits(demand)
                and _has_precedence(state, demand, ticket.order, ticket.sequence)
            )
        ]

    def _grant(
        self, request: Request, order: int, sequence: int, now: int, *, handed_over: bool = False
    ) -> Holder:
        token = now if now > self._last_token else self._last_token + 1
        if request.mode is _RECLAIM and request.fencing_token is not None:
            token = request.fencing_token  # the lease goes on, so its number does
            self._last_token = max(self._last_token, token)
        else:
            self._last_token = token
        # A waiter in this process takes its slot up as it is woken; any other has to come for it.
        claimed = not handed_over or request.listener is not None
        holder = Holder(request, token, now, order, sequence, claimed)
        if request.listener is None:
            holder.expires_at = now + _microseconds(request.lease if claimed else request.claim)
        if claimed and request.max_hold is not None:
            holder.ends_at = now + _microseconds(request.max_hold)
        self.board.add_holder(holder)
        if holder.ends_at is not None and not handed_over:
            for demand in request.demands:
                self._post_watcher(demand.key)
        return holder

    def _serve(self, keys: Sequence[str], now: int) -> None:
        """Hand what is free on these keys to the waiters whose turn it is (S6), then tidy up.

        Afterwards the head of no queue fits its own key: nobody waits while a slot is free.
        """
        work = list(keys)
        touched = keys
        while work:
            state = self.board.keys.get(work.pop())
            if state is not None and state.queue.live:
                more = self._serve_key(state, now)
                if more:
                    work.extend(more)
                    touched = [*touched, *more]
        for key in touched:
            if self.board.expiring:
                self._post_watcher(key)
            self.board.forget_idle(key)

    def _serve_key(self, state: KeyState, now: int) -> list[str]:
        """Serve one key; returns other keys that have to be served, or looked after, for it."""
        more: list[str] = []
        while (ticket := state.queue.first()) is not None:
            request, home = ticket.request, ticket.home
            if ticket.expires_at is not None and ticket.expires_at <= now:
                more.extend(demand.key for demand in request.demands)
                self._remove_ticket(ticket)  # it lapsed, and was not reaped yet (S16)
                continue
            limit = home.limit if state.override is None else state.override
            if state.paused or state.in_use + home.cost > limit:
                break  # a wide waiter blocks those behind it (S8)
            if len(request.demands) > 1:
                more.extend(demand.key for demand in request.demands)
                blocking = self._blocked_elsewhere(ticket)
                if blocking:
                    more.extend(self._wait_elsewhere(ticket, blocking, now))
                    continue
            self._hand_over(state, ticket, now)
        return more

    def _post_watcher(self, key: str) -> None:
        """See to it that the head of a queue knows when the next lease of its key ends.

        A store without a thread notices an end by somebody's step; a waiter makes one in time.
        """
        state = self.board.keys.get(key)
        if state is None or not state.expiries.live:
            return
        head, due = state.queue.first(), state.expiries.first_rank()
        if head is None or (head is state.watcher and state.watched <= due):
            return
        state.watcher, state.watched = head, due
        if head.request.listener is not None:
            self.calls.append((head.request, None))

    def _wait_elsewhere(self, ticket: Ticket, blocking: Sequence[Demand], now: int) -> list[str]:
        """Let a ticket wait on in the queue of a key that blocks it (S9), or end it.

        Returns:
            The keys that have to be served afterwards.
        """
        refusing = _refusing(ticket.request, blocking)
        if refusing is not None:
            self._end_ticket(ticket, self._refusal(refusing, now), now)
            return []
        self.board.stand_up(ticket)
        return self._take_place(ticket, blocking[0], now)

    def _hand_over(self, state: KeyState, ticket: Ticket, now: int) -> None:
        home, request = ticket.home, ticket.request
        if home.group is not None:
            state.fair_rounds().served(home.priority, home.group, ticket.round)
        self.board.remove_first(state, ticket)
        holder = self._grant(request, ticket.order, ticket.sequence, now, handed_over=True)
        self._tell(request, _granted(holder, now))

    # -- waiting ---------------------------------------------------------------------------------

    def _take_place(self, ticket: Ticket, home: Demand, now: int) -> list[str]:
        """Let a standing ticket wait in a key's queue; what that does to others is its resolution.

        Returns:
            The keys that have to be served afterwards.
        """
        state = self.board.keys[home.key]
        if not home.on_conflict.supersedes:
            self.board.sit_down(ticket, home)
            return []
        if self._newer_waits(state, ticket):
            self.board.remove_ticket(ticket)
            self._remember(ticket.request, Replaced(home.key), now)
            return [demand.key for demand in ticket.request.demands]
        to_serve = [home.key]
        for other in list(state.waiting()):
            if other is not ticket and other.older_than(ticket):
                to_serve.extend(demand.key for demand in other.request.demands)
                self._end_ticket(other, Replaced(home.key), now)
        self.board.sit_down(ticket, home)
        if home.on_conflict is ConflictResolution.CANCEL_RUNNING:
            to_serve.extend(self._preempt(state, home, now))
        return to_serve

    def _newer_waits(self, state: KeyState, ticket: Ticket) -> bool:
        """Whether a newer call took this one's place before it came (jobs ask out of order)."""
        return any(
            ticket.older_than(other)
            and any(d.key == state.key and d.on_conflict.supersedes for d in other.request.demands)
            for other in state.waiting()
        )

    def _preempt(self, state: KeyState, demand: Demand, now: int) -> list[str]:
        """Ask the oldest holders to let go until the demand would fit; the keys that lost one."""
        limit = state.limit_for(demand)
        if state.paused or demand.cost > limit:
            return []  # no holder is in the way: nobody is admitted at all
        lost: list[str] = []
        missing = state.in_use + demand.cost - limit
        missing -= sum(_cost(h, state.key) for h in state.holders.values() if h.preempted)
        for holder in [holder for holder in state.holders.values() if not holder.preempted]:
            if missing <= 0:
                break
            missing -= _cost(holder, state.key)
            request = holder.request
            if holder.claimed:
                holder.preempted = True
                if request.listener is not None:
                    self.calls.append((request, Loss.PREEMPTED))
            else:  # handed over, but not taken up: for its caller it still waits
                self.board.remove_holder(holder)
                self._remember(request, Replaced(state.key), now)
                lost.extend(demand.key for demand in request.demands)
        return lost

    def _remove_ticket(self, ticket: Ticket) -> None:
        self.board.stand_up(ticket)
        self.board.remove_ticket(ticket)

    def _end_ticket(self, ticket: Ticket, answer: Refused | Replaced, now: int) -> None:
        """Remove a ticket that did not ask for it, and keep the answer for when it asks."""
        self._remove_ticket(ticket)
        self._remember(ticket.request, answer, now)

    # -- time ------------------------------------------------------------------------------------

    def _reap(self, demands: Iterable[Demand], now: int) -> None:
        """Drop what ended on the keys of a request (S2)."""
        for demand in demands:
            self._reap_key(demand.key, now)

    def _reap_key(self, key: str, now: int) -> bool:
        """Drop what ended on a key, a chunk at most (S16); whether there may be more."""
        if key not in self.board.expiring:
            return False
        state = self.board.keys[key]
        freed: list[str] = []
        lapsed: list[Holder] = []
        more = True
        for _ in range(REAP_CHUNK):
            member = state.expiries.first()
            if member is None or state.expiries.first_rank() > now:
                more = False
                break
            due = member.due()
            if due is None or due > now:
                self.board.note_end(member)  # it was renewed since the note was made
                continue
            freed.extend(demand.key for demand in member.request.demands)
            if isinstance(member, Ticket):
                self._remove_ticket(member)
            elif member.claimed or member.request.payload is None:
                overran = member.ends_at is not None and member.ends_at <= now
                self._end_holder(member, Loss.OVERRAN if overran else Loss.EXPIRED)
            else:
                self.board.remove_holder(member)
                lapsed.append(member)
        if freed:
            self._pass_over(lapsed, freed, now)
        return more

    def _pass_over(self, lapsed: Sequence[Holder], freed: Sequence[str], now: int) -> None:
        """Serve the next (S6); jobs that did not come for their slot keep their order (S17)."""
        self._serve(freed, now)
        for holder in lapsed:
            home = holder.request.demands[0]
            ticket = Ticket(holder.request, holder.order, holder.sequence, now, None, home)
            self.board.add_ticket(ticket)
            self.board.sit_down(ticket, home)
        if lapsed:
            self._serve(freed, now)

    def _end_holder(self, holder: Holder, loss: Loss) -> None:
        """Remove a holder that did not ask for it, and tell whoever is there."""
        self.board.remove_holder(holder)
        if holder.request.listener is not None:
            self.calls.append((holder.request, loss if holder.claimed else None))

    # -- bookkeeping -----------------------------------------------------------------------------

    def _tell(self, request: Request, answer: Granted | Refused | Replaced) -> None:
        """Tell whoever waits that the answer changed: the process of a job, or a listener."""
        if request.payload is not None:
            self.notices.append(Notice(request.id, request.payload, answer))
        if request.listener is not None:
            self.calls.append((request, answer))

    def _remember(self, request: Request, answer: Refused | Replaced, now: int) -> None:
        self._ended[request.id] = answer
        self._ended_order.append((now + _REMEMBER, request.id))
        self._tell(request, answer)

    def _forget_ended(self, now: int) -> None:
        while self._ended_order and self._ended_order[0][0] <= now:
            self._ended.pop(self._ended_order.popleft()[1], None)


def _has_precedence(state: KeyState, demand: Demand, order: int, sequence: int) -> bool:
    """Whether nobody, and no pause, stands before a call that could have free slots (S3)."""
    if state.paused:
        return False
    first = state.queue.first()
    return first is None or not state.stands_before(first, demand, order, sequence)


def _refusing(request: Request, blocking: Sequence[Demand]) -> Demand | None:
    """Return the demand because of which a blocked request may not wait, if there is one."""
    if request.mode is not Mode.WAIT:
        return blocking[0]
    for demand in blocking:
        if demand.on_conflict is ConflictResolution.CANCEL:
            return demand
    return None


def _granted(holder: Holder, now: int) -> Granted:
    if holder.expires_at is None and holder.ends_at is None:
        return Granted(holder.fencing_token, None)
    due = holder.due()
    return Granted(holder.fencing_token, None if due is None else _seconds(due - now))


def _lease_end(request: Request, now: int) -> int | None:
    """Return when a lease ends unless renewed; never, while its holder lives in this process."""
    return None if request.listener is not None else now + _microseconds(request.lease)


def _ticket_end(request: Request, now: int) -> int | None:
    return None if request.payload is not None else _lease_end(request, now)


def _next_end(state: KeyState, now: int) -> float | None:
    due = state.expiries.first_rank()
    return None if due is None else max(0.0, _seconds(due - now))


def _cost(holder: Holder, key: str) -> int:
    return next(demand.cost for demand in holder.request.demands if demand.key == key)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _seconds(microseconds: int) -> float:
    return microseconds / 1_000_000
