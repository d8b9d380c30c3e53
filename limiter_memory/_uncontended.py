"""The short way of a call that nothing stands in the way of: the same rules, in fewer steps.

Most calls are such: one key, a free slot, no waiter. They pay for each object that is looked at,
most of all where other code has used the processor's caches in between.
"""

from __future__ import annotations

from limiter_core.requests import Granted, Request, from_fields
from limiter_memory._admission import Admission
from limiter_memory._queues import LOOK, RECLAIM
from limiter_memory._records import Holder


class Uncontended(Admission):
    """A grant without a queue, and a release without a waiter; else the general way is taken."""

    def _grant_at_once(self, request: Request, now: int) -> Granted | None:
        """Grant a new request of one key, if no more than its free slots has to be considered.

        Returns:
            None for any other request, of which nothing has changed yet.
        """
        table, demands = self.table, request.demands
        demand = demands[0]
        state = table.keys.get(demand.key)
        if state is None or state.in_use + demand.cost > demand.limit:
            return None
        request_id = request.id
        if (
            len(demands) > 1
            or request_id in table.holders
            or request_id in table.tickets
            # What others, or an operator, have to say.
            or state.queue.live
            or state.jobs
            or state.paused
            or state.override is not None
            or table.expiring
            or self._ended_order
            or self.policies.settings
            # A lease that ends by itself; a place in line; a worker to be noted; other questions.
            or request.listener is None
            or request.max_hold is not None
            or request.order is not None
            or request.presence is not None
            or (mode := request.mode) is LOOK
            or mode is RECLAIM
        ):
            return None
        sequence = self._sequence = self._sequence + 1
        order = self._last_order = now if now > self._last_order else self._last_order + 1
        token = self._last_token = now if now > self._last_token else self._last_token + 1
        if state.name != demand.name:
            table.note_names(demands)
        holder = Holder(request, token, now, order, sequence, True)
        # In the order of `KeyTable.add_holder`, which `_recovery` relies on.
        table.holders[request_id] = holder
        state.in_use += demand.cost
        state.holders[request_id] = holder
        return from_fields(Granted, (token, None, 0.0, None))

    def _release_at_once(self, holder: Holder) -> bool:
        """Release a holder of one key without waiters; whether it was one, else nothing changed."""
        table, request = self.table, holder.request
        demands = request.demands
        demand = demands[0]
        state = table.keys[key := demand.key]
        if state.queue.live or state.jobs or state.evicted or table.expiring or len(demands) > 1:
            return False
        # In the order of `KeyTable.remove_holder`.
        request_id = request.id
        del table.holders[request_id]
        state.in_use -= demand.cost
        del state.holders[request_id]
        if not state.holders:
            table.forget_idle(key)
        return True
