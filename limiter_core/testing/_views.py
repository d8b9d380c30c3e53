"""Answers and snapshots, of a store and of the model, in a form in which they can be compared."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from limiter_core.requests import Answer, Granted, Held, KeySnapshot, Queued, Refused, Request
from limiter_core.testing._model_state import ModelState, demand_of, gate_of


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def comparable(answer: Answer, request: Request) -> Answer:
    """Return an answer without what the rules leave open, or what depends on the real clock."""
    if isinstance(answer, Granted):
        # With a listener the store renews the lease, so its end is the store's affair.
        listens = request.listener is not None
        return Granted(0, None if listens else _seconds(answer.expires_in))
    if isinstance(answer, Queued):
        return answer._replace(order=request.order or 0, look_again=None)
    if isinstance(answer, Refused):
        return replace(answer, held_for=None)
    if isinstance(answer, Held):
        return Held(_seconds(answer.expires_in))
    return answer


def view_of(
    snapshot: KeySnapshot, listened: Container[str], *, mask_claims: bool = False
) -> object:
    holders = [
        (
            h.id,
            h.cost,
            h.limit,
            # Whether a wake-up brings the grant along may differ from store to store.
            h.claimed or (mask_claims and h.id in listened),
            h.preempted,
            None if h.id in listened else _seconds(h.expires_in),
        )
        for h in snapshot.holders
    ]
    waiters = [
        (w.id, w.cost, w.limit, w.priority, w.group, w.durable, w.name, w.deferred)
        for w in snapshot.waiters
    ]
    dormant = [
        (each.name, each.waiting, [waiter.id for waiter in each.waiters])
        for each in snapshot.dormant
    ]
    numbers = (snapshot.limit, snapshot.override, snapshot.declared, snapshot.paused, snapshot.name)
    return snapshot.in_use, snapshot.waiting, *numbers, holders, waiters, dormant


def view_of_model(model: ModelState, key: str, now: float) -> object:
    holders, waiters = model.holders_of(key), model.served_queue(key, now)
    dormant: dict[str, list[str]] = {}
    for waiter in model.queue(key):
        if waiter not in waiters:
            dormant.setdefault(gate_of(waiter.request), []).append(waiter.request.id)
    limits = {demand_of(holder.request, key).limit for holder in holders}
    limits |= {model.judged(demand_of(waiter.request, key), now).limit for waiter in waiters}
    override = model.overrides.get(key)
    return (
        model.in_use(key),
        len(waiters),
        max(limits, default=0) if override is None else override,
        override,
        tuple(sorted(limits)),
        key in model.paused,
        model.names.get(key, "") if model.is_used(key) else "",
        [
            (
                holder.request.id,
                (demand := demand_of(holder.request, key)).cost,
                demand.limit,
                holder.claimed,
                holder.preempted,
                None
                if holder.request.listener is not None or (due := holder.due()) is None
                else _seconds(due - now),
            )
            for holder in holders
        ],
        [
            (
                waiter.request.id,
                (demand := model.judged(demand_of(waiter.request, key), now)).cost,
                demand.limit,
                demand.priority,
                demand.group,
                waiter.request.payload is not None,
                gate_of(waiter.request),
                waiter.deferred_until is not None,
            )
            for waiter in waiters
        ],
        [(name, len(ids), ids) for name, ids in sorted(dormant.items())],
    )
