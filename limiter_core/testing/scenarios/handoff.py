"""S6, S15: what comes free goes to who waits, in the same step, and to nobody else."""

from __future__ import annotations

from limiter_core.requests import Demand, Mode
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Stage, Steps

TRY = Mode.TRY


@scenario("S6", "S3", rows=(11, 12))
def nobody_slips_in_between_release_and_wake_up(stage: Stage) -> Steps[None]:
    """The slot is the waiter's from the release on, though it has not taken it up yet.

    In anyio a `nowait` between a release and the waiter's wake-up got in, too:
    https://github.com/agronholm/anyio/issues/1170.
    """
    yield from stage.take(stage.request(id="holder"))
    waiter = stage.request(id="waiter")
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    yield from stage.be_refused(stage.request(mode=TRY))
    yield from stage.wait(stage.request(id="newcomer"))
    yield from stage.take(waiter)
    assert (yield from stage.holders()) == ["waiter"]
    assert (yield from stage.waiters()) == ["newcomer"]


@scenario("S6")
def a_slot_handed_over_counts_as_in_use(stage: Stage) -> Steps[None]:
    """`inspect` shows who is to take it up."""
    yield from stage.take(stage.request(id="holder"))
    waiter = stage.request(id="waiter")
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    snapshot = yield from stage.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (1, 0)
    assert [(holder.id, holder.claimed) for holder in snapshot.holders] == [("waiter", False)]
    yield from stage.take(waiter)
    snapshot = yield from stage.inspect()
    assert [(holder.id, holder.claimed) for holder in snapshot.holders] == [("waiter", True)]


@scenario("S6", "S2")
def who_does_not_come_is_passed_over(stage: Stage) -> Steps[None]:
    """The claim time ends long before the lease would."""
    yield from stage.take(stage.request(id="holder"))
    absent = stage.request(id="absent", lease=300, claim=5)
    next_one = stage.request(id="next", lease=300)
    yield from stage.wait(absent)
    yield from stage.wait(next_one)
    yield from stage.release("holder")
    stage.clock.advance(4)
    yield from stage.wait(next_one)
    stage.clock.advance(2)
    yield from stage.take(next_one)
    assert (yield from stage.holders()) == ["next"]


@scenario("S6", "S10")
def renewal_is_no_claim(stage: Stage) -> Steps[None]:
    """A process that renews all its ids does not keep a slot that nobody takes up."""
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="absent", claim=5))
    next_one = stage.request(id="next")
    yield from stage.wait(next_one)
    yield from stage.release("holder")
    stage.clock.advance(3)
    assert not (yield from stage.renew("absent")).gone
    stage.clock.advance(3)
    yield from stage.take(next_one)


@scenario("S6", "S7")
def who_was_passed_over_keeps_its_arrival_order(stage: Stage) -> Steps[None]:
    """It asks again with the order it was given, and stands ahead of those who came later."""
    yield from stage.take(stage.request(id="holder"))
    slow = stage.request(id="slow", lease=300, claim=5)
    queued = yield from stage.wait(slow)
    quick = stage.request(id="quick", lease=300)
    yield from stage.wait(quick)
    yield from stage.wait(stage.request(id="later", lease=300))
    yield from stage.release("holder")
    stage.clock.advance(6)
    yield from stage.take(quick)
    yield from stage.wait(slow._replace(order=queued.order))
    assert (yield from stage.waiters()) == ["slow", "later"]


@scenario("S6")
def a_claim_starts_a_whole_lease(stage: Stage) -> Steps[None]:
    """Whoever comes at the last moment has its lease from then on."""
    yield from stage.take(stage.request(id="holder"))
    waiter = stage.request(id="waiter", lease=30, claim=5)
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    stage.clock.advance(4)
    granted = yield from stage.take(waiter)
    assert granted.expires_in is None or granted.expires_in > 29
    stage.clock.advance(29)
    yield from stage.be_refused(stage.request(mode=TRY))
    stage.clock.advance(2)
    yield from stage.take(stage.request(mode=TRY))


@scenario("S6", "S7", rows=(12,))
def the_line_moves_in_order_while_others_arrive(stage: Stage) -> Steps[None]:
    """One is released, one is served, one arrives: nobody is overtaken, ever."""
    yield from stage.take(stage.request(id="turn-0"))
    requests = [stage.request(id=f"turn-{number}") for number in range(1, 31)]
    for request in requests[:10]:
        yield from stage.wait(request)
    for turn, request in enumerate(requests):
        yield from stage.release(f"turn-{turn}")
        if turn + 10 < len(requests):
            yield from stage.wait(requests[turn + 10])
        yield from stage.take(request)
        assert (yield from stage.holders()) == [request.id]


@scenario("S6", "S8")
def a_wide_release_serves_several(stage: Stage) -> Steps[None]:
    """As many as fit, in one step."""
    yield from stage.take(stage.request(Demand(KEY, 3, 3), id="wide"))
    for number in range(5):
        yield from stage.wait(stage.request(Demand(KEY, 3), id=f"narrow-{number}"))
    yield from stage.release("wide")
    assert (yield from stage.holders()) == ["narrow-0", "narrow-1", "narrow-2"]
    assert (yield from stage.waiters()) == ["narrow-3", "narrow-4"]


@scenario("S6", "S15", rows=(10,))
def a_grant_that_crossed_a_withdrawal_goes_to_the_next(stage: Stage) -> Steps[None]:
    """The waiter timed out just as it was handed the slot: it gives back what it does not know of.

    A limiter that forgets this loses a slot for good: https://github.com/agronholm/anyio/issues/947.
    """
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="impatient"))
    next_one = stage.request(id="next")
    yield from stage.wait(next_one)
    yield from stage.release("holder")
    assert (yield from stage.release("impatient")) is True
    yield from stage.take(next_one)
    yield from stage.release("next")
    for _ in range(3):
        granted = stage.request()
        yield from stage.take(granted)
        yield from stage.release(granted.id)
    assert (yield from stage.keys()) == []


@scenario("S15", "S8")
def a_wide_waiter_that_leaves_lets_the_others_in(stage: Stage) -> Steps[None]:
    """Its withdrawal frees no slot, but a place: the next fit, in the same step."""
    yield from stage.take(stage.request(Demand(KEY, 3), id="holder"))
    yield from stage.wait(stage.request(Demand(KEY, 3, 3), id="wide"))
    narrow = [stage.request(Demand(KEY, 3), id=f"narrow-{number}") for number in range(3)]
    for request in narrow:
        yield from stage.wait(request)
    yield from stage.release("wide")
    assert (yield from stage.waiters()) == ["narrow-2"]
    yield from stage.take(narrow[0])
    yield from stage.take(narrow[1])


@scenario("S2", "S6", "S8")
def a_wide_waiter_that_dies_lets_the_others_in(stage: Stage) -> Steps[None]:
    """The step that notices it serves those behind it."""
    yield from stage.take(stage.request(Demand(KEY, 2), id="holder", lease=1000))
    yield from stage.wait(stage.request(Demand(KEY, 2, 2), id="wide", lease=10))
    narrow = stage.request(Demand(KEY, 2), id="narrow", lease=1000)
    yield from stage.wait(narrow)
    stage.clock.advance(11)
    yield from stage.be_refused(stage.request(Demand(KEY, 2), mode=TRY))
    yield from stage.take(narrow)


@scenario("S6")
def an_eviction_hands_on(stage: Stage) -> Steps[None]:
    """A slot taken back from a stuck holder goes to who waits."""
    yield from stage.take(stage.request(id="stuck"))
    waiter = stage.request(id="waiter")
    yield from stage.wait(waiter)
    assert (yield from stage.evict("stuck")) is True
    yield from stage.be_refused(stage.request(mode=TRY))
    yield from stage.take(waiter)
    assert set((yield from stage.renew("stuck")).gone) == {"stuck"}


@scenario("S6", rows=(24,))
def one_release_does_not_wake_the_herd(stage: Stage) -> Steps[None]:
    """Who was served is woken; the next in line may be, to see to the end of its lease."""
    yield from stage.take(stage.request(id="holder"))
    listeners = [RecordingListener() for _ in range(5)]
    requests = [
        stage.request(id=f"waiter-{number}", listener=listener)
        for number, listener in enumerate(listeners)
    ]
    for request in requests:
        yield from stage.wait(request)
    assert not any(listener.woken for listener in listeners[1:])
    yield from stage.release("holder")
    yield from stage.eventually("the first was woken", lambda: listeners[0].woken)
    yield from stage.take(requests[0])
    assert not any(listener.woken for listener in listeners[2:])
    yield from stage.release("waiter-0")
    yield from stage.eventually("the second was woken", lambda: listeners[1].woken)
    yield from stage.take(requests[1])
    assert not any(listener.woken for listener in listeners[3:])


@scenario("S6", "S15", rows=(10, 31))
def a_slot_is_not_left_with_a_caller_that_is_gone(stage: Stage) -> Steps[None]:
    """Its event loop ended while it waited: the wake-up finds nobody, and the next is served."""
    gone, there = RecordingListener(present=False), RecordingListener()
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="gone", listener=gone))
    waiter = stage.request(id="there", listener=there)
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    yield from stage.eventually("the next was woken", lambda: there.woken)
    yield from stage.take(waiter)
    assert (yield from stage.holders()) == ["there"]


@scenario("S6", "S1")
def the_answer_that_comes_with_a_wake_up_is_the_answer(stage: Stage) -> Steps[None]:
    """A store may deliver it; asking then says the same."""
    listener = RecordingListener()
    yield from stage.take(stage.request(id="holder"))
    waiter = stage.request(id="waiter", listener=listener)
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    yield from stage.eventually("the waiter was woken", lambda: listener.woken)
    granted = yield from stage.take(waiter)
    assert all(answer in (None, granted) for answer in listener.answers)
