"""Reaping: what has ended by now is removed, and its slots are handed on (S2, S6, S16, S17)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from limiter_core.requests import Demand, Loss, Presence
from limiter_core.store import DEFERRED, OFFERS
from limiter_memory._answers import microseconds
from limiter_memory._queues import Queues
from limiter_memory._records import Holder, Ticket

REAP_CHUNK = 128
"""Members reaped on one key in one step (S16)."""


class Reaping(Queues):
    """The queues, and how they change as time passes and workers come and go."""

    # -- presence --------------------------------------------------------------------------------

    def _update_presence(self, presence: Presence, now: int) -> None:
        """Note that a worker asks, if it was not known to be present (S17)."""
        if not presence.leaving and not self.table.presences.knows(presence, now):
            self._set_presence(presence, now)

    def _set_presence(self, presence: Presence, now: int) -> None:
        """Note that a worker is present, or leaves; serve if that changes its name's presence."""
        if not self.table.presences.note(presence, now):
            return
        for key in list(self.table.expiring):
            state = self.table.keys[key]
            if state.jobs or state.evicted:
                self._reap_key(key, now)
                self._serve([key], now)

    # -- time ------------------------------------------------------------------------------------

    def _reap(self, demands: Iterable[Demand], now: int) -> None:
        """Drop what ended on the keys of a request (S2)."""
        for demand in demands:
            self._reap_key(demand.key, now)

    def _reap_key(self, key: str, now: int) -> bool:
        """Drop what ended on a key, a chunk at most (S16); whether there may be more."""
        if key not in self.table.expiring:
            return False
        state = self.table.keys[key]
        freed: list[str] = []
        lapsed: list[Ticket] = []
        more = True
        for _ in range(REAP_CHUNK):
            member = state.expiries.first()
            if member is None or state.expiries.first_rank() > now:
                more = False
                break
            due = member.due()
            if due is None or due > now:
                self.table.note_end(member)  # it was renewed since the note was made
                continue
            freed.extend(demand.key for demand in member.request.demands)
            if isinstance(member, Ticket) and 0 < (member.policy_ends or 0) <= now:
                self.declare_again(member, now)
            elif isinstance(member, Ticket) and member.deferred_until is not None:
                self.table.take_place_again(member)
            elif isinstance(member, Ticket):
                self._remove_ticket(member)
            elif member.claimed or member.request.payload is None:
                overran = member.ends_at is not None and member.ends_at <= now
                self._end_holder(member, Loss.OVERRAN if overran else Loss.EXPIRED)
            else:
                ticket = self.lapse(member, now)
                if ticket.name and self.table.presences.has(ticket.name, now):
                    ticket.offers += 1
                lapsed.append(ticket)
        if not freed and 0 < state.recheck <= now:
            freed.append(key)  # the last worker may be gone that could wake the head
        if freed:
            self._requeue_lapsed(lapsed, freed, now)
        return more

    def _requeue_lapsed(self, lapsed: Sequence[Ticket], freed: Sequence[str], now: int) -> None:
        """Serve the next (S6); jobs that did not claim their slot keep their order (S17)."""
        self._serve(freed, now)
        for ticket in lapsed:
            if ticket.deferred_until is not None and ticket.deferred_until <= now:
                ticket.deferred_until = None
            if ticket.offers >= OFFERS:  # too many were not claimed: others go first for a while
                ticket.offers = 0
                ticket.deferred_until = now + microseconds(DEFERRED)
                self.deferred.append((ticket.request.id, ticket.home.key, ticket.name))
            self.table.add_ticket(ticket)
            self.table.enqueue(ticket, ticket.home, now)
        if lapsed:
            self._serve(freed, now)

    def _end_holder(self, holder: Holder, loss: Loss) -> None:
        """Remove a holder that did not release, and notify its listener."""
        if holder.request.listener is not None:
            self.calls.append((holder.request, loss if holder.claimed else None))
        self.table.remove_holder(holder)
