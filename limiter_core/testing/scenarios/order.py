"""S7, S8: whose turn it is: priority, then fair round, then arrival; the wide do not starve."""

from __future__ import annotations

from collections.abc import Sequence

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Request
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Stage, Steps

PRIORITY = ConflictResolution.PRIORITY


def _served(stage: Stage, requests: Sequence[Request]) -> Steps[list[str]]:
    """Queue these behind a holder of the only slot, in this order; return who is served when."""
    yield from stage.take(stage.request(id="holder", lease=1000))
    for request in requests:
        yield from stage.wait(request)
    return (yield from _drain(stage, "holder", {request.id: request for request in requests}))


def _drain(stage: Stage, holder: str, requests: dict[str, Request]) -> Steps[list[str]]:
    """Release one after the other; return who was served when."""
    announced = yield from stage.waiters()
    served: list[str] = []
    while len(served) < len(requests):
        yield from stage.release(holder)
        holders = yield from stage.holders()
        assert len(holders) == 1, f"{holder} let go of the only slot, now it is held by {holders}"
        holder = holders[0]
        assert holder in requests, f"{holder} is still there"
        yield from stage.take(requests[holder])
        served.append(holder)
    assert served == announced, "`inspect` announced another order"
    return served


@scenario("S7")
def arrival_order(stage: Stage) -> Steps[None]:
    """First come, first served, also within one tick of the clock."""
    names = [f"waiter-{number}" for number in range(12)]
    served = yield from _served(stage, [stage.request(id=name) for name in names])
    assert served == names


@scenario("S7", "PRIORITY")
def higher_priority_first_arrival_within(stage: Stage) -> Steps[None]:
    """Negative priorities, too."""
    priorities = {"low": -5, "first": 0, "high": 7, "second": 0, "higher": 7}
    served = yield from _served(
        stage,
        [
            stage.request(Demand(KEY, 1, 1, PRIORITY, priority=priority), id=name)
            for name, priority in priorities.items()
        ],
    )
    assert served == ["high", "higher", "first", "second", "low"]


@scenario("S7", rows=(20,))
def priorities_at_the_ends_of_their_range(stage: Stage) -> Steps[None]:
    """They are compared exactly."""
    edge = 2**31 - 1
    priorities = {"a": -edge, "b": edge - 1, "c": edge, "d": 1 - edge}
    served = yield from _served(
        stage,
        [
            stage.request(Demand(KEY, 1, 1, PRIORITY, priority=priority), id=name)
            for name, priority in priorities.items()
        ],
    )
    assert served == ["c", "b", "d", "a"]


def _of_groups(stage: Stage, groups: str) -> list[Request]:
    """Return a request for each letter, of the group that it names: `AAB` gives A1, A2, B1."""
    return [
        stage.request(
            Demand(KEY, 1, group=group), id=f"{group}{groups[: position + 1].count(group)}"
        )
        for position, group in enumerate(groups)
    ]


@scenario("S7")
def one_tenants_many_do_not_delay_anothers_first(stage: Stage) -> Steps[None]:
    """A fair round has one of each group."""
    served = yield from _served(stage, _of_groups(stage, "AAAAAB"))
    assert served == ["A1", "B1", "A2", "A3", "A4", "A5"]


@scenario("S7")
def groups_take_turns(stage: Stage) -> Steps[None]:
    """Three of them, of different lengths."""
    served = yield from _served(stage, _of_groups(stage, "AAABBC"))
    assert served == ["A1", "B1", "C1", "A2", "B2", "A3"]


@scenario("S7")
def a_group_that_joins_late_waits_one_round_at_most(stage: Stage) -> Steps[None]:
    """It neither stands behind the many of others, nor catches up on rounds it missed."""
    requests = {request.id: request for request in _of_groups(stage, "AAAAAAAA")}
    yield from stage.take(stage.request(id="holder"))
    for request in requests.values():
        yield from stage.wait(request)
    holder = "holder"
    for name in ("A1", "A2", "A3"):
        yield from stage.release(holder)
        yield from stage.take(requests.pop(name))
        holder = name
    late = {request.id: request for request in _of_groups(stage, "BBB")}
    for request in late.values():
        yield from stage.wait(request)
    served = yield from _drain(stage, holder, requests | late)
    assert served == ["A4", "B1", "A5", "B2", "A6", "B3", "A7", "A8"]


@scenario("S7", "PRIORITY")
def priority_goes_before_fairness(stage: Stage) -> Steps[None]:
    """Rounds are counted within one priority."""

    def request(name: str, priority: int) -> Request:
        return stage.request(Demand(KEY, 1, 1, PRIORITY, priority, group=name[0]), id=name)

    served = yield from _served(
        stage, [request("A1", 0), request("B1", 0), request("A2", 9), request("A3", 9)]
    )
    assert served == ["A2", "A3", "A1", "B1"]


@scenario("S7")
def an_arrival_order_may_be_given(stage: Stage) -> Steps[None]:
    """Who came first elsewhere, comes first here, whenever it asks."""
    began = int(stage.clock() * 1_000_000)
    orders = {"third": began - 1000, "first": began - 3000, "second": began - 2000}
    served = yield from _served(
        stage, [stage.request(id=name, order=order) for name, order in orders.items()]
    )
    assert served == ["first", "second", "third"]


@scenario("S7", rows=(20,))
def an_arrival_order_comes_back_as_it_was_given(stage: Stage) -> Steps[None]:
    """To the microsecond."""
    order = int(stage.clock() * 1_000_000) - 123_456_789
    yield from stage.take(stage.request())
    queued = yield from stage.wait(stage.request(order=order))
    assert queued.order == order
    now = yield from stage.wait(stage.request())
    assert now.order > order


@scenario("S8")
def a_wide_waiter_blocks_those_behind_it(stage: Stage) -> Steps[None]:
    """One slot after the other comes free, until it fits."""
    for name in ("a", "b", "c"):
        yield from stage.take(stage.request(Demand(KEY, 3), id=name))
    wide = stage.request(Demand(KEY, 3, 3), id="wide")
    yield from stage.wait(wide)
    narrow = stage.request(Demand(KEY, 3), id="narrow")
    yield from stage.wait(narrow)
    for name in ("a", "b"):
        yield from stage.release(name)
        assert (yield from stage.waiters()) == ["wide", "narrow"]
    yield from stage.release("c")
    yield from stage.take(wide)
    yield from stage.wait(narrow)
    yield from stage.release("wide")
    yield from stage.take(narrow)


@scenario("S8")
def the_wide_do_not_starve(stage: Stage) -> Steps[None]:
    """However many narrow ones keep coming: it is served when those before it are gone."""
    yield from stage.take(stage.request(Demand(KEY, 2), id="old-0"))
    yield from stage.take(stage.request(Demand(KEY, 2), id="old-1"))
    wide = stage.request(Demand(KEY, 2, 2), id="wide")
    yield from stage.wait(wide)
    for number in range(10):
        yield from stage.wait(stage.request(Demand(KEY, 2), id=f"narrow-{number}"))
        if number in (4, 8):
            yield from stage.release(f"old-{number // 8}")
    assert (yield from stage.holders()) == ["wide"]


@scenario("S8", "S12")
def a_waiter_survives_a_limit_below_its_cost(stage: Stage) -> Steps[None]:
    """Let in before the operator lowered the limit, it keeps its place until he raises it."""
    yield from stage.take(stage.request(Demand(KEY, 3, 3), id="holder"))
    wide = stage.request(Demand(KEY, 3, 3), id="wide")
    yield from stage.wait(wide)
    yield from stage.set_limit(2)
    yield from stage.release("holder")
    yield from stage.wait(wide)
    yield from stage.set_limit(3)
    yield from stage.take(wide)


@scenario("S7", "S17", needs=("durable",))
def jobs_that_let_their_slots_pass_at_once_stay_in_order(stage: Stage) -> Steps[None]:
    """Each takes a new turn of its group, in the order in which they had the slots."""
    yield from stage.take(stage.request(Demand(KEY, 3, 3), id="holder", lease=10_000))
    jobs = [
        stage.request(Demand(KEY, 3, group="tenant"), id=name, payload=b"job")
        for name in ("third", "second", "first")  # not by their names
    ]
    for job in jobs:
        yield from stage.wait(job)
    wide = Demand(KEY, 3, 3, group="tenant")
    yield from stage.wait(stage.request(wide, id="wide", lease=10_000))
    yield from stage.release("holder")
    assert (yield from stage.holders()) == [job.id for job in jobs]
    stage.clock.advance(jobs[0].claim + 0.1)
    yield from stage.sweep()
    assert (yield from stage.holders()) == ["wide"]
    assert (yield from stage.waiters()) == [job.id for job in jobs]
