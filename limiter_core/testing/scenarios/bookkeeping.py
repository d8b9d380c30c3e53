"""S11, S14, S16: fencing tokens rise, nothing is left behind, thousands of dead are no trouble."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, KeySnapshot, Mode, Refused
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, THIRD_KEY, Steps, StoreUnderTest


@scenario("S11", rows=(20, 22))
def tokens_rise_while_the_clock_stands_still(store: StoreUnderTest) -> Steps[None]:
    """Also when the key was idle in between, with nothing left of it to remember the last one."""
    last = 0
    for _ in range(5):
        granted = yield from store.take(store.request(id="holder"))
        assert granted.fencing_token > last
        last = granted.fencing_token
        yield from store.release("holder")
        assert (yield from store.keys()) == []


@scenario("S11", rows=(20,))
def tokens_are_not_below_the_clock(store: StoreUnderTest) -> Steps[None]:
    """So they go on rising where the last one is forgotten; exact to the microsecond."""
    for _ in range(3):
        store.clock.advance(0.25)
        granted = yield from store.take(store.request(Demand(KEY, 9)))
        now = int(store.clock() * 1_000_000)
        assert type(granted.fencing_token) is int
        assert now <= granted.fencing_token < now + 1000


@scenario("S11", needs=("forget",), rows=(22,))
def tokens_rise_over_data_loss(store: StoreUnderTest) -> Steps[None]:
    """A holder from before cannot pass for a newer one."""
    before = yield from store.take(store.request(id="before"))
    store.lose_data()
    store.clock.advance(0.001)
    after = yield from store.take(store.request(id="after"))
    assert after.fencing_token > before.fencing_token


@scenario("S11", "S10")
def tokens_rise_over_a_reclaimed_one(store: StoreUnderTest) -> Steps[None]:
    """A holder that comes back with a token of its own does not let a later grant fall below it."""
    ahead = int(store.clock() * 1_000_000) + 5_000
    reclaim = store.request(Demand(KEY, 2), mode=Mode.RECLAIM, fencing_token=ahead)
    assert (yield from store.take(reclaim)).fencing_token == ahead
    assert (yield from store.take(store.request(Demand(KEY, 2)))).fencing_token > ahead


@scenario("S11", "S10")
def a_token_from_before_does_not_turn_the_count_back(store: StoreUnderTest) -> Steps[None]:
    """A holder comes back with an old token; later grants are above the newest all the same."""
    newest = yield from store.take(store.request(Demand(KEY, 9)))
    old = newest.fencing_token - 1_000_000
    reclaim = store.request(Demand(KEY, 9), mode=Mode.RECLAIM, fencing_token=old)
    assert (yield from store.take(reclaim)).fencing_token == old
    after = yield from store.take(store.request(Demand(KEY, 9)))
    assert after.fencing_token > newest.fencing_token


@scenario("S11", "S6")
def tokens_rise_in_the_order_of_the_hand_off(store: StoreUnderTest) -> Steps[None]:
    """Of those served in one step, too."""
    yield from store.take(store.request(Demand(KEY, 3, 3), id="wide"))
    requests = [store.request(Demand(KEY, 3), id=f"narrow-{number}") for number in range(3)]
    for request in requests:
        yield from store.wait(request)
    yield from store.release("wide")
    tokens: list[int] = []
    for request in requests:
        granted = yield from store.take(request)
        tokens.append(granted.fencing_token)
    assert tokens == sorted(set(tokens))


@scenario("S11", "S9")
def the_token_of_several_keys_is_above_the_last_of_each(store: StoreUnderTest) -> Steps[None]:
    """And the next on any of them is above it."""
    last = 0
    for demands in ("a", "ab", "b", "abc", "c", "bc", "a"):
        keys = {"a": KEY, "b": OTHER_KEY, "c": THIRD_KEY}
        granted = yield from store.take(store.request(*(Demand(keys[d], 99) for d in demands)))
        if len(demands) > 1:
            assert granted.fencing_token > last
        last = max(last, granted.fencing_token)


@scenario("S14", rows=(35,))
def nothing_is_left_of_what_was_released(store: StoreUnderTest) -> Steps[None]:
    """Whatever was done with the key."""
    holder = store.request(Demand(KEY, 1), Demand(OTHER_KEY, 1), id="holder")
    waiter = store.request(Demand(KEY, 1, group="g"), id="waiter")
    yield from store.take(holder)
    yield from store.wait(waiter)
    yield from store.release("holder")
    yield from store.take(waiter)
    assert (yield from store.keys()) == [KEY]
    yield from store.release("waiter")
    assert (yield from store.keys()) == []
    assert (yield from store.inspect()) == KeySnapshot(KEY, 0, 0, 0, False, None, (), (), ())


@scenario("S14", rows=(35,))
def nothing_is_left_of_the_refused(store: StoreUnderTest) -> Steps[None]:
    """Nor of the keys that a refused request only named."""
    yield from store.take(store.request(id="holder"))
    cancel = ConflictResolution.CANCEL
    for request in (
        store.request(Demand(OTHER_KEY, 1), Demand(KEY, 1), mode=Mode.TRY),
        store.request(Demand(OTHER_KEY, 1), Demand(KEY, 1, 1, cancel)),
        store.request(Demand(OTHER_KEY, 1, 2)),
        store.request(Demand(OTHER_KEY, 1), Demand(KEY, 1), mode=Mode.RECLAIM),
    ):
        answer = yield from store.acquire(request)
        assert isinstance(answer, Refused)
    assert (yield from store.keys()) == [KEY]


@scenario("S14", "S2", rows=(35,))
def nothing_is_left_of_the_dead(store: StoreUnderTest) -> Steps[None]:
    """`inspect` finds them; without it, the store's own expiry does."""
    yield from store.take(store.request(Demand(KEY, 1), lease=10))
    yield from store.take(store.request(Demand(OTHER_KEY, 1), lease=20))
    yield from store.wait(store.request(Demand(OTHER_KEY, 1), lease=15))
    assert (yield from store.keys()) == [KEY, OTHER_KEY]
    for expected in ([OTHER_KEY], []):
        store.clock.advance(16)
        yield from store.inspect(KEY)
        yield from store.inspect(OTHER_KEY)
        assert (yield from store.keys()) == expected


@scenario("S14")
def looking_leaves_nothing(store: StoreUnderTest) -> Steps[None]:
    """Nor do the operations that find nothing."""
    yield from store.inspect()
    yield from store.release("nobody", (KEY,))
    yield from store.renew("nobody")
    yield from store.evict("nobody")
    yield from store.sweep()
    assert (yield from store.keys()) == []


@scenario("S16", "S2", rows=(18, 19))
def thousands_of_dead_holders_give_their_slots_back(store: StoreUnderTest) -> Steps[None]:
    """Reaped in chunks, so it may take some steps; but no more than there are chunks."""
    many = 5000
    for number in range(many):
        yield from store.take(store.request(Demand(KEY, many), id=f"dead-{number}", lease=10))
    yield from store.be_refused(store.request(Demand(KEY, many), mode=Mode.TRY))
    store.clock.advance(11)
    yield from store.take(store.request(Demand(KEY, many), id="alive", lease=600))
    for _ in range(100):
        yield from store.sweep()
        if (yield from store.inspect()).in_use == 1:
            break
    assert (yield from store.holders()) == ["alive"]
    yield from store.release("alive")
    assert (yield from store.keys()) == []


@scenario("S16", "S6", rows=(18, 19))
def a_wide_slot_serves_thousands(store: StoreUnderTest) -> Steps[None]:
    """A holder of 3,000 slots releases them, and as many waiters are served."""
    many = 3000
    yield from store.take(store.request(Demand(KEY, many, many), id="wide"))
    requests = [store.request(Demand(KEY, many), id=f"w-{number}") for number in range(many + 5)]
    for request in requests:
        yield from store.wait(request)
    yield from store.release("wide")
    for _ in range(100):
        yield from store.sweep()
    snapshot = yield from store.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (many, 5)
    assert isinstance((yield from store.acquire(requests[many - 1])), Granted)


@scenario("S16", "S2", "S6", rows=(18,))
def the_dead_are_never_served(store: StoreUnderTest) -> Steps[None]:
    """However many ended tickets are in front: the slot goes to the first live one, at once.

    A chunk of them may be all that a step can reap (S16), but one that stopped renewing must not
    be handed a slot (S2): it would lie idle for the claim time, once for each chunk.
    """
    yield from store.take(store.request(id="holder", lease=600))
    for number in range(1000):
        yield from store.wait(store.request(id=f"dead-{number}", lease=10))
    alive = store.request(id="alive", lease=600)
    yield from store.wait(alive)
    store.clock.advance(11)
    yield from store.release("holder")
    for _ in range(100):
        yield from store.sweep()
    assert (yield from store.holders()) == ["alive"]
    yield from store.take(alive)
