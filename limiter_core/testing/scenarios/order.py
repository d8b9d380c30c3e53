"""S7, S8: whose turn it is: priority, then fair round, then arrival; the wide do not starve."""

from __future__ import annotations

from collections.abc import Sequence

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Request
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Steps, StoreUnderTest

PRIORITY = ConflictResolution.PRIORITY


def _served(store: StoreUnderTest, requests: Sequence[Request]) -> Steps[list[str]]:
    """Queue these behind a holder of the only slot; return the order in which they are served."""
    yield from store.take(store.request(id="holder", lease=1000))
    for request in requests:
        yield from store.wait(request)
    return (yield from _drain(store, "holder", {request.id: request for request in requests}))


def _drain(store: StoreUnderTest, holder: str, requests: dict[str, Request]) -> Steps[list[str]]:
    """Release one after the other; return the order in which they were served."""
    announced = yield from store.waiters()
    served: list[str] = []
    while len(served) < len(requests):
        yield from store.release(holder)
        holders = yield from store.holders()
        assert len(holders) == 1, f"{holder} released the only slot, now it is held by {holders}"
        holder = holders[0]
        assert holder in requests, f"{holder} is still there"
        yield from store.take(requests[holder])
        served.append(holder)
    assert served == announced, "`inspect` announced another order"
    return served


@scenario("S7")
def arrival_order(store: StoreUnderTest) -> Steps[None]:
    """First come, first served, also within one tick of the clock."""
    names = [f"waiter-{number}" for number in range(12)]
    served = yield from _served(store, [store.request(id=name) for name in names])
    assert served == names


@scenario("S7", "PRIORITY")
def higher_priority_first_arrival_within(store: StoreUnderTest) -> Steps[None]:
    """Negative priorities, too."""
    priorities = {"low": -5, "first": 0, "high": 7, "second": 0, "higher": 7}
    served = yield from _served(
        store,
        [
            store.request(Demand(KEY, 1, 1, PRIORITY, priority=priority), id=name)
            for name, priority in priorities.items()
        ],
    )
    assert served == ["high", "higher", "first", "second", "low"]


@scenario("S7", rows=(20,))
def priorities_at_the_ends_of_their_range(store: StoreUnderTest) -> Steps[None]:
    """They are compared exactly."""
    edge = 2**31 - 1
    priorities = {"a": -edge, "b": edge - 1, "c": edge, "d": 1 - edge}
    served = yield from _served(
        store,
        [
            store.request(Demand(KEY, 1, 1, PRIORITY, priority=priority), id=name)
            for name, priority in priorities.items()
        ],
    )
    assert served == ["c", "b", "d", "a"]


def _of_groups(store: StoreUnderTest, groups: str) -> list[Request]:
    """Return a request for each letter, of the group that it names: `AAB` gives A1, A2, B1."""
    return [
        store.request(
            Demand(KEY, 1, group=group), id=f"{group}{groups[: position + 1].count(group)}"
        )
        for position, group in enumerate(groups)
    ]


@scenario("S7")
def one_tenants_many_do_not_delay_anothers_first(store: StoreUnderTest) -> Steps[None]:
    """A fair round has one of each group."""
    served = yield from _served(store, _of_groups(store, "AAAAAB"))
    assert served == ["A1", "B1", "A2", "A3", "A4", "A5"]


@scenario("S7")
def groups_take_turns(store: StoreUnderTest) -> Steps[None]:
    """Three of them, of different lengths."""
    served = yield from _served(store, _of_groups(store, "AAABBC"))
    assert served == ["A1", "B1", "C1", "A2", "B2", "A3"]


@scenario("S7")
def a_group_that_joins_late_waits_one_round_at_most(store: StoreUnderTest) -> Steps[None]:
    """It neither waits behind the many of others, nor makes up for rounds it missed."""
    requests = {request.id: request for request in _of_groups(store, "AAAAAAAA")}
    yield from store.take(store.request(id="holder"))
    for request in requests.values():
        yield from store.wait(request)
    holder = "holder"
    for name in ("A1", "A2", "A3"):
        yield from store.release(holder)
        yield from store.take(requests.pop(name))
        holder = name
    late = {request.id: request for request in _of_groups(store, "BBB")}
    for request in late.values():
        yield from store.wait(request)
    served = yield from _drain(store, holder, requests | late)
    assert served == ["A4", "B1", "A5", "B2", "A6", "B3", "A7", "A8"]


@scenario("S7", "PRIORITY")
def priority_goes_before_fairness(store: StoreUnderTest) -> Steps[None]:
    """Rounds are counted within one priority."""

    def request(name: str, priority: int) -> Request:
        return store.request(Demand(KEY, 1, 1, PRIORITY, priority, group=name[0]), id=name)

    served = yield from _served(
        store, [request("A1", 0), request("B1", 0), request("A2", 9), request("A3", 9)]
    )
    assert served == ["A2", "A3", "A1", "B1"]


@scenario("S7")
def an_arrival_order_may_be_given(store: StoreUnderTest) -> Steps[None]:
    """A call that came first elsewhere is first here, whenever it asks."""
    began = int(store.clock() * 1_000_000)
    orders = {"third": began - 1000, "first": began - 3000, "second": began - 2000}
    served = yield from _served(
        store, [store.request(id=name, order=order) for name, order in orders.items()]
    )
    assert served == ["first", "second", "third"]


@scenario("S7", rows=(20,))
def an_arrival_order_comes_back_as_it_was_given(store: StoreUnderTest) -> Steps[None]:
    """To the microsecond."""
    order = int(store.clock() * 1_000_000) - 123_456_789
    yield from store.take(store.request())
    queued = yield from store.wait(store.request(order=order))
    assert queued.order == order
    now = yield from store.wait(store.request())
    assert now.order > order


@scenario("S8")
def a_wide_waiter_blocks_those_behind_it(store: StoreUnderTest) -> Steps[None]:
    """One slot after the other is released, until it fits."""
    for name in ("a", "b", "c"):
        yield from store.take(store.request(Demand(KEY, 3), id=name))
    wide = store.request(Demand(KEY, 3, 3), id="wide")
    yield from store.wait(wide)
    narrow = store.request(Demand(KEY, 3), id="narrow")
    yield from store.wait(narrow)
    for name in ("a", "b"):
        yield from store.release(name)
        assert (yield from store.waiters()) == ["wide", "narrow"]
    yield from store.release("c")
    yield from store.take(wide)
    yield from store.wait(narrow)
    yield from store.release("wide")
    yield from store.take(narrow)


@scenario("S8")
def the_wide_do_not_starve(store: StoreUnderTest) -> Steps[None]:
    """However many narrow ones keep coming: it is served when those before it are gone."""
    yield from store.take(store.request(Demand(KEY, 2), id="old-0"))
    yield from store.take(store.request(Demand(KEY, 2), id="old-1"))
    wide = store.request(Demand(KEY, 2, 2), id="wide")
    yield from store.wait(wide)
    for number in range(10):
        yield from store.wait(store.request(Demand(KEY, 2), id=f"narrow-{number}"))
        if number in (4, 8):
            yield from store.release(f"old-{number // 8}")
    assert (yield from store.holders()) == ["wide"]


@scenario("S8", "S12")
def a_waiter_survives_a_limit_below_its_cost(store: StoreUnderTest) -> Steps[None]:
    """Let in before an operator lowered the limit, it keeps its place until that is raised."""
    yield from store.take(store.request(Demand(KEY, 3, 3), id="holder"))
    wide = store.request(Demand(KEY, 3, 3), id="wide")
    yield from store.wait(wide)
    yield from store.set_limit(2)
    yield from store.release("holder")
    yield from store.wait(wide)
    yield from store.set_limit(3)
    yield from store.take(wide)


@scenario("S7", "S17", needs=("durable",))
def jobs_that_let_their_slots_pass_at_once_stay_in_order(store: StoreUnderTest) -> Steps[None]:
    """Each takes a new turn of its group, in the order in which they had the slots."""
    yield from store.take(store.request(Demand(KEY, 3, 3), id="holder", lease=10_000))
    jobs = [
        store.request(Demand(KEY, 3, group="tenant"), id=name, payload=b"job")
        for name in ("third", "second", "first")  # not by their names
    ]
    for job in jobs:
        yield from store.wait(job)
    wide = Demand(KEY, 3, 3, group="tenant")
    yield from store.wait(store.request(wide, id="wide", lease=10_000))
    yield from store.release("holder")
    assert (yield from store.holders()) == [job.id for job in jobs]
    store.clock.advance(jobs[0].claim + 0.1)
    yield from store.sweep()
    assert (yield from store.holders()) == ["wide"]
    assert (yield from store.waiters()) == [job.id for job in jobs]
