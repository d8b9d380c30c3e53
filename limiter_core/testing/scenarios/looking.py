"""Snapshots of a key: `inspect`, and the times in answers."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, KeySnapshot, Mode, Queued
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest

PRIORITY = ConflictResolution.PRIORITY


def _about(seconds: float | None, expected: float) -> bool:
    return seconds is not None and abs(seconds - expected) < 0.01


@scenario("S14")
def an_unused_key_is_all_zero(store: StoreUnderTest) -> Steps[None]:
    """It may be inspected like any other."""
    snapshot = yield from store.inspect()
    assert snapshot == KeySnapshot(KEY, 0, 0, 0, False, None, (), (), ())


@scenario("S3", "S7")
def inspect_tells_of_the_holders(store: StoreUnderTest) -> Steps[None]:
    """Id, cost, begin and end of each; the oldest first."""
    old = store.request(Demand(KEY, 5, 2), id="old", lease=60, label="host:1")
    granted = yield from store.take(old)
    store.clock.advance(10)
    yield from store.take(store.request(Demand(KEY, 5), id="new", lease=20))
    store.clock.advance(1)
    snapshot = yield from store.inspect()
    assert (snapshot.key, snapshot.limit, snapshot.in_use, snapshot.waiting) == (KEY, 5, 3, 0)
    first, second = snapshot.holders
    assert (first.id, first.cost, first.limit, first.label) == ("old", 2, 5, "host:1")
    assert first.fencing_token == granted.fencing_token
    assert (first.claimed, first.preempted) == (True, False)
    assert _about(first.held_for, 11)
    assert _about(first.expires_in, 49)
    assert (second.id, second.cost) == ("new", 1)
    assert _about(second.held_for, 1)
    assert _about(second.expires_in, 19)


@scenario("S7")
def inspect_tells_of_the_waiters(store: StoreUnderTest) -> Steps[None]:
    """In the order in which they will be served."""
    yield from store.take(store.request(Demand(KEY, 5, 5)))
    low = Demand(KEY, 4, 2, PRIORITY, priority=-1, group="g")
    yield from store.wait(store.request(low, id="low", label="host:1"))
    store.clock.advance(3)
    yield from store.wait(store.request(Demand(KEY, 5, 1, PRIORITY, priority=1), id="high"))
    store.clock.advance(1)
    snapshot = yield from store.inspect()
    assert snapshot.waiting == 2
    assert snapshot.declared == (4, 5)
    first, second = snapshot.waiters
    assert (first.id, first.priority, first.group, first.durable) == ("high", 1, None, False)
    assert _about(first.waiting_for, 1)
    assert (second.id, second.cost, second.limit, second.priority) == ("low", 2, 4, -1)
    assert (second.group, second.label) == ("g", "host:1")
    assert _about(second.waiting_for, 4)


@scenario("S9")
def inspect_tells_each_key_its_own_part(store: StoreUnderTest) -> Steps[None]:
    """The cost and the limit that were declared for this key."""
    yield from store.take(store.request(Demand(KEY, 5, 2), Demand(OTHER_KEY, 7, 3), id="both"))
    [here] = (yield from store.inspect(KEY)).holders
    [there] = (yield from store.inspect(OTHER_KEY)).holders
    assert (here.id, here.cost, here.limit) == ("both", 2, 5)
    assert (there.id, there.cost, there.limit) == ("both", 3, 7)


@scenario("S16")
def inspect_shows_the_first_of_many_waiters(store: StoreUnderTest) -> Steps[None]:
    """And counts all of them."""
    yield from store.take(store.request())
    shown = KeySnapshot.WAITERS_SHOWN
    for number in range(shown + 20):
        yield from store.wait(store.request(id=f"waiter-{number}"))
    snapshot = yield from store.inspect()
    assert snapshot.waiting == shown + 20
    assert [waiter.id for waiter in snapshot.waiters] == [f"waiter-{n}" for n in range(shown)]


@scenario("S2")
def inspect_shows_nothing_that_has_ended(store: StoreUnderTest) -> Steps[None]:
    """Looking is a step, too: it first removes what has ended, and serves the waiters."""
    yield from store.take(store.request(id="ended", lease=10))
    yield from store.wait(store.request(id="dead", lease=10))
    yield from store.wait(store.request(id="alive", lease=60))
    store.clock.advance(11)
    snapshot = yield from store.inspect()
    assert [holder.id for holder in snapshot.holders] == ["alive"]
    assert snapshot.waiting == 0


@scenario("S14")
def keys_names_those_in_use(store: StoreUnderTest) -> Steps[None]:
    """Held, waited for, overridden or paused."""
    yield from store.take(store.request(Demand("contract/held", 1)))
    yield from store.wait(store.request(Demand("contract/waited-for", 0)))
    yield from store.set_limit(3, "contract/overridden")
    yield from store.pause("contract/paused")
    yield from store.inspect("contract/looked-at")
    names = [f"contract/{name}" for name in ("held", "overridden", "paused", "waited-for")]
    assert (yield from store.keys()) == names


@scenario("S1")
def a_grant_tells_how_long_it_lasts(store: StoreUnderTest) -> Steps[None]:
    """The lease, or less if it must not be held as long."""
    granted = yield from store.take(store.request(Demand(KEY, 9), lease=30))
    assert _about(granted.expires_in, 30)
    granted = yield from store.take(store.request(Demand(KEY, 9), lease=30, max_hold=12))
    assert _about(granted.expires_in, 12)


@scenario("S3")
def a_refusal_shows_the_age_of_the_oldest_grant(store: StoreUnderTest) -> Steps[None]:
    """Of those that hold slots of the key; None if none does."""
    first = store.request(Demand(KEY, 2), lease=60)
    yield from store.take(first)
    store.clock.advance(10)
    refused = yield from store.be_refused(store.request(Demand(KEY, 2, 2), mode=Mode.TRY))
    assert _about(refused.held_for, 10)
    yield from store.take(store.request(Demand(KEY, 2), lease=60))
    store.clock.advance(5)
    refused = yield from store.be_refused(store.request(Demand(KEY, 2), mode=Mode.TRY))
    assert _about(refused.held_for, 15)
    yield from store.release(first.id)
    refused = yield from store.be_refused(store.request(Demand(KEY, 2, 2), mode=Mode.TRY))
    assert _about(refused.held_for, 5)
    refused = yield from store.be_refused(store.request(Demand(OTHER_KEY, 2, 3)))
    assert refused.held_for is None


@scenario("S3")
def a_refusal_shows_how_many_wait(store: StoreUnderTest) -> Steps[None]:
    """In the queue of the key that refused."""
    yield from store.take(store.request())
    refused = yield from store.be_refused(store.request(mode=Mode.TRY))
    assert refused.waiting == 0
    yield from store.wait(store.request())
    yield from store.wait(store.request())
    refused = yield from store.be_refused(store.request(mode=Mode.TRY))
    assert refused.waiting == 2


@scenario("S2", "S6", rows=(11, 15))
def a_waiter_that_looks_again_when_told_is_served_in_time(store: StoreUnderTest) -> Steps[None]:
    """The holder crashes and no other call asks: the waiter's own look notices the end."""
    yield from store.take(store.request(id="crashed", lease=45))
    waiter = store.request(id="waiter", lease=60)
    waited = 0.0
    while isinstance(answer := (yield from store.acquire(waiter)), Queued):
        assert answer.look_again is not None, "only its looking can notice the end of the lease"
        store.clock.advance(answer.look_again + 0.001)
        waited += answer.look_again + 0.001
        assert waited < 46, "the holder's lease ended at 45 s"
    assert (yield from store.holders()) == ["waiter"]
