"""S11, S14, S16: fencing tokens rise, nothing is left behind, thousands of dead are no trouble."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, KeySnapshot, Mode, Refused
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, THIRD_KEY, Stage, Steps


@scenario("S11", rows=(20, 22))
def tokens_rise_while_the_clock_stands_still(stage: Stage) -> Steps[None]:
    """Also when the key was idle in between, with nothing left of it to remember the last one."""
    last = 0
    for _ in range(5):
        granted = yield from stage.take(stage.request(id="holder"))
        assert granted.fencing_token > last
        last = granted.fencing_token
        yield from stage.release("holder")
        assert (yield from stage.keys()) == []


@scenario("S11", rows=(20,))
def tokens_are_not_below_the_clock(stage: Stage) -> Steps[None]:
    """So they go on rising where the last one is forgotten; exact to the microsecond."""
    for _ in range(3):
        stage.clock.advance(0.25)
        granted = yield from stage.take(stage.request(Demand(KEY, 9)))
        now = int(stage.clock() * 1_000_000)
        assert type(granted.fencing_token) is int
        assert now <= granted.fencing_token < now + 1000


@scenario("S11", needs=("forget",), rows=(22,))
def tokens_rise_over_data_loss(stage: Stage) -> Steps[None]:
    """A holder from before cannot pass for a newer one."""
    before = yield from stage.take(stage.request(id="before"))
    stage.lose_data()
    stage.clock.advance(0.001)
    after = yield from stage.take(stage.request(id="after"))
    assert after.fencing_token > before.fencing_token


@scenario("S11", "S10")
def tokens_rise_over_a_reclaimed_one(stage: Stage) -> Steps[None]:
    """A holder that comes back with a token of its own does not let a later grant fall below it."""
    ahead = int(stage.clock() * 1_000_000) + 5_000
    reclaim = stage.request(Demand(KEY, 2), mode=Mode.RECLAIM, fencing_token=ahead)
    assert (yield from stage.take(reclaim)).fencing_token == ahead
    assert (yield from stage.take(stage.request(Demand(KEY, 2)))).fencing_token > ahead


@scenario("S11", "S10")
def a_token_from_before_does_not_turn_the_count_back(stage: Stage) -> Steps[None]:
    """A holder comes back with an old token; later grants are above the newest all the same."""
    newest = yield from stage.take(stage.request(Demand(KEY, 9)))
    old = newest.fencing_token - 1_000_000
    reclaim = stage.request(Demand(KEY, 9), mode=Mode.RECLAIM, fencing_token=old)
    assert (yield from stage.take(reclaim)).fencing_token == old
    after = yield from stage.take(stage.request(Demand(KEY, 9)))
    assert after.fencing_token > newest.fencing_token


@scenario("S11", "S6")
def tokens_rise_in_the_order_of_the_hand_off(stage: Stage) -> Steps[None]:
    """Of those served in one step, too."""
    yield from stage.take(stage.request(Demand(KEY, 3, 3), id="wide"))
    requests = [stage.request(Demand(KEY, 3), id=f"narrow-{number}") for number in range(3)]
    for request in requests:
        yield from stage.wait(request)
    yield from stage.release("wide")
    tokens: list[int] = []
    for request in requests:
        granted = yield from stage.take(request)
        tokens.append(granted.fencing_token)
    assert tokens == sorted(set(tokens))


@scenario("S11", "S9")
def the_token_of_several_keys_is_above_the_last_of_each(stage: Stage) -> Steps[None]:
    """And the next on any of them is above it."""
    last = 0
    for demands in ("a", "ab", "b", "abc", "c", "bc", "a"):
        keys = {"a": KEY, "b": OTHER_KEY, "c": THIRD_KEY}
        granted = yield from stage.take(stage.request(*(Demand(keys[d], 99) for d in demands)))
        if len(demands) > 1:
            assert granted.fencing_token > last
        last = max(last, granted.fencing_token)


@scenario("S14", rows=(35,))
def nothing_is_left_of_what_was_released(stage: Stage) -> Steps[None]:
    """Whatever was done with the key."""
    holder = stage.request(Demand(KEY, 1), Demand(OTHER_KEY, 1), id="holder")
    waiter = stage.request(Demand(KEY, 1, group="g"), id="waiter")
    yield from stage.take(holder)
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    yield from stage.take(waiter)
    assert (yield from stage.keys()) == [KEY]
    yield from stage.release("waiter")
    assert (yield from stage.keys()) == []
    assert (yield from stage.inspect()) == KeySnapshot(KEY, 0, 0, 0, False, None, (), (), ())


@scenario("S14", rows=(35,))
def nothing_is_left_of_the_refused(stage: Stage) -> Steps[None]:
    """Nor of the keys that a refused request only named."""
    yield from stage.take(stage.request(id="holder"))
    cancel = ConflictResolution.CANCEL
    for request in (
        stage.request(Demand(OTHER_KEY, 1), Demand(KEY, 1), mode=Mode.TRY),
        stage.request(Demand(OTHER_KEY, 1), Demand(KEY, 1, 1, cancel)),
        stage.request(Demand(OTHER_KEY, 1, 2)),
        stage.request(Demand(OTHER_KEY, 1), Demand(KEY, 1), mode=Mode.RECLAIM),
    ):
        answer = yield from stage.acquire(request)
        assert isinstance(answer, Refused)
    assert (yield from stage.keys()) == [KEY]


@scenario("S14", "S2", rows=(35,))
def nothing_is_left_of_the_dead(stage: Stage) -> Steps[None]:
    """A look finds them; and so does, on keys that nobody looks at, a store's own expiry."""
    yield from stage.take(stage.request(Demand(KEY, 1), lease=10))
    yield from stage.take(stage.request(Demand(OTHER_KEY, 1), lease=20))
    yield from stage.wait(stage.request(Demand(OTHER_KEY, 1), lease=15))
    assert (yield from stage.keys()) == [KEY, OTHER_KEY]
    for expected in ([OTHER_KEY], []):
        stage.clock.advance(16)
        yield from stage.inspect(KEY)
        yield from stage.inspect(OTHER_KEY)
        assert (yield from stage.keys()) == expected


@scenario("S14")
def looking_leaves_nothing(stage: Stage) -> Steps[None]:
    """Nor do the operations that find nothing."""
    yield from stage.inspect()
    yield from stage.release("nobody", (KEY,))
    yield from stage.renew("nobody")
    yield from stage.evict("nobody")
    yield from stage.sweep()
    assert (yield from stage.keys()) == []


@scenario("S16", "S2", rows=(18, 19))
def thousands_of_dead_holders_give_their_slots_back(stage: Stage) -> Steps[None]:
    """Reaped in chunks, so it may take some steps; but no more than there are chunks."""
    many = 5000
    for number in range(many):
        yield from stage.take(stage.request(Demand(KEY, many), id=f"dead-{number}", lease=10))
    yield from stage.be_refused(stage.request(Demand(KEY, many), mode=Mode.TRY))
    stage.clock.advance(11)
    yield from stage.take(stage.request(Demand(KEY, many), id="alive", lease=600))
    for _ in range(100):
        yield from stage.sweep()
        if (yield from stage.inspect()).in_use == 1:
            break
    assert (yield from stage.holders()) == ["alive"]
    yield from stage.release("alive")
    assert (yield from stage.keys()) == []


@scenario("S16", "S6", rows=(18, 19))
def a_wide_slot_serves_thousands(stage: Stage) -> Steps[None]:
    """A holder of 3,000 slots lets go, and as many waiters are served."""
    many = 3000
    yield from stage.take(stage.request(Demand(KEY, many, many), id="wide"))
    requests = [stage.request(Demand(KEY, many), id=f"w-{number}") for number in range(many + 5)]
    for request in requests:
        yield from stage.wait(request)
    yield from stage.release("wide")
    for _ in range(100):
        yield from stage.sweep()
    snapshot = yield from stage.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (many, 5)
    assert isinstance((yield from stage.acquire(requests[many - 1])), Granted)


@scenario("S16", "S2", "S6", rows=(18,))
def the_dead_are_never_served(stage: Stage) -> Steps[None]:
    """However many stand in front: the slot goes to the first that lives, at once.

    A chunk of them may be all that a step can reap (S16), but one that stopped renewing must not
    be handed a slot (S2): it would lie idle for the claim time, once for each chunk.
    """
    yield from stage.take(stage.request(id="holder", lease=600))
    for number in range(1000):
        yield from stage.wait(stage.request(id=f"dead-{number}", lease=10))
    alive = stage.request(id="alive", lease=600)
    yield from stage.wait(alive)
    stage.clock.advance(11)
    yield from stage.release("holder")
    for _ in range(100):
        yield from stage.sweep()
    assert (yield from stage.holders()) == ["alive"]
    yield from stage.take(alive)
