"""The short way of a call that nothing stands in the way of: the same rules, in fewer steps.

Most calls are such: one key, a free slot, no waiter. They pay for each object that is looked at,
most of all where other code has used the processor's caches in between. So the named tuples are
unpacked at once: to read them name by name looks at a descriptor for each.
"""

from __future__ import annotations

from limiter_core.requests import Answer, Granted, Request, from_fields
from limiter_memory._machine import Machine
from limiter_memory._queues import LOOK, RECLAIM
from limiter_memory._records import Holder


class QuickMachine(Machine):
    """A machine that takes the short way for a grant without a queue, a release without a waiter.

    For all else it does as any machine.
    """

    def acquire(self, request: Request, now: int) -> Answer:
        """Grant a new request of one key, if no more than its free slots has to be considered."""
        # fmt: off
        (
            request_id, demands, _lease, mode, max_hold, _claim, order, _payload, _claimant, _label,
            _fencing_token, listener, _deadline, presence,
        ) = request
        # fmt: on
        key, limit, cost, _on_conflict, _priority, _group, _max_waiting, name = demands[0]
        table = self.table
        state = table.keys.get(key)
        if (
            state is None
            or state.in_use + cost > limit
            or len(demands) > 1
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
            or listener is None
            or max_hold is not None
            or order is not None
            or presence is not None
            or mode is LOOK
            or mode is RECLAIM
        ):
            return Machine.acquire(self, request, now)
        sequence = self._sequence = self._sequence + 1
        order = self._last_order = now if now > self._last_order else self._last_order + 1
        token = self._last_token = now if now > self._last_token else self._last_token + 1
        if state.name != name:
            table.note_names(demands)
        holder = Holder(request, token, now, order, sequence, True)
        # In the order of `KeyTable.add_holder`, which `_recovery` relies on.
        table.holders[request_id] = holder
        state.in_use += cost
        state.holders[request_id] = holder
        return from_fields(Granted, (token, None, 0.0, None))

    def release(self, request_id: str, now: int) -> bool:
        """Remove a holder of one key without waiters."""
        table = self.table
        holder = table.holders.get(request_id)
        if holder is None:
            return Machine.release(self, request_id, now)
        demands = holder.request.demands
        demand = demands[0]
        key = demand.key
        state = table.keys[key]
        if state.queue.live or state.jobs or state.evicted or table.expiring or len(demands) > 1:
            return Machine.release(self, request_id, now)
        # In the order of `KeyTable.remove_holder`.
        del table.holders[request_id]
        state.in_use -= demand.cost
        del state.holders[request_id]
        if not state.holders and key not in table.idle:
            table.forget_idle(key)
        return True
