"""S1, S5, S19: ids. Repeating is safe; a release removes only what it names."""

from __future__ import annotations

from limiter_core._held_leases import HeldLease, with_held
from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Loss, Mode, Replaced
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest
from limiter_core.tracing import labelled

TWO = Demand(KEY, 2)


@scenario("S1", rows=(27,))
def repeating_a_grant_takes_one_slot(store: StoreUnderTest) -> Steps[None]:
    """A reply was lost, the request is sent again: the same answer, and one slot."""
    request = store.request(TWO, id="lost-reply")
    first = yield from store.take(request)
    again = yield from store.take(request)
    assert again == first
    assert (yield from store.inspect()).in_use == 1
    yield from store.take(store.request(TWO))


@scenario("S1")
def repeating_a_grant_later_is_as_good_as_a_renewal(store: StoreUnderTest) -> Steps[None]:
    """The answer is the same, so the time it promises is the lease's, from now."""
    request = store.request(id="holder")
    first = yield from store.take(request)
    store.clock.advance(20)
    again = yield from store.take(request)
    assert again.fencing_token == first.fencing_token
    store.clock.advance(20)
    yield from store.be_refused(store.request(Demand(KEY, 1, 1, ConflictResolution.CANCEL)))
    assert (yield from store.holders()) == ["holder"]


@scenario("S1", "S4")
def repeating_a_wait_keeps_one_ticket(store: StoreUnderTest) -> Steps[None]:
    """A waiter that asks again keeps its place and its arrival order."""
    yield from store.take(store.request(id="holder"))
    request = store.request(id="waiter")
    first = yield from store.wait(request)
    yield from store.wait(store.request(id="later"))
    again = yield from store.wait(request._replace(order=first.order))
    assert (again.key, again.order) == (first.key, first.order)
    assert (yield from store.waiters()) == ["waiter", "later"]


@scenario("S1", "S6")
def taking_up_a_slot_twice_is_taking_it_up_once(store: StoreUnderTest) -> Steps[None]:
    """The claim of a slot that was handed over may be repeated, too."""
    yield from store.take(store.request(TWO, id="holder"))
    yield from store.take(store.request(TWO, id="other"))
    request = store.request(TWO, id="waiter")
    yield from store.wait(request)
    yield from store.release("holder")
    first = yield from store.take(request)
    again = yield from store.take(request)
    assert again.fencing_token == first.fencing_token
    assert sorted((yield from store.holders())) == ["other", "waiter"]


@scenario("S1", "KEEP_LATEST")
def a_superseded_waiter_is_told_so_every_time(store: StoreUnderTest) -> Steps[None]:
    """It does not get a new ticket by asking again."""
    latest = Demand(KEY, 1, 1, ConflictResolution.KEEP_LATEST)
    yield from store.take(store.request(latest))
    old = store.request(latest, id="old")
    queued = yield from store.wait(old)
    yield from store.wait(store.request(latest, id="new"))
    for _ in range(2):
        answer = yield from store.acquire(old._replace(order=queued.order))
        assert answer == Replaced(KEY)
    assert (yield from store.waiters()) == ["new"]


@scenario("S5", rows=(13,))
def releasing_an_unknown_id_changes_nothing(store: StoreUnderTest) -> Steps[None]:
    """It returns False."""
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="waiter"))
    assert (yield from store.release("nobody", (KEY,))) is False
    assert (yield from store.release("nobody")) is False
    assert (yield from store.holders()) == ["holder"]
    assert (yield from store.waiters()) == ["waiter"]


@scenario("S5", rows=(5, 13))
def releasing_twice_frees_one_slot(store: StoreUnderTest) -> Steps[None]:
    """The second release is a no-op, though the slot has a new holder by then."""
    yield from store.take(store.request(id="first"))
    assert (yield from store.release("first", (KEY,))) is True
    yield from store.take(store.request(id="second"))
    assert (yield from store.release("first", (KEY,))) is False
    assert (yield from store.holders()) == ["second"]
    yield from store.be_refused(store.request(Demand(KEY, 1, 1, ConflictResolution.CANCEL)))


@scenario("S5", rows=(7, 13))
def a_stale_release_does_not_free_anothers_slot(store: StoreUnderTest) -> Steps[None]:
    """A holder that overslept its lease releases when another has the slot."""
    yield from store.take(store.request(id="overslept", lease=10))
    store.clock.advance(11)
    yield from store.take(store.request(id="successor"))
    assert (yield from store.release("overslept", (KEY,))) is False
    assert (yield from store.holders()) == ["successor"]
    assert (yield from store.inspect()).in_use == 1


@scenario("S5", "S2")
def releasing_an_ended_lease_finds_nothing(store: StoreUnderTest) -> Steps[None]:
    """Nobody else came, the lease is over all the same."""
    yield from store.take(store.request(id="overslept", lease=10))
    store.clock.advance(11)
    assert (yield from store.release("overslept", (KEY,))) is False


@scenario("S5", "S2")
def releasing_an_ended_lease_notifies_only_other_holders(store: StoreUnderTest) -> Steps[None]:
    """The answer says that it had ended; another holder whose lease ended then is notified."""
    releasing, other = RecordingListener(), RecordingListener()
    for id_, listener in (("releasing", releasing), ("other", other)):
        yield from store.take(store.request(TWO, id=id_, max_hold=20, listener=listener))
    store.clock.advance(21)
    before = list(releasing.losses)  # a store may notice the end by itself
    assert (yield from store.release("releasing", (KEY,))) is False
    yield from store.eventually("the other holder was notified", lambda: other.losses)
    assert other.losses == [Loss.OVERRAN]
    assert releasing.losses == before


@scenario("S5", "S15", "S2")
def a_waiter_that_leaves_is_not_notified_of_its_slot(store: StoreUnderTest) -> Steps[None]:
    """The slot came free in the step in which it leaves: the next waiter is notified."""
    leaving, following = RecordingListener(), RecordingListener()
    yield from store.take(store.request(id="holder", lease=10))
    for id_, listener in (("leaving", leaving), ("following", following)):
        yield from store.wait(store.request(id=id_, lease=1000, claim=1000, listener=listener))
    store.clock.advance(11)
    before = leaving.woken
    assert (yield from store.release("leaving", (KEY,))) is True
    yield from store.eventually("the next waiter was notified", lambda: following.woken)
    assert leaving.woken == before


@scenario("S5", rows=(5,))
def a_release_frees_exactly_what_it_held(store: StoreUnderTest) -> Steps[None]:
    """The cost that was taken, on every key it was taken of."""
    yield from store.take(store.request(Demand(KEY, 5, 3), Demand(OTHER_KEY, 5, 2), id="wide"))
    yield from store.take(store.request(Demand(KEY, 5, 2), Demand(OTHER_KEY, 5, 1), id="narrow"))
    assert (yield from store.inspect(KEY)).in_use == 5
    assert (yield from store.inspect(OTHER_KEY)).in_use == 3
    yield from store.release("wide", (KEY, OTHER_KEY))
    assert (yield from store.inspect(KEY)).in_use == 2
    assert (yield from store.inspect(OTHER_KEY)).in_use == 1


@scenario("S19")
def a_lease_is_dropped_by_its_id_alone(store: StoreUnderTest) -> Steps[None]:
    """The job was cancelled, and its keys are not known any more."""
    yield from store.take(store.request(Demand(KEY, 1), Demand(OTHER_KEY, 1), id="job"))
    assert (yield from store.release("job")) is True
    assert (yield from store.keys()) == []


@scenario("S19", "S15")
def a_ticket_is_dropped_by_its_id_alone(store: StoreUnderTest) -> Steps[None]:
    """It is out of the queue, and the next moves up."""
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="cancelled"))
    next_one = store.request(id="next")
    yield from store.wait(next_one)
    assert (yield from store.release("cancelled")) is True
    assert (yield from store.waiters()) == ["next"]
    yield from store.release("holder")
    yield from store.take(next_one)


@scenario("S1", "S5")
def keys_know_nothing_of_each_other(store: StoreUnderTest) -> Steps[None]:
    """A full key is no obstacle on another, nor is its release a gift."""
    yield from store.take(store.request(Demand(KEY, 1), id="a"))
    yield from store.take(store.request(Demand(OTHER_KEY, 1), id="b"))
    waiter = store.request(Demand(KEY, 1), id="waiter")
    yield from store.wait(waiter)
    yield from store.release("b")
    yield from store.wait(waiter)
    yield from store.release("a")
    answer = yield from store.acquire(waiter)
    assert isinstance(answer, Granted)


@scenario("S1")
def a_waiter_that_asks_again_may_have_another_label(store: StoreUnderTest) -> Steps[None]:
    """It says what it knows by then; its place stays."""
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter", label="host:1")
    yield from store.wait(waiter)
    yield from store.wait(store.request(id="next", label="host:2"))
    yield from store.wait(waiter._replace(label="host:1 again"))
    snapshot = yield from store.inspect(KEY)
    labels = [each.label for each in snapshot.waiters]
    assert labels == ["host:1 again", "host:2"]
    yield from store.wait(waiter._replace(label="host:3", mode=Mode.LOOK))
    assert (yield from store.inspect(KEY)).waiters[0].label == "host:1 again"


@scenario("S1")
def a_waiter_may_say_what_it_holds(store: StoreUnderTest) -> Steps[None]:
    """Behind its label, which is shown without it."""
    held = (HeldLease("id-1", ("a key", "b")), HeldLease("id-2", ("c",)))
    yield from store.take(store.request(id="holder"))
    for label in ("host:1", labelled("host:1", "trace")):
        waiter = store.request(id=f"waiter {len(label)}", label=with_held(label, held))
        yield from store.wait(waiter)
        (shown,) = (yield from store.inspect(KEY)).waiters
        assert (shown.label, shown.holds) == ("host:1", held)
        yield from store.release(waiter.id)
