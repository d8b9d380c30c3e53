"""S3, S4, S8, S12, S13: which calls are admitted, have to wait, or are refused."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Mode, Refusal, Refused
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest

CANCEL = ConflictResolution.CANCEL


@scenario("S3", rows=(4,))
def the_limit_is_reached_and_never_passed(store: StoreUnderTest) -> Steps[None]:
    """As many as the limit are admitted at once; the next gets the state of the key."""
    for _ in range(3):
        yield from store.take(store.request(Demand(KEY, 3)))
    refused = yield from store.be_refused(store.request(Demand(KEY, 3), mode=Mode.TRY))
    assert (refused.key, refused.max_concurrent, refused.in_use) == (KEY, 3, 3)
    assert refused.reason is Refusal.FULL
    assert (yield from store.inspect()).in_use == 3


@scenario("S3")
def costs_add_up(store: StoreUnderTest) -> Steps[None]:
    """Three and two slots fit under five, three and three do not."""
    yield from store.take(store.request(Demand(KEY, 5, 3)))
    refused = yield from store.be_refused(store.request(Demand(KEY, 5, 3), mode=Mode.TRY))
    assert refused.in_use == 3
    yield from store.take(store.request(Demand(KEY, 5, 2)))
    assert (yield from store.inspect()).in_use == 5


@scenario("S3", rows=(4,))
def waiting_long_is_no_reason_to_come_in(store: StoreUnderTest) -> Steps[None]:
    """However often a waiter asks, and for how long: in it comes when there is room."""
    yield from store.take(store.request(id="holder", lease=1000))
    waiter = store.request(id="waiter", lease=20)
    queued = yield from store.wait(waiter)
    for _ in range(20):
        store.clock.advance(9.5)
        yield from store.wait(waiter._replace(order=queued.order))
    assert (yield from store.holders()) == ["holder"]


@scenario("S8")
def a_cost_above_the_limit_is_refused(store: StoreUnderTest) -> Steps[None]:
    """It would wait for ever. It gets the reason, waits nowhere and leaves nothing."""
    for mode in (Mode.WAIT, Mode.TRY):
        refused = yield from store.be_refused(store.request(Demand(KEY, 2, 3), mode=mode))
        assert (refused.reason, refused.max_concurrent) == (Refusal.COST, 2)
    assert (yield from store.keys()) == []
    yield from store.take(store.request(Demand(KEY, 2, 2)))


@scenario("S8", "S9")
def a_cost_above_one_of_several_limits_is_refused(store: StoreUnderTest) -> Steps[None]:
    """Nothing is taken of the other key."""
    refused = yield from store.be_refused(store.request(Demand(KEY, 1), Demand(OTHER_KEY, 2, 3)))
    assert (refused.key, refused.reason) == (OTHER_KEY, Refusal.COST)
    assert (yield from store.keys()) == []


@scenario("S3")
def a_try_has_no_effect_on_anybody(store: StoreUnderTest) -> Steps[None]:
    """Refused, it leaves no ticket, and the waiters keep their turn."""
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter")
    yield from store.wait(waiter)
    for resolution in ConflictResolution:
        attempt = store.request(Demand(KEY, 1, 1, resolution), mode=Mode.TRY)
        yield from store.be_refused(attempt)
    assert (yield from store.waiters()) == ["waiter"]
    assert not (yield from store.renew("holder")).preempted
    yield from store.release("holder")
    yield from store.take(waiter)


@scenario("S3", "S8", rows=(12,))
def nobody_enters_past_a_waiter(store: StoreUnderTest) -> Steps[None]:
    """One slot is free, but the first waiter needs two: a call that fits waits behind it."""
    yield from store.take(store.request(Demand(KEY, 2), id="holder"))
    wide = store.request(Demand(KEY, 2, 2), id="wide")
    yield from store.wait(wide)
    yield from store.be_refused(store.request(Demand(KEY, 2), mode=Mode.TRY))
    yield from store.be_refused(store.request(Demand(KEY, 2, 1, CANCEL)))
    yield from store.wait(store.request(Demand(KEY, 2), id="narrow"))
    yield from store.release("holder")
    yield from store.take(wide)
    assert (yield from store.waiters()) == ["narrow"]


@scenario("S3", "S7")
def a_higher_priority_has_nobody_ahead(store: StoreUnderTest) -> Steps[None]:
    """A call that would be first, and fits, is admitted at once."""
    first = ConflictResolution.PRIORITY
    yield from store.take(store.request(Demand(KEY, 2, 1, first)))
    yield from store.wait(store.request(Demand(KEY, 2, 2, first, priority=0), id="wide"))
    yield from store.take(store.request(Demand(KEY, 2, 1, first, priority=5)))
    assert (yield from store.waiters()) == ["wide"]


@scenario("S4", "S6", rows=(11,))
def a_release_right_after_the_refusal_is_not_missed(store: StoreUnderTest) -> Steps[None]:
    """Denied and queued is one step: the very next release finds the waiter."""
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter")
    yield from store.wait(waiter)
    yield from store.release("holder")
    assert (yield from store.holders()) == ["waiter"]
    yield from store.take(waiter)


@scenario("S12", rows=(36,))
def each_enters_below_the_number_it_declares(store: StoreUnderTest) -> Steps[None]:
    """Two functions share a key under different numbers; neither changes the other's."""
    yield from store.take(store.request(Demand(KEY, 3)))
    yield from store.take(store.request(Demand(KEY, 2)))
    refused = yield from store.be_refused(store.request(Demand(KEY, 2), mode=Mode.TRY))
    assert (refused.max_concurrent, refused.in_use) == (2, 2)
    yield from store.take(store.request(Demand(KEY, 3)))
    yield from store.be_refused(store.request(Demand(KEY, 3), mode=Mode.TRY))


@scenario("S12", rows=(36,))
def inspect_shows_a_disagreement(store: StoreUnderTest) -> Steps[None]:
    """All the numbers that are declared, and the highest as the limit."""
    yield from store.take(store.request(Demand(KEY, 3), id="three"))
    yield from store.take(store.request(Demand(KEY, 2), id="two"))
    snapshot = yield from store.inspect()
    assert (snapshot.declared, snapshot.limit) == ((2, 3), 3)
    assert {holder.id: holder.limit for holder in snapshot.holders} == {"three": 3, "two": 2}
    yield from store.release("three")
    snapshot = yield from store.inspect()
    assert (snapshot.declared, snapshot.limit) == ((2,), 2)


@scenario("S12", "S6", rows=(36,))
def a_waiter_is_served_by_the_number_it_declares(store: StoreUnderTest) -> Steps[None]:
    """The first in line wants less than one slot of two in use; it blocks those behind (S8)."""
    yield from store.take(store.request(Demand(KEY, 2), id="a"))
    yield from store.take(store.request(Demand(KEY, 2), id="b"))
    one, two = store.request(Demand(KEY, 1), id="one"), store.request(Demand(KEY, 2), id="two")
    yield from store.wait(one)
    yield from store.wait(two)
    yield from store.release("a")
    yield from store.wait(one)
    yield from store.release("b")
    yield from store.take(one)
    yield from store.take(two)


@scenario("S12")
def a_declared_zero_admits_nobody(store: StoreUnderTest) -> Steps[None]:
    """They wait, or are refused; it is not the cost that is at fault."""
    closed = store.request(Demand(KEY, 0), id="closed")
    queued = yield from store.wait(closed)
    assert (queued.max_concurrent, queued.in_use) == (0, 0)
    refused = yield from store.be_refused(store.request(Demand(KEY, 0, 1, CANCEL)))
    assert (refused.reason, refused.max_concurrent) == (Refusal.FULL, 0)
    yield from store.release("closed")
    assert (yield from store.keys()) == []


@scenario("S13", rows=(34,))
def the_queue_is_as_long_as_it_may_be(store: StoreUnderTest) -> Steps[None]:
    """One more is refused at once, until one has left."""
    demand = Demand(KEY, 1, max_waiting=2)
    yield from store.take(store.request(demand))
    first, second = store.request(demand, id="first"), store.request(demand, id="second")
    yield from store.wait(first)
    yield from store.wait(second)
    refused = yield from store.be_refused(store.request(demand))
    assert (refused.key, refused.reason) == (KEY, Refusal.QUEUE_FULL)
    yield from store.release("first")
    yield from store.wait(store.request(demand, id="third"))
    assert (yield from store.waiters()) == ["second", "third"]


@scenario("S13", "S1", rows=(34,))
def asking_again_needs_no_second_place(store: StoreUnderTest) -> Steps[None]:
    """A full queue does not refuse the calls in it."""
    demand = Demand(KEY, 1, max_waiting=1)
    yield from store.take(store.request(demand, id="holder"))
    waiter = store.request(demand, id="waiter")
    yield from store.wait(waiter)
    yield from store.wait(waiter)
    yield from store.be_refused(store.request(demand))
    yield from store.release("holder")
    yield from store.take(waiter)


@scenario("S13", rows=(34,))
def no_place_to_wait_at_all(store: StoreUnderTest) -> Steps[None]:
    """`max_waiting=0` admits, or refuses."""
    demand = Demand(KEY, 1, max_waiting=0)
    yield from store.take(store.request(demand))
    answer = yield from store.acquire(store.request(demand))
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.QUEUE_FULL
    assert not isinstance(answer, Granted)


@scenario("S2", "S13", rows=(34,))
def the_dead_take_no_place_in_the_queue(store: StoreUnderTest) -> Steps[None]:
    """A waiter that stopped asking makes room for the next."""
    demand = Demand(KEY, 1, max_waiting=1)
    yield from store.take(store.request(demand, lease=1000))
    yield from store.wait(store.request(demand, id="dead", lease=10))
    store.clock.advance(11)
    yield from store.wait(store.request(demand, id="alive", lease=10))
    assert (yield from store.waiters()) == ["alive"]
