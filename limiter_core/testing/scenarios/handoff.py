"""S6, S15: free slots go to the waiters, in the same step, and to no other call."""

from __future__ import annotations

from limiter_core.requests import Demand, Mode
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Steps, StoreUnderTest

TRY = Mode.TRY


@scenario("S6", "S3", rows=(11, 12))
def nobody_slips_in_between_release_and_wake_up(store: StoreUnderTest) -> Steps[None]:
    """The slot is the waiter's from the release on, though it has not taken it up yet.

    In anyio a `nowait` between a release and the waiter's wake-up got in, too:
    https://github.com/agronholm/anyio/issues/1170.
    """
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter")
    yield from store.wait(waiter)
    yield from store.release("holder")
    yield from store.be_refused(store.request(mode=TRY))
    yield from store.wait(store.request(id="newcomer"))
    yield from store.take(waiter)
    assert (yield from store.holders()) == ["waiter"]
    assert (yield from store.waiters()) == ["newcomer"]


@scenario("S6")
def a_slot_handed_over_counts_as_in_use(store: StoreUnderTest) -> Steps[None]:
    """`inspect` shows the call that is to claim it."""
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter")
    yield from store.wait(waiter)
    yield from store.release("holder")
    snapshot = yield from store.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (1, 0)
    assert [(holder.id, holder.claimed) for holder in snapshot.holders] == [("waiter", False)]
    yield from store.take(waiter)
    snapshot = yield from store.inspect()
    assert [(holder.id, holder.claimed) for holder in snapshot.holders] == [("waiter", True)]


@scenario("S6", "S2")
def a_waiter_that_does_not_claim_is_passed_over(store: StoreUnderTest) -> Steps[None]:
    """The claim time ends long before the lease would."""
    yield from store.take(store.request(id="holder"))
    absent = store.request(id="absent", lease=300, claim=5)
    next_one = store.request(id="next", lease=300)
    yield from store.wait(absent)
    yield from store.wait(next_one)
    yield from store.release("holder")
    store.clock.advance(4)
    yield from store.wait(next_one)
    store.clock.advance(2)
    yield from store.take(next_one)
    assert (yield from store.holders()) == ["next"]


@scenario("S6", "S10")
def renewal_is_no_claim(store: StoreUnderTest) -> Steps[None]:
    """A process that renews all its ids does not keep a slot that is not claimed."""
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="absent", claim=5))
    next_one = store.request(id="next")
    yield from store.wait(next_one)
    yield from store.release("holder")
    store.clock.advance(3)
    assert not (yield from store.renew("absent")).gone
    store.clock.advance(3)
    yield from store.take(next_one)


@scenario("S6", "S7")
def a_waiter_that_was_passed_over_keeps_its_arrival_order(store: StoreUnderTest) -> Steps[None]:
    """It asks again with the order it was given, and is ahead of later calls."""
    yield from store.take(store.request(id="holder"))
    slow = store.request(id="slow", lease=300, claim=5)
    queued = yield from store.wait(slow)
    quick = store.request(id="quick", lease=300)
    yield from store.wait(quick)
    yield from store.wait(store.request(id="later", lease=300))
    yield from store.release("holder")
    store.clock.advance(6)
    yield from store.take(quick)
    yield from store.wait(slow._replace(order=queued.order))
    assert (yield from store.waiters()) == ["slow", "later"]


@scenario("S6")
def a_claim_starts_a_whole_lease(store: StoreUnderTest) -> Steps[None]:
    """A call that claims at the last moment has its lease from then on."""
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter", lease=30, claim=5)
    yield from store.wait(waiter)
    yield from store.release("holder")
    store.clock.advance(4)
    granted = yield from store.take(waiter)
    assert granted.expires_in is None or granted.expires_in > 29
    store.clock.advance(29)
    yield from store.be_refused(store.request(mode=TRY))
    store.clock.advance(2)
    yield from store.take(store.request(mode=TRY))


@scenario("S6", "S7", rows=(12,))
def the_line_moves_in_order_while_others_arrive(store: StoreUnderTest) -> Steps[None]:
    """One is released, one is served, one arrives: no call is ever overtaken."""
    yield from store.take(store.request(id="turn-0"))
    requests = [store.request(id=f"turn-{number}") for number in range(1, 31)]
    for request in requests[:10]:
        yield from store.wait(request)
    for turn, request in enumerate(requests):
        yield from store.release(f"turn-{turn}")
        if turn + 10 < len(requests):
            yield from store.wait(requests[turn + 10])
        yield from store.take(request)
        assert (yield from store.holders()) == [request.id]


@scenario("S6", "S8")
def a_wide_release_serves_several(store: StoreUnderTest) -> Steps[None]:
    """As many as fit, in one step."""
    yield from store.take(store.request(Demand(KEY, 3, 3), id="wide"))
    for number in range(5):
        yield from store.wait(store.request(Demand(KEY, 3), id=f"narrow-{number}"))
    yield from store.release("wide")
    assert (yield from store.holders()) == ["narrow-0", "narrow-1", "narrow-2"]
    assert (yield from store.waiters()) == ["narrow-3", "narrow-4"]


@scenario("S6", "S15", rows=(10,))
def a_grant_that_crossed_a_withdrawal_goes_to_the_next(store: StoreUnderTest) -> Steps[None]:
    """The waiter timed out when it was handed the slot: it releases it without knowing.

    A limiter that forgets this loses a slot for good: https://github.com/agronholm/anyio/issues/947.
    """
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="impatient"))
    next_one = store.request(id="next")
    yield from store.wait(next_one)
    yield from store.release("holder")
    assert (yield from store.release("impatient")) is True
    yield from store.take(next_one)
    yield from store.release("next")
    for _ in range(3):
        granted = store.request()
        yield from store.take(granted)
        yield from store.release(granted.id)
    assert (yield from store.keys()) == []


@scenario("S15", "S8")
def a_wide_waiter_that_leaves_lets_the_others_in(store: StoreUnderTest) -> Steps[None]:
    """Its withdrawal frees no slot, but a place: the next fit, in the same step."""
    yield from store.take(store.request(Demand(KEY, 3), id="holder"))
    yield from store.wait(store.request(Demand(KEY, 3, 3), id="wide"))
    narrow = [store.request(Demand(KEY, 3), id=f"narrow-{number}") for number in range(3)]
    for request in narrow:
        yield from store.wait(request)
    yield from store.release("wide")
    assert (yield from store.waiters()) == ["narrow-2"]
    yield from store.take(narrow[0])
    yield from store.take(narrow[1])


@scenario("S2", "S6", "S8")
def a_wide_waiter_that_dies_lets_the_others_in(store: StoreUnderTest) -> Steps[None]:
    """The step that notices it serves those behind it."""
    yield from store.take(store.request(Demand(KEY, 2), id="holder", lease=1000))
    yield from store.wait(store.request(Demand(KEY, 2, 2), id="wide", lease=10))
    narrow = store.request(Demand(KEY, 2), id="narrow", lease=1000)
    yield from store.wait(narrow)
    store.clock.advance(11)
    yield from store.be_refused(store.request(Demand(KEY, 2), mode=TRY))
    yield from store.take(narrow)


@scenario("S6")
def an_eviction_hands_on(store: StoreUnderTest) -> Steps[None]:
    """A slot that is taken from a stuck holder goes to a waiter."""
    yield from store.take(store.request(id="stuck"))
    waiter = store.request(id="waiter")
    yield from store.wait(waiter)
    assert (yield from store.evict("stuck")) is True
    yield from store.be_refused(store.request(mode=TRY))
    yield from store.take(waiter)
    assert set((yield from store.renew("stuck")).gone) == {"stuck"}


@scenario("S6", rows=(24,))
def one_release_does_not_wake_the_herd(store: StoreUnderTest) -> Steps[None]:
    """The served waiter is woken; the next may be, to look at the end of that lease."""
    yield from store.take(store.request(id="holder"))
    listeners = [RecordingListener() for _ in range(5)]
    requests = [
        store.request(id=f"waiter-{number}", listener=listener)
        for number, listener in enumerate(listeners)
    ]
    for request in requests:
        yield from store.wait(request)
    assert not any(listener.woken for listener in listeners[1:])
    yield from store.release("holder")
    yield from store.eventually("the first was woken", lambda: listeners[0].woken)
    yield from store.take(requests[0])
    assert not any(listener.woken for listener in listeners[2:])
    yield from store.release("waiter-0")
    yield from store.eventually("the second was woken", lambda: listeners[1].woken)
    yield from store.take(requests[1])
    assert not any(listener.woken for listener in listeners[3:])


@scenario("S6", "S15", rows=(10, 31))
def a_slot_is_not_left_with_a_caller_that_is_gone(store: StoreUnderTest) -> Steps[None]:
    """Its event loop ended while it waited: the wake-up finds no caller, and the next is served."""
    gone, there = RecordingListener(present=False), RecordingListener()
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="gone", listener=gone))
    waiter = store.request(id="there", listener=there)
    yield from store.wait(waiter)
    yield from store.release("holder")
    yield from store.eventually("the next was woken", lambda: there.woken)
    yield from store.take(waiter)
    assert (yield from store.holders()) == ["there"]


@scenario("S6", "S1")
def the_answer_that_comes_with_a_wake_up_is_the_answer(store: StoreUnderTest) -> Steps[None]:
    """A store may deliver it; asking then says the same."""
    listener = RecordingListener()
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter", listener=listener)
    yield from store.wait(waiter)
    yield from store.release("holder")
    yield from store.eventually("the waiter was woken", lambda: listener.woken)
    granted = yield from store.take(waiter)
    assert all(answer in (None, granted) for answer in listener.answers)
