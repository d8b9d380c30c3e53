"""S2, S10: leases end unless they are renewed, and renewal does no more than that."""

from __future__ import annotations

from limiter_core.requests import Demand, Granted, Loss, Mode, Request
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Stage, Steps

TWO = Demand(KEY, 2)


@scenario("S2", rows=(6,))
def a_lease_that_is_not_renewed_ends(stage: Stage) -> Steps[None]:
    """The slot is taken over by the next who asks, and not before."""
    yield from stage.take(stage.request(id="crashed", lease=30))
    stage.clock.advance(29)
    yield from stage.be_refused(stage.request(mode=Mode.TRY))
    stage.clock.advance(2)
    yield from stage.take(stage.request(id="successor", mode=Mode.TRY))
    assert (yield from stage.holders()) == ["successor"]


@scenario("S2", "S6")
def an_ended_lease_is_handed_to_the_waiter(stage: Stage) -> Steps[None]:
    """Even if it is a newcomer that notices the end."""
    yield from stage.take(stage.request(id="crashed", lease=10))
    waiter = stage.request(id="waiter", lease=60)
    yield from stage.wait(waiter)
    stage.clock.advance(11)
    yield from stage.be_refused(stage.request(mode=Mode.TRY))
    yield from stage.take(waiter)


@scenario("S2", "S10", rows=(7, 14))
def a_lease_that_is_renewed_lives(stage: Stage) -> Steps[None]:
    """A job may run many times its lease."""
    yield from stage.take(stage.request(id="long", lease=15))
    yield from stage.pass_time(150, "long")
    yield from stage.be_refused(stage.request(mode=Mode.TRY))
    assert (yield from stage.release("long")) is True


@scenario("S2", "S14", rows=(6, 7, 35))
def each_lease_has_its_own_end(stage: Stage) -> Steps[None]:
    """A short one does not shorten a long one, which does not keep the short one alive."""
    three = Demand(KEY, 3)
    yield from stage.take(stage.request(three, id="long", lease=60))
    yield from stage.take(stage.request(three, id="short", lease=5))
    yield from stage.take(stage.request(three, id="renewed", lease=15))
    for _ in range(4):
        stage.clock.advance(7)
        assert not (yield from stage.renew("renewed")).gone
    assert (yield from stage.holders()) == ["long", "renewed"]
    stage.clock.advance(14)
    assert (yield from stage.holders()) == ["long", "renewed"]
    stage.clock.advance(2)
    assert (yield from stage.holders()) == ["long"]


@scenario("S10", rows=(8,))
def renewal_names_what_is_gone(stage: Stage) -> Steps[None]:
    """The unknown and the ended; of the living it says nothing."""
    yield from stage.take(stage.request(TWO, id="ended", lease=10))
    yield from stage.take(stage.request(TWO, id="alive", lease=60))
    stage.clock.advance(11)
    renewal = yield from stage.renew("ended", "alive", "unknown")
    assert set(renewal.gone) == {"ended", "unknown"}
    assert not renewal.preempted


@scenario("S10", rows=(8,))
def renewal_never_brings_a_lease_back(stage: Stage) -> Steps[None]:
    """Neither while the key is idle, nor when another has the slot."""
    yield from stage.take(stage.request(id="paused", lease=10))
    stage.clock.advance(11)
    assert set((yield from stage.renew("paused")).gone) == {"paused"}
    assert (yield from stage.inspect()).in_use == 0
    yield from stage.take(stage.request(id="successor"))
    assert set((yield from stage.renew("paused")).gone) == {"paused"}
    assert (yield from stage.holders()) == ["successor"]


@scenario("S10", "S5", rows=(14,))
def renewal_after_the_release_finds_nothing(stage: Stage) -> Steps[None]:
    """And nothing comes of it."""
    yield from stage.take(stage.request(id="released"))
    yield from stage.release("released")
    assert set((yield from stage.renew("released")).gone) == {"released"}
    assert (yield from stage.keys()) == []


@scenario("S10")
def renewing_nothing_is_allowed(stage: Stage) -> Steps[None]:
    """The answer names nobody."""
    renewal = yield from stage.renew()
    assert not renewal.gone
    assert not renewal.preempted


@scenario("S10", rows=(19,))
def many_are_renewed_in_one_step(stage: Stage) -> Steps[None]:
    """A thousand leases of one process, half of them ended."""
    for number in range(1000):
        lease = 10 if number % 2 else 60
        yield from stage.take(stage.request(Demand(KEY, 1000), id=f"job-{number}", lease=lease))
    stage.clock.advance(11)
    renewal = yield from stage.renew(*(f"job-{number}" for number in range(1000)))
    assert set(renewal.gone) == {f"job-{number}" for number in range(1, 1000, 2)}


@scenario("S2", "S6")
def a_waiter_that_stops_asking_is_dropped(stage: Stage) -> Steps[None]:
    """Its turn goes to the next."""
    yield from stage.take(stage.request(id="holder", lease=1000))
    yield from stage.wait(stage.request(id="dead", lease=10))
    alive = stage.request(id="alive", lease=60)
    yield from stage.wait(alive)
    stage.clock.advance(11)
    yield from stage.release("holder")
    yield from stage.take(alive)
    assert (yield from stage.inspect()).waiting == 0


@scenario("S2", "S10")
def a_waiter_lives_while_it_asks_or_renews(stage: Stage) -> Steps[None]:
    """Both start its lease time again."""
    yield from stage.take(stage.request(id="holder", lease=1000))
    asking = stage.request(id="asking", lease=10)
    yield from stage.wait(asking)
    yield from stage.wait(stage.request(id="renewing", lease=10))
    for _ in range(4):
        stage.clock.advance(6)
        yield from stage.wait(asking)
        assert not (yield from stage.renew("renewing")).gone
    assert (yield from stage.waiters()) == ["asking", "renewing"]


@scenario("S10")
def renewal_names_a_ticket_that_is_gone(stage: Stage) -> Steps[None]:
    """A waiter learns of it like a holder."""
    yield from stage.take(stage.request(id="holder", lease=1000))
    yield from stage.wait(stage.request(id="dead", lease=10))
    stage.clock.advance(11)
    assert set((yield from stage.renew("dead")).gone) == {"dead"}


@scenario("S2")
def max_hold_ends_a_lease_in_spite_of_renewals(stage: Stage) -> Steps[None]:
    """A stuck holder that renews for ever is replaced, too."""
    yield from stage.take(stage.request(id="stuck", lease=30, max_hold=20))
    yield from stage.pass_time(15, "stuck")
    yield from stage.be_refused(stage.request(mode=Mode.TRY))
    stage.clock.advance(6)
    renewal = yield from stage.renew("stuck")
    assert set(renewal.gone) == {"stuck"}
    assert renewal.gone["stuck"] in (Loss.OVERRAN, Loss.EXPIRED, Loss.FORGOTTEN)
    yield from stage.take(stage.request(mode=Mode.TRY))


@scenario("S2", "S1")
def asking_again_does_not_prolong_max_hold(stage: Stage) -> Steps[None]:
    """It counts from the moment the slot was taken up."""
    request = stage.request(id="stuck", lease=30, max_hold=20)
    yield from stage.take(request)
    stage.clock.advance(15)
    again = yield from stage.take(request)
    assert again.expires_in is not None
    assert 4 < again.expires_in < 6
    stage.clock.advance(6)
    yield from stage.take(stage.request(mode=Mode.TRY))


@scenario("S2", "S6")
def max_hold_counts_from_the_claim(stage: Stage) -> Steps[None]:
    """The time in which the slot lay ready for the waiter is not its own."""
    yield from stage.take(stage.request(id="holder"))
    waiter = stage.request(id="waiter", max_hold=20, claim=10)
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    stage.clock.advance(8)
    granted = yield from stage.take(waiter)
    assert granted.expires_in is not None
    assert 19 < granted.expires_in < 21


@scenario("S2")
def who_overran_is_told(stage: Stage) -> Steps[None]:
    """Its process lives, and so its lease is renewed, but no longer than that."""
    listener = RecordingListener()
    yield from stage.take(stage.request(id="stuck", lease=1000, max_hold=20, listener=listener))
    stage.clock.advance(21)
    yield from stage.take(stage.request(mode=Mode.TRY))
    yield from stage.eventually("the holder was told", lambda: listener.losses)
    assert listener.losses == [Loss.OVERRAN]


@scenario("S10", needs=("forget",), rows=(22,))
def after_data_loss_a_holder_gets_its_slot_back(stage: Stage) -> Steps[None]:
    """Under its own id and token, and for a whole lease again."""
    granted = yield from stage.take(stage.request(id="holder"))
    stage.lose_data()
    assert set((yield from stage.renew("holder")).gone) == {"holder"}
    reclaim = stage.request(id="holder", mode=Mode.RECLAIM, fencing_token=granted.fencing_token)
    again = yield from stage.take(reclaim)
    assert again.fencing_token == granted.fencing_token
    yield from stage.pass_time(60, "holder")
    yield from stage.be_refused(stage.request(mode=Mode.TRY))


def _reclaim(stage: Stage, id_: str, granted: Granted) -> Request:
    token = granted.fencing_token
    return stage.request(TWO, id=id_, mode=Mode.RECLAIM, fencing_token=token)


@scenario("S10", needs=("forget",), rows=(21, 22))
def after_data_loss_the_limit_still_holds(stage: Stage) -> Steps[None]:
    """Whose slot was given away meanwhile is refused, waits nowhere and disturbs nobody."""
    one = yield from stage.take(stage.request(TWO, id="one"))
    two = yield from stage.take(stage.request(TWO, id="two"))
    stage.lose_data()
    stage.clock.advance(1)
    yield from stage.take(stage.request(TWO, id="newcomer"))
    yield from stage.take(_reclaim(stage, "one", one))
    yield from stage.be_refused(_reclaim(stage, "two", two))
    snapshot = yield from stage.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (2, 0)


@scenario("S10")
def a_reclaim_goes_ahead_of_the_queue(stage: Stage) -> Steps[None]:
    """It never left, so those who wait did not come before it."""
    yield from stage.take(stage.request(TWO, id="holder"))
    yield from stage.wait(stage.request(Demand(KEY, 2, 2), id="wide"))
    yield from stage.take(
        stage.request(TWO, id="back", mode=Mode.RECLAIM, fencing_token=1_700_000_000_000_000)
    )
    assert sorted((yield from stage.holders())) == ["back", "holder"]
    assert (yield from stage.waiters()) == ["wide"]


@scenario("S10", "S9")
def a_reclaim_takes_all_its_keys_or_none(stage: Stage) -> Steps[None]:
    """One of them is full: refused, and nothing taken of the other."""
    yield from stage.take(stage.request(Demand(OTHER_KEY, 1)))
    demands = Demand(KEY, 1), Demand(OTHER_KEY, 1)
    yield from stage.be_refused(stage.request(*demands, mode=Mode.RECLAIM, fencing_token=1))
    assert (yield from stage.inspect(KEY)).in_use == 0
    assert (yield from stage.inspect(OTHER_KEY)).waiting == 0


@scenario("S10", "S1")
def a_reclaim_may_be_repeated(stage: Stage) -> Steps[None]:
    """Its reply may be lost like any other."""
    reclaim = stage.request(TWO, id="back", mode=Mode.RECLAIM, fencing_token=1_700_000_000_000_000)
    first = yield from stage.take(reclaim)
    again = yield from stage.take(reclaim)
    assert again.fencing_token == first.fencing_token
    assert (yield from stage.inspect()).in_use == 1
