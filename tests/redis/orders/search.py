"""Goes through the orders in which events can happen; shortens those that break an invariant."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from .events import events_of, next_to_settle
from .invariants import broken_at_rest, broken_on_the_way, fingerprint
from .simulation import Simulation

Order = tuple[str, ...]
MOST_TO_SETTLE = 100
"""Events after which all has settled, or it never does."""

HOLDS = ("ask 0", "arrive ask 0", "read ask 0")
WAITS = (*HOLDS, "ask 1", "arrive ask 1", "read ask 1")
OTHER_HOLDS = ("other holds", *HOLDS)
SITUATIONS: dict[str, Order] = {
    "nothing": (),
    "one holds": HOLDS,
    "one holds, one waits": WAITS,
    "one holds, one asks again": (*WAITS, "hint 1", "ask 1"),
    "one waits for another process": OTHER_HOLDS,
    "one is offered a slot, and asks": (
        *(*OTHER_HOLDS, "hint 0", "ask 0", "arrive ask 0 #2", "other leaves", "renewal time"),
    ),
    "one asks again, and is offered a slot": (
        *(*OTHER_HOLDS, "hint 0", "ask 0", "arrive ask 0 #2", "other leaves"),
    ),
    "a grant is on its way to one who asks again": (
        *(*WAITS, "hint 1", "ask 1", "leave 0", "arrive release 0"),
    ),
    "a grant and its loss are on their way": (*WAITS, "leave 0", "arrive release 0", "evict 1"),
    "the server lost its data": (
        *(*HOLDS, "data lost", "other holds", "subscribed", "renew"),
        *("arrive renew 0", "read renew 0"),
    ),
    "a job's lease is over, unheard": (
        *(*HOLDS, "expire 0", "lose expired 0", "other holds"),
        *("ask 1", "arrive ask 1", "read ask 1", "other leaves"),
    ),
}
"""What has happened before the events whose orders are tried."""


def run(kind: str, order: Order) -> Simulation:
    """Return the simulation in which these events have happened."""
    simulation = Simulation(kind)
    for event in order:
        simulation.apply(event)
    return simulation


def settled(kind: str, order: Order) -> Simulation:
    """Return the simulation in which these events have happened, and all has settled."""
    simulation = Simulation(kind)
    for event in order:
        _apply(simulation, event)
    _settle(simulation)
    return simulation


def _apply(simulation: Simulation, event: str) -> None:
    simulation.apply(event)
    simulation.failures += broken_on_the_way(simulation)


def _settle(simulation: Simulation) -> None:
    """Have all settle.

    To settle, all arrives that is on its way, in little time, and nobody does anything new: so what
    is put right only by the next regular renewal counts as wrong.
    """
    for _ in range(MOST_TO_SETTLE):
        event = next_to_settle(simulation)
        if event is None:
            return
        _apply(simulation, event)
    simulation.failures.append("it never comes to rest")


def broken_by(kind: str, order: Order) -> list[str]:
    """Return the invariants that are broken on the way, or once all has settled."""
    return list(broken_at_rest(settled(kind, order)))


def broken_by_last(simulation: Simulation) -> list[str]:
    """Return the same, where the way up to the last event was looked at before."""
    simulation.failures += broken_on_the_way(simulation)
    _settle(simulation)
    return list(broken_at_rest(simulation))


def is_possible(kind: str, order: Order) -> bool:
    """Return whether these events can happen one after the other."""
    simulation = Simulation(kind)
    for event in order:
        if event not in events_of(simulation):
            return False
        simulation.apply(event)
    return True


def orders(kind: str, most: int, situation: str) -> Iterator[tuple[Order, Simulation]]:
    """Yield orders of events, the shortest first, each of which leads where none before it did.

    With each comes the simulation in which its events have happened. All but the last event of an
    order are an order that came before, or the situation.

    Args:
        kind: what the callers ask for.
        most: how many orders, about.
        situation: which of `SITUATIONS` they begin with; none if it cannot be.
    """
    first = SITUATIONS[situation]
    if not is_possible(kind, first):
        return
    seen: set[object] = set()
    to_go_on = deque([(first, list(events_of(run(kind, first))))])
    while to_go_on and len(seen) < most:
        before, events = to_go_on.popleft()
        for event in events:
            after = (*before, event)
            simulation = run(kind, after)
            found = fingerprint(simulation)
            if found not in seen:
                seen.add(found)
                to_go_on.append((after, list(events_of(simulation))))
                yield after, simulation


def shortened(kind: str, order: Order, fails: Callable[[str, Order], object]) -> Order:
    """Return an order that fails as well, without events that do not matter."""
    at = 0
    while at < len(order):
        shorter = order[:at] + order[at + 1 :]
        if is_possible(kind, shorter) and fails(kind, shorter):
            order, at = shorter, 0
        else:
            at += 1
    return order
