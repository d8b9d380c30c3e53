"""The rules S1 to S23 of `limiter_core.store`, as a pure state machine.

No I/O, no clock, no lock: the caller passes `now` (microseconds), gets the answer, and sends the
notifications that are collected in `calls` and `notices`. The memory store is built on it, and
other stores are tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence

from limiter_core.policies import Change
from limiter_core.requests import (
    Answer,
    KeySnapshot,
    Loss,
    Presence,
    Refusal,
    Renewal,
    Request,
)
from limiter_memory._admission import Admission
from limiter_memory._answers import (
    lease_end,
    microseconds,
)
from limiter_memory._queues import LOOK
from limiter_memory._records import Holder, KeyState, Ticket
from limiter_memory._recovery import recover
from limiter_memory._snapshots import snapshot_of


class Machine(Admission):
    """All keys of one store. Every public method is one atomic step."""

    # -- the steps -------------------------------------------------------------------------------

    def acquire(self, request: Request, now: int) -> Answer:
        """Answer a request: the first time, while it waits, or when it claims its slot."""
        table, request_id, is_look = self.table, request.id, request.mode is LOOK
        if request.presence is not None and not is_look:
            self._update_presence(request.presence, now)
        if table.expiring:
            self._reap(request.demands, now)
        if is_look:
            return self._answer_look(request, now)
        if request_id in table.holders:
            return self._answer_holder(table.holders[request_id], request, now)
        if request_id in table.tickets:
            ticket = table.tickets[request_id]
            if ticket.evicted:
                return self.end_evicted(ticket, now)
            if ticket.expires_at is not None:
                ticket.expires_at = now + microseconds(request.lease)
            if ticket.request.label != request.label:
                ticket.request = ticket.request._replace(label=request.label)
            return self._queued(ticket, now)
        if self._ended_order:
            self._forget_ended(now)
            if request_id in self._ended:
                return self._ended[request_id]
        if self.policies.settings:
            return self._answer_under_policies(request, now)
        return self._answer_new(request, now)

    def _answer_under_policies(self, request: Request, now: int) -> Answer:
        """Answer a new request by the policies in force for its names (S22)."""
        answer = self._answer_new(self.policies.applied(request, now), now)
        ticket = self.table.tickets.get(request.id)
        if ticket is None or ticket.evicted:
            return answer
        ticket.declared = request.demands
        self.declare_again(ticket, now)
        return self._queued(ticket, now)

    def release_claim(self, request_id: str, claimant: str, now: int) -> bool:
        """Remove the lease of a job if this claimant has it (S18); whether it had one."""
        holder = self.table.holders.get(request_id)
        if holder is None:
            return False
        if not holder.claimed or holder.request.claimant != claimant:
            self._reap(holder.request.demands, now)
            return False
        return self.release(request_id, now)

    def release(self, request_id: str, now: int) -> bool:
        """Remove the lease or ticket of this id; whether there was one."""
        holder = self.table.holders.get(request_id)
        member = holder or self.table.tickets.get(request_id)
        if member is None:
            self._ended.pop(request_id, None)
            self._forget_ended(now)
            return False
        demands = member.request.demands
        if self.table.expiring:
            self._reap(demands, now)
            if self.calls:
                self._notify_no_more(request_id)
            # It may have ended meanwhile, or been handed its slot.
            member = self.table.holders.get(request_id) or self.table.tickets.get(request_id)
        if type(member) is Holder:
            self.table.remove_holder(member)
        elif type(member) is Ticket and member.evicted:
            self.table.forget_evicted(member)
        elif type(member) is Ticket:
            self._remove_ticket(member)
        if len(demands) == 1:
            self._serve_if_waiting(demands[0].key, now)
        else:
            self._serve([demand.key for demand in demands], now)
        return member is not None

    def _notify_no_more(self, request_id: str) -> None:
        """Drop what the listener of a request would be notified of: it is being released."""
        self.calls = [call for call in self.calls if call[0].id != request_id]

    def withdraw(self, request_id: str, now: int) -> bool:
        """Remove what `release` would, unless it is a claimed lease."""
        holder = self.table.holders.get(request_id)
        if holder is not None:
            self._reap(holder.request.demands, now)
            holder = self.table.holders.get(request_id)
        return not (holder is not None and holder.claimed) and self.release(request_id, now)

    def renew(self, ids: Sequence[str], now: int) -> Renewal:
        """Start lease times again. Never creates; names what is gone."""
        table = self.table
        gone: dict[str, Loss] = {}
        preempted: set[str] = set()
        for request_id in ids:
            member = table.holders.get(request_id) or table.tickets.get(request_id)
            if member is not None:
                self._reap(member.request.demands, now)
                member = table.holders.get(request_id) or table.tickets.get(request_id)
            if member is None:
                gone[request_id] = Loss.FORGOTTEN
                continue
            if isinstance(member, Holder):
                if member.preempted:
                    preempted.add(request_id)
                if not member.claimed:
                    continue  # the claim time is not prolonged: the waiter has to come
            if member.expires_at is not None:
                member.expires_at = now + microseconds(member.request.lease)
        return Renewal(gone, frozenset(preempted))

    def let_expire(self, lease_id: str, claimant: str, now: int) -> None:
        """Have a lease end with its lease time, as if no caller in this process held it.

        That of a job only if this claimant has it (S18).
        """
        holder = self.table.holders.get(lease_id)
        if holder is not None and (
            holder.request.payload is None or holder.request.claimant == claimant
        ):
            holder.request = holder.request._replace(listener=None)
            holder.expires_at = lease_end(holder.request, now)
            self.table.note_end(holder)
            self._serve([demand.key for demand in holder.request.demands], now)

    def evict(self, lease_id: str, now: int) -> bool:
        """Take a slot from its holder, and notify the holder."""
        holder = self.table.holders.get(lease_id)
        if holder is not None:
            self._reap(holder.request.demands, now)
            holder = self.table.holders.get(lease_id)
        if holder is None:
            return False
        freed = [demand.key for demand in holder.request.demands]
        if holder.claimed or holder.request.payload is None:
            self._end_holder(holder, Loss.EVICTED)
            self._serve(freed, now)
        else:  # a job that has not come for its slot yet: the next is served, but it is not lost
            self._requeue_lapsed([self.lapse(holder, now)], freed, now)
        return True

    def evict_waiter(self, request_id: str, now: int) -> bool:
        """End the waiting of a ticket, also of one whose slot was not claimed yet."""
        table = self.table
        member = table.holders.get(request_id) or table.tickets.get(request_id)
        if member is not None:
            self._reap(member.request.demands, now)
            member = table.holders.get(request_id) or table.tickets.get(request_id)
        if member is None or (isinstance(member, Holder) and member.claimed):
            return False
        if isinstance(member, Ticket) and member.evicted:
            return False
        if isinstance(member, Holder):
            ticket = self.lapse(member, now)
            table.add_ticket(ticket)
        else:
            ticket = member
            table.dequeue(ticket)
        if table.presences.has(ticket.name, now):
            refused = self._refusal(ticket.home, now, Refusal.EVICTED)
            self._remember(ticket.request, refused, now)
            table.remove_ticket(ticket)
        else:
            table.keep_evicted(ticket)
        self._serve([demand.key for demand in ticket.request.demands], now)
        return True

    def sweep(self, now: int, presence: Presence | None = None) -> None:
        """Note the presence of the sweeping worker, and reap every key."""
        if presence is not None:
            self._set_presence(presence, now)
        for key in list(self.table.expiring):
            while self._reap_key(key, now):
                pass

    def wake_waiting(self) -> None:
        """Have all waiters of this process ask again."""
        for ticket in self.table.tickets.values():
            if ticket.request.listener is not None:
                self.calls.append((ticket.request, None))

    def set_limit(self, key: str, limit: int | None, now: int) -> None:
        """Override the declared limits of a key, or (None) return to them."""
        self._reap_key(key, now)
        self._state_to_change(key).override = limit
        self._serve([key], now)

    def set_paused(self, key: str, paused: bool, now: int) -> None:
        """Admit no call, or admit calls again."""
        self._reap_key(key, now)
        self._state_to_change(key).paused = paused
        self._serve([key], now)

    def change_policy(self, change: Change, now: int) -> Change:
        """Change what is in force for a name, and log it; `apply_policies` has to follow (S22)."""
        return self.policies.change(change, now)

    def waiting_by_name(self, name: str) -> list[str]:
        """Return the ids of the tickets that want slots under limits of a name."""
        return [
            each.request.id
            for each in self.table.tickets.values()
            if any(demand.name == name for demand in each.request.demands)
        ]

    def apply_policies(self, ids: Sequence[str], now: int) -> None:
        """Have tickets judged by the policies in force, and serve those that fit now."""
        touched: list[str] = []
        for request_id in ids:
            ticket = self.table.tickets.get(request_id)
            if ticket is not None and ticket.evicted:
                self.judge(ticket, now)
            elif ticket is not None:
                touched += [demand.key for demand in ticket.request.demands]
                self.declare_again(ticket, now)
        keys = list(dict.fromkeys(touched))
        for key in keys:  # serves, so all are judged before
            self._reap_key(key, now)
        self._serve(keys, now)

    def _state_to_change(self, key: str) -> KeyState:
        """Return the state of a key, new if nothing uses it (S14)."""
        state = self.table.state(key)
        if state.idle():
            state.name = ""
        return state

    def recover(self, now: int) -> None:
        """Make the table consistent after a step that was interrupted at any point."""
        recover(self, now)
        self._serve(list(self.table.keys), now)

    def inspect(self, key: str, now: int) -> KeySnapshot:
        """Return the state of a key as it is now."""
        self._reap_key(key, now)
        return snapshot_of(key, self.table.keys.get(key), self.table.presences, now)
