"""S2, S10: leases end unless they are renewed, and renewal does no more than that."""

from __future__ import annotations

from limiter_core.requests import Demand, Granted, Loss, Mode, Request
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest

TWO = Demand(KEY, 2)


@scenario("S2", rows=(6,))
def a_lease_that_is_not_renewed_ends(store: StoreUnderTest) -> Steps[None]:
    """The slot goes to the next call that asks, and not before."""
    yield from store.take(store.request(id="crashed", lease=30))
    store.clock.advance(29)
    yield from store.be_refused(store.request(mode=Mode.TRY))
    store.clock.advance(2)
    yield from store.take(store.request(id="successor", mode=Mode.TRY))
    assert (yield from store.holders()) == ["successor"]


@scenario("S2", "S6")
def an_ended_lease_is_handed_to_the_waiter(store: StoreUnderTest) -> Steps[None]:
    """Even if it is a newcomer that notices the end."""
    yield from store.take(store.request(id="crashed", lease=10))
    waiter = store.request(id="waiter", lease=60)
    yield from store.wait(waiter)
    store.clock.advance(11)
    yield from store.be_refused(store.request(mode=Mode.TRY))
    yield from store.take(waiter)


@scenario("S2", "S10", rows=(7, 14))
def a_lease_that_is_renewed_lives(store: StoreUnderTest) -> Steps[None]:
    """A job may run many times its lease."""
    yield from store.take(store.request(id="long", lease=15))
    yield from store.pass_time(150, "long")
    yield from store.be_refused(store.request(mode=Mode.TRY))
    assert (yield from store.release("long")) is True


@scenario("S2", "S14", rows=(6, 7, 35))
def each_lease_has_its_own_end(store: StoreUnderTest) -> Steps[None]:
    """A short one does not shorten a long one, which does not keep the short one alive."""
    three = Demand(KEY, 3)
    yield from store.take(store.request(three, id="long", lease=60))
    yield from store.take(store.request(three, id="short", lease=5))
    yield from store.take(store.request(three, id="renewed", lease=15))
    for _ in range(4):
        store.clock.advance(7)
        assert not (yield from store.renew("renewed")).gone
    assert (yield from store.holders()) == ["long", "renewed"]
    store.clock.advance(14)
    assert (yield from store.holders()) == ["long", "renewed"]
    store.clock.advance(2)
    assert (yield from store.holders()) == ["long"]


@scenario("S10", rows=(8,))
def renewal_names_what_is_gone(store: StoreUnderTest) -> Steps[None]:
    """The unknown and the ended; of the living it says nothing."""
    yield from store.take(store.request(TWO, id="ended", lease=10))
    yield from store.take(store.request(TWO, id="alive", lease=60))
    store.clock.advance(11)
    renewal = yield from store.renew("ended", "alive", "unknown")
    assert set(renewal.gone) == {"ended", "unknown"}
    assert not renewal.preempted


@scenario("S10", rows=(8,))
def renewal_never_brings_a_lease_back(store: StoreUnderTest) -> Steps[None]:
    """Neither while the key is idle, nor when another has the slot."""
    yield from store.take(store.request(id="paused", lease=10))
    store.clock.advance(11)
    assert set((yield from store.renew("paused")).gone) == {"paused"}
    assert (yield from store.inspect()).in_use == 0
    yield from store.take(store.request(id="successor"))
    assert set((yield from store.renew("paused")).gone) == {"paused"}
    assert (yield from store.holders()) == ["successor"]


@scenario("S10", "S5", rows=(14,))
def renewal_after_the_release_finds_nothing(store: StoreUnderTest) -> Steps[None]:
    """And nothing comes of it."""
    yield from store.take(store.request(id="released"))
    yield from store.release("released")
    assert set((yield from store.renew("released")).gone) == {"released"}
    assert (yield from store.keys()) == []


@scenario("S10")
def renewing_nothing_is_allowed(store: StoreUnderTest) -> Steps[None]:
    """The answer names no id."""
    renewal = yield from store.renew()
    assert not renewal.gone
    assert not renewal.preempted


@scenario("S10", rows=(19,))
def many_are_renewed_in_one_step(store: StoreUnderTest) -> Steps[None]:
    """A thousand leases of one process, half of them ended."""
    for number in range(1000):
        lease = 10 if number % 2 else 60
        yield from store.take(store.request(Demand(KEY, 1000), id=f"job-{number}", lease=lease))
    store.clock.advance(11)
    renewal = yield from store.renew(*(f"job-{number}" for number in range(1000)))
    assert set(renewal.gone) == {f"job-{number}" for number in range(1, 1000, 2)}


@scenario("S2", "S6")
def a_waiter_that_stops_asking_is_dropped(store: StoreUnderTest) -> Steps[None]:
    """Its turn goes to the next."""
    yield from store.take(store.request(id="holder", lease=1000))
    yield from store.wait(store.request(id="dead", lease=10))
    alive = store.request(id="alive", lease=60)
    yield from store.wait(alive)
    store.clock.advance(11)
    yield from store.release("holder")
    yield from store.take(alive)
    assert (yield from store.inspect()).waiting == 0


@scenario("S2", "S10")
def a_waiter_lives_while_it_asks_or_renews(store: StoreUnderTest) -> Steps[None]:
    """Both start its lease time again."""
    yield from store.take(store.request(id="holder", lease=1000))
    asking = store.request(id="asking", lease=10)
    yield from store.wait(asking)
    yield from store.wait(store.request(id="renewing", lease=10))
    for _ in range(4):
        store.clock.advance(6)
        yield from store.wait(asking)
        assert not (yield from store.renew("renewing")).gone
    assert (yield from store.waiters()) == ["asking", "renewing"]


@scenario("S10")
def renewal_names_a_ticket_that_is_gone(store: StoreUnderTest) -> Steps[None]:
    """A waiter is notified of it like a holder."""
    yield from store.take(store.request(id="holder", lease=1000))
    yield from store.wait(store.request(id="dead", lease=10))
    store.clock.advance(11)
    assert set((yield from store.renew("dead")).gone) == {"dead"}


@scenario("S2")
def max_hold_ends_a_lease_in_spite_of_renewals(store: StoreUnderTest) -> Steps[None]:
    """A stuck holder that renews for ever is replaced, too."""
    yield from store.take(store.request(id="stuck", lease=30, max_hold=20))
    yield from store.pass_time(15, "stuck")
    yield from store.be_refused(store.request(mode=Mode.TRY))
    store.clock.advance(6)
    renewal = yield from store.renew("stuck")
    assert set(renewal.gone) == {"stuck"}
    assert renewal.gone["stuck"] in (Loss.OVERRAN, Loss.EXPIRED, Loss.FORGOTTEN)
    yield from store.take(store.request(mode=Mode.TRY))


@scenario("S2", "S1")
def asking_again_does_not_prolong_max_hold(store: StoreUnderTest) -> Steps[None]:
    """It counts from the moment the slot was claimed."""
    request = store.request(id="stuck", lease=30, max_hold=20)
    yield from store.take(request)
    store.clock.advance(15)
    again = yield from store.take(request)
    assert again.expires_in is not None
    assert 4 < again.expires_in < 6
    store.clock.advance(6)
    yield from store.take(store.request(mode=Mode.TRY))


@scenario("S2", "S6")
def max_hold_counts_from_the_claim(store: StoreUnderTest) -> Steps[None]:
    """The time in which the slot lay ready for the waiter is not its own."""
    yield from store.take(store.request(id="holder"))
    waiter = store.request(id="waiter", max_hold=20, claim=10)
    yield from store.wait(waiter)
    yield from store.release("holder")
    store.clock.advance(8)
    granted = yield from store.take(waiter)
    assert granted.expires_in is not None
    assert 19 < granted.expires_in < 21


@scenario("S2")
def a_holder_that_overran_is_notified(store: StoreUnderTest) -> Steps[None]:
    """Its process lives, and so its lease is renewed, but no longer than that."""
    listener = RecordingListener()
    yield from store.take(store.request(id="stuck", lease=1000, max_hold=20, listener=listener))
    store.clock.advance(21)
    yield from store.take(store.request(mode=Mode.TRY))
    yield from store.eventually("the holder was notified", lambda: listener.losses)
    assert listener.losses == [Loss.OVERRAN]


@scenario("S10", needs=("forget",), rows=(22,))
def after_data_loss_a_holder_gets_its_slot_back(store: StoreUnderTest) -> Steps[None]:
    """Under its own id and token, and for a whole lease again."""
    granted = yield from store.take(store.request(id="holder"))
    store.lose_data()
    assert set((yield from store.renew("holder")).gone) == {"holder"}
    reclaim = store.request(id="holder", mode=Mode.RECLAIM, fencing_token=granted.fencing_token)
    again = yield from store.take(reclaim)
    assert again.fencing_token == granted.fencing_token
    yield from store.pass_time(60, "holder")
    yield from store.be_refused(store.request(mode=Mode.TRY))


def _reclaim(store: StoreUnderTest, id_: str, granted: Granted) -> Request:
    token = granted.fencing_token
    return store.request(TWO, id=id_, mode=Mode.RECLAIM, fencing_token=token)


@scenario("S10", needs=("forget",), rows=(21, 22))
def after_data_loss_the_limit_still_holds(store: StoreUnderTest) -> Steps[None]:
    """If its slot was granted to another, it is refused, waits nowhere and changes nothing."""
    one = yield from store.take(store.request(TWO, id="one"))
    two = yield from store.take(store.request(TWO, id="two"))
    store.lose_data()
    store.clock.advance(1)
    yield from store.take(store.request(TWO, id="newcomer"))
    yield from store.take(_reclaim(store, "one", one))
    yield from store.be_refused(_reclaim(store, "two", two))
    snapshot = yield from store.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (2, 0)


@scenario("S10")
def a_reclaim_goes_ahead_of_the_queue(store: StoreUnderTest) -> Steps[None]:
    """It never left, so the waiters did not come before it."""
    yield from store.take(store.request(TWO, id="holder"))
    yield from store.wait(store.request(Demand(KEY, 2, 2), id="wide"))
    yield from store.take(
        store.request(TWO, id="back", mode=Mode.RECLAIM, fencing_token=1_700_000_000_000_000)
    )
    assert sorted((yield from store.holders())) == ["back", "holder"]
    assert (yield from store.waiters()) == ["wide"]


@scenario("S10", "S9")
def a_reclaim_takes_all_its_keys_or_none(store: StoreUnderTest) -> Steps[None]:
    """One of them is full: refused, and nothing taken of the other."""
    yield from store.take(store.request(Demand(OTHER_KEY, 1)))
    demands = Demand(KEY, 1), Demand(OTHER_KEY, 1)
    yield from store.be_refused(store.request(*demands, mode=Mode.RECLAIM, fencing_token=1))
    assert (yield from store.inspect(KEY)).in_use == 0
    assert (yield from store.inspect(OTHER_KEY)).waiting == 0


@scenario("S10", "S1")
def a_reclaim_may_be_repeated(store: StoreUnderTest) -> Steps[None]:
    """Its reply may be lost like any other."""
    reclaim = store.request(TWO, id="back", mode=Mode.RECLAIM, fencing_token=1_700_000_000_000_000)
    first = yield from store.take(reclaim)
    again = yield from store.take(reclaim)
    assert again.fencing_token == first.fencing_token
    assert (yield from store.inspect()).in_use == 1
