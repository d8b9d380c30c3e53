"""What a process holds and waits for: the invariants L1 to L9, in every order of events.

`orders/` simulates a process with two callers, a server and the network between them. Orders of
events are gone through, the shortest first; an invariant that is broken is shown with as few events
as break it.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import pytest

from limiter_redis.session import transitions
from limiter_redis.session.entries import Entry, Event, State
from limiter_redis.session.transitions import Cell, EntryTable

from .orders.callers import KINDS, Caller
from .orders.cases import CASES, RARE, Case
from .orders.search import (
    SITUATIONS,
    Order,
    broken_by,
    broken_by_last,
    is_possible,
    orders,
    settled,
    shortened,
)
from .orders.simulation import Simulation

MOST = 300
"""Orders per kind and situation."""

MOST_SLOW = 1500
"""The same, in the slow test."""

MOST_OF_CELLS = 1500 if os.environ.get("LIMITER_SLOW_TESTS") == "1" else 150
"""Orders per kind and situation that are looked through for such as come to a cell."""

PER_CELL = 60
"""Orders of a kind and a situation that are tried with each change of a cell."""

UNREACHED = {
    (State.ASKED, Event.ASK): "only once more, after an exception amid the first time",
    (State.HELD, Event.NEWS_REFUSED): "only a message that is not the store's says so",
}
"""Cells to which no order comes, and what does; see `test_what_cannot_be_changes_nothing`."""

# -- orders of events ------------------------------------------------------------------------------


def check(kind: str, most: int) -> None:
    tried = 0
    for situation in SITUATIONS:
        if is_possible(kind, SITUATIONS[situation]):
            assert broken_by(kind, SITUATIONS[situation]) == []
        for order, simulation in orders(kind, most, situation):
            tried += 1
            if broken_by_last(simulation):
                shortest = shortened(kind, order, broken_by)
                events = "\n".join(f"  {event}" for event in shortest)
                invariants = "\n".join(f"  {each}" for each in broken_by(kind, shortest))
                pytest.fail(f"{kind}: these events\n{events}\nbreak\n{invariants}", pytrace=False)
    assert tried > 2 * most, "it comes to fewer orders than there are"


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_no_order_of_events_breaks_a_law(kind: str) -> None:
    check(kind, MOST)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_no_order_of_more_events_breaks_a_law(kind: str) -> None:
    check(kind, MOST_SLOW)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_order_in_which_something_went_wrong(case: Case) -> None:
    assert is_possible(case.kind, case.order)
    assert broken_by(case.kind, case.order) == []
    callers = settled(case.kind, case.order).callers
    assert tuple(map(end_of, callers)) == case.ends


def end_of(caller: Caller) -> str:
    """Return what has become of a caller, and the loss that it was told."""
    loss = "" if caller.loss is None else f" {caller.loss.name.lower()}"
    return caller.status.value + loss


# -- the table -------------------------------------------------------------------------------------

Place = tuple[State, Event]
STATES = [state for state in State if state is not State.GONE]


def dashes() -> Iterator[Place]:
    """Yield the cells of the table that say that it does not happen."""
    head, *rows = [line.split("|") for line in transitions._TEXT.strip().splitlines()]
    for name, *cells in rows:
        for column, cell in zip(head[1:], cells, strict=True):
            if cell.strip() == "-":
                yield State[column.strip()], Event[name.strip()]


def settled_orders() -> Iterator[tuple[str, str, Order, Simulation]]:
    """Yield orders, each with the group that it is of, and its simulation, in which all settled."""
    for case in CASES:
        yield "cases", case.kind, case.order, settled(case.kind, case.order)
    for kind, order in RARE:
        yield "rare", kind, order, settled(kind, order)
    for kind in KINDS:
        for situation in SITUATIONS:
            for order, simulation in orders(kind, MOST_OF_CELLS, situation):
                broken_by_last(simulation)
                yield f"{kind}, {situation}", kind, order, simulation


def orders_by_cell(monkeypatch: pytest.MonkeyPatch) -> dict[Place, list[tuple[str, Order]]]:
    """Return orders that come to each cell of the table, the shortest first."""
    reached: WeakKeyDictionary[EntryTable, set[Place]] = WeakKeyDictionary()
    step = EntryTable._step

    def noting(
        table: EntryTable, entry: Entry, event: Event, *given: object, **named: object
    ) -> None:
        reached.setdefault(table, set()).add((entry.state, event))
        step(table, entry, event, *given, **named)

    found: defaultdict[Place, list[tuple[str, Order]]] = defaultdict(list)
    count: Counter[tuple[str, Place]] = Counter()
    with monkeypatch.context() as patched:
        patched.setattr(EntryTable, "_step", noting)
        for group, kind, order, simulation in settled_orders():
            tables = simulation.processes.all
            for place in set[Place]().union(*(reached.get(table, ()) for table in tables)):
                count[group, place] += 1
                if count[group, place] <= PER_CELL:
                    found[place].append((kind, order))
    for some in found.values():
        some.sort(key=lambda each: len(each[1]))
    return found


def changes_of(cell: Cell) -> Iterator[tuple[str, Cell]]:
    """Yield changes of a cell, by their names."""
    state, actions = cell
    for at, action in enumerate(actions):
        yield f"without {action.__name__[1:]}", (state, actions[:at] + actions[at + 1 :])
    for other in State:
        if other is not state:
            yield f"-> {other.name}", (other, actions)


@contextmanager
def table_with(state: State, event: Event, cell: Cell) -> Iterator[None]:
    """Change a cell of the table meanwhile."""
    cells = transitions.TABLE[state]
    before, cells[event] = cells[event], cell
    try:
        yield
    finally:
        cells[event] = before


def is_noticed(kind: str, order: Order) -> bool:
    try:
        return bool(broken_by(kind, order))
    except Exception:
        return True


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_every_cell_of_the_table_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events come to each but the dashes; what another action or state would do is noticed."""
    found = orders_by_cell(monkeypatch)
    places = {(state, event) for state in STATES for event in Event}
    assert places & set(found) == places - set(dashes()) - set(UNREACHED)
    for kind, order in RARE:
        assert is_possible(kind, order)
        assert broken_by(kind, order) == [], "as the table is"
    unnoticed: set[tuple[str, str, str]] = set()
    for (state, event), some in found.items():
        if state is State.GONE:
            continue
        for name, changed in changes_of(transitions.TABLE[state][event]):
            with table_with(state, event, changed):
                if not any(is_noticed(kind, order) for kind, order in some):
                    unnoticed.add((state.name, event.name, name))
    assert unnoticed == set()
