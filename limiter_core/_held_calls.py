"""What a task or thread holds already when it makes a new call."""

from __future__ import annotations

from collections.abc import Sequence

from limiter_core._blocks import frames_on_stack
from limiter_core._call import Call
from limiter_core._held_leases import HeldLease
from limiter_core._patience import holds, self_deadlock
from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, KeySnapshot, Request

_CHECK_PATIENCE = 0.05
"""Seconds that the check for a call that would wait for itself has, whatever its timeout."""


class HeldCalls:
    """The calls of each task or thread that hold slots until the end of a block.

    By them a call is recognized that would wait for itself.
    """

    def __init__(self) -> None:
        self._holding: dict[object, Call] = {}
        """The last such call of each; `Call.outer` is the one before."""

    def began(self, call: Call, block: int) -> None:
        """Note a call whose slots are released at the end of a block, and not before.

        (A lease from `acquire`, or a hold that is entered by hand, may be left by others.)

        Args:
            call: the call.
            block: the id of the frame whose `with` statement holds it.
        """
        if call.granted is None or call.owner is None:
            return  # admitted without a slot; or by no task that could wait for itself
        outer = self._holding.get(call.owner)
        while outer is not None and outer.closed:  # another thread was faster than its note
            outer = outer.outer
        call.block = block
        call.outer = outer
        self._holding[call.owner] = call

    def ended(self, call: Call) -> None:
        """Note that a call holds nothing any more."""
        if not call.block:
            return
        inner = self._holding.get(call.owner)
        if inner is call:
            if call.outer is None:
                self._holding.pop(call.owner, None)
            else:
                self._holding[call.owner] = call.outer
            return
        while inner is not None and inner.outer is not call:
            inner = inner.outer
        if inner is not None:  # released out of order
            inner.outer = call.outer

    def calls_around(self, call: Call) -> Sequence[Call]:
        """Return the calls of the same task or thread that hold what a new one asks for.

        Only those in whose blocks it is made: a hold that was entered by hand, or rests in a
        generator, may be released by others while it waits.
        """
        last = self._holding.get(call.owner)
        return () if last is None else _calls_around(last, call.request)


def _calls_around(last: Call | None, request: Request) -> Sequence[Call]:
    """Return the calls that certainly hold slots of keys of a request until it is over.

    Args:
        last: the last call of the task or thread that asks.
        request: what it asks for.
    """
    keys = {demand.key for demand in request.demands}
    found: list[Call] = []
    while last is not None:
        if not (last.closed or last.ends_by_itself() or keys.isdisjoint(last.keys)):
            found.append(last)
        last = last.outer
    if not found:
        return ()
    frames = frames_on_stack()
    return [call for call in found if call.is_around(frames)]


def leases_around(last: Call | None) -> tuple[HeldLease, ...]:
    """Return the leases that a task or thread certainly holds until it goes on, whatever happens.

    Args:
        last: the last call of it that holds something.
    """
    found: list[Call] = []
    while last is not None:
        if not last.closed and last.loss is None and last.request.max_hold is None:
            found.append(last)
        last = last.outer
    if not found:
        return ()
    frames = frames_on_stack()
    return tuple(HeldLease(each.id, each.keys) for each in found if each.is_around(frames))


def demands_held_already(request: Request, around: Sequence[Call]) -> list[tuple[Demand, int]]:
    """Return the demands for keys of which the calls around hold slots, and how many."""
    held: dict[str, int] = {}
    for call in around:
        if holds(call):
            for demand in call.demands:
                held[demand.key] = held.get(demand.key, 0) + demand.cost
    return [
        (demand, held[demand.key])
        for demand in request.demands
        if demand.key in held
        # These never wait, they are refused.
        and demand.on_conflict is not ConflictResolution.CANCEL
        and demand.max_waiting != 0
    ]


def check_until(call: Call, asked_at: float) -> float | None:
    """Return when the check whether a call would wait for itself is given up, None for never.

    Args:
        call: the call.
        asked_at: when it asked first, on its clock: one without patience has a moment from then.
    """
    deadline = call.request.deadline
    return None if deadline is None else max(deadline, asked_at + _CHECK_PATIENCE)


def check_self_deadlock(demand: Demand, held: int, state: KeySnapshot) -> None:
    """Refuse a demand that cannot be met before the caller itself releases, whatever others do.

    Raises:
        ConfigurationError: so it is. (A paused key waits for its operator, not for its holders.)
    """
    limit = demand.limit if state.override is None else state.override
    if not state.paused and 0 < limit < held + demand.cost:
        raise self_deadlock(demand.key, f"it already holds {held} of the {limit} slots")
