"""The conflict resolutions: what happens to the running, the waiting and the newcomer."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Loss, Mode, Refusal, Replaced
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Steps, StoreUnderTest

CANCEL = ConflictResolution.CANCEL
KEEP_LATEST = ConflictResolution.KEEP_LATEST
CANCEL_RUNNING = ConflictResolution.CANCEL_RUNNING

LATEST = Demand(KEY, 1, 1, KEEP_LATEST)
WINS = Demand(KEY, 1, 1, CANCEL_RUNNING)


@scenario("CANCEL", "S3")
def cancel_refuses_at_once(store: StoreUnderTest) -> Steps[None]:
    """Running and waiting are untouched, and nothing is left of the refused."""
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="waiter"))
    refused = yield from store.be_refused(store.request(Demand(KEY, 1, 1, CANCEL)))
    assert (refused.key, refused.max_concurrent, refused.in_use) == (KEY, 1, 1)
    assert refused.reason is Refusal.FULL
    assert (yield from store.holders()) == ["holder"]
    assert (yield from store.waiters()) == ["waiter"]


@scenario("CANCEL", "S3")
def cancel_comes_in_where_there_is_room(store: StoreUnderTest) -> Steps[None]:
    """Each time anew: a refusal is not remembered."""
    call = store.request(Demand(KEY, 1, 1, CANCEL), id="call")
    yield from store.take(store.request(id="holder"))
    yield from store.be_refused(call)
    yield from store.release("holder")
    yield from store.take(call)


@scenario("KEEP_LATEST")
def keep_latest_supersedes_all_who_wait(store: StoreUnderTest) -> Steps[None]:
    """Whatever their own resolution; each is notified. Holders are not affected."""
    running = RecordingListener()
    yield from store.take(store.request(id="running", listener=running))
    listeners = [RecordingListener() for _ in range(3)]
    old = [store.request(id=f"old-{n}", listener=each) for n, each in enumerate(listeners)]
    for request in old:
        yield from store.wait(request)
    latest = store.request(LATEST, id="latest")
    yield from store.wait(latest)
    yield from store.eventually("all were notified", lambda: all(each.woken for each in listeners))
    for request in old:
        assert (yield from store.acquire(request)) == Replaced(KEY)
    assert (yield from store.waiters()) == ["latest"]
    assert (running.losses, running.woken) == ([], 0)
    yield from store.release("running")
    yield from store.take(latest)


@scenario("KEEP_LATEST")
def keep_latest_supersedes_itself(store: StoreUnderTest) -> Steps[None]:
    """Of many, the first runs and the last waits."""
    yield from store.take(store.request(LATEST, id="running"))
    requests = [store.request(LATEST, id=f"call-{number}") for number in range(5)]
    for request in requests:
        yield from store.wait(request)
    for request in requests[:-1]:
        assert (yield from store.acquire(request)) == Replaced(KEY)
    yield from store.release("running")
    yield from store.take(requests[-1])


@scenario("KEEP_LATEST")
def a_queueing_newcomer_supersedes_nobody(store: StoreUnderTest) -> Steps[None]:
    """It waits behind the latest."""
    yield from store.take(store.request(id="running"))
    latest = store.request(LATEST, id="latest")
    yield from store.wait(latest)
    yield from store.wait(store.request(id="queueing"))
    yield from store.release("running")
    yield from store.take(latest)
    assert (yield from store.waiters()) == ["queueing"]


@scenario("KEEP_LATEST", "S13")
def the_latest_finds_the_queue_empty(store: StoreUnderTest) -> Steps[None]:
    """Whom it supersedes takes no place from it."""
    demand = LATEST._replace(max_waiting=1)
    yield from store.take(store.request(demand))
    for name in ("old", "new"):
        yield from store.wait(store.request(demand, id=name))
    assert (yield from store.waiters()) == ["new"]


@scenario("KEEP_LATEST", "S3")
def superseding_may_make_room(store: StoreUnderTest) -> Steps[None]:
    """The waiter that stood in its way needed more than was free; the newcomer does not."""
    yield from store.take(store.request(Demand(KEY, 2), id="running"))
    wide = store.request(Demand(KEY, 2, 2), id="wide")
    yield from store.wait(wide)
    yield from store.take(store.request(Demand(KEY, 2, 1, KEEP_LATEST), id="latest"))
    assert (yield from store.acquire(wide)) == Replaced(KEY)


@scenario("KEEP_LATEST", "S17")
def the_latest_is_the_one_that_was_made_last(store: StoreUnderTest) -> Steps[None]:
    """Jobs ask out of order: one that was made earlier comes too late."""
    began = int(store.clock() * 1_000_000)
    yield from store.take(store.request(LATEST))
    yield from store.wait(store.request(LATEST, id="newer", order=began - 1000))
    older = store.request(LATEST, id="older", order=began - 2000)
    assert (yield from store.acquire(older)) == Replaced(KEY)
    assert (yield from store.acquire(older)) == Replaced(KEY)
    assert (yield from store.waiters()) == ["newer"]
    yield from store.wait(store.request(LATEST, id="newest", order=began - 500))
    assert (yield from store.waiters()) == ["newest"]


@scenario("KEEP_LATEST", "S7")
def the_latest_supersedes_those_made_before_it(store: StoreUnderTest) -> Steps[None]:
    """It asks late: a call that was made after it waits on, whatever its resolution."""
    began = int(store.clock() * 1_000_000)
    yield from store.take(store.request())
    yield from store.wait(store.request(id="younger", order=began - 1000))
    yield from store.wait(store.request(id="oldest", order=began - 3000))
    yield from store.wait(store.request(LATEST, id="late", order=began - 2000))
    assert (yield from store.waiters()) == ["late", "younger"]


@scenario("CANCEL_RUNNING", "S12")
def a_paused_key_preempts_nobody(store: StoreUnderTest) -> Steps[None]:
    """The newcomer waits for the operator, and no holder is in its way."""
    yield from store.take(store.request(WINS, id="running"))
    yield from store.pause()
    yield from store.wait(store.request(WINS, id="newcomer"))
    assert not (yield from store.renew("running")).preempted


@scenario("CANCEL_RUNNING")
def cancel_running_asks_the_oldest_to_let_go(store: StoreUnderTest) -> Steps[None]:
    """The slot passes on only when it did."""
    two = WINS._replace(limit=2)
    listeners = {name: RecordingListener() for name in ("oldest", "younger")}
    for name, listener in listeners.items():
        yield from store.take(store.request(two, id=name, listener=listener))
    newcomer = store.request(two, id="newcomer")
    yield from store.wait(newcomer)
    yield from store.eventually("the oldest was notified", lambda: listeners["oldest"].losses)
    assert listeners["oldest"].losses == [Loss.PREEMPTED]
    assert listeners["younger"].losses == []
    snapshot = yield from store.inspect()
    preempted = [(holder.id, holder.preempted) for holder in snapshot.holders]
    assert preempted == [("oldest", True), ("younger", False)]
    yield from store.wait(newcomer)
    yield from store.release("oldest")
    yield from store.take(newcomer)
    assert (yield from store.inspect()).in_use == 2


@scenario("CANCEL_RUNNING", "S10")
def a_preempted_holder_hears_of_it_when_it_renews(store: StoreUnderTest) -> Steps[None]:
    """Its lease lives until the release: it is not gone."""
    yield from store.take(store.request(WINS, id="oldest"))
    newcomer = store.request(WINS, id="newcomer", lease=300)
    yield from store.wait(newcomer)
    for _ in range(3):
        store.clock.advance(20)
        renewal = yield from store.renew("oldest")
        assert renewal.preempted == {"oldest"}
        assert not renewal.gone
    yield from store.wait(newcomer)


@scenario("CANCEL_RUNNING", "S2")
def a_preempted_holder_that_crashed_is_replaced(store: StoreUnderTest) -> Steps[None]:
    """Its lease ends like any other."""
    yield from store.take(store.request(WINS, id="crashed", lease=10))
    newcomer = store.request(WINS, id="newcomer", lease=300)
    yield from store.wait(newcomer)
    store.clock.advance(11)
    yield from store.take(newcomer)


@scenario("CANCEL_RUNNING")
def as_many_are_preempted_as_the_newcomer_needs(store: StoreUnderTest) -> Steps[None]:
    """And none if it fits."""
    three = WINS._replace(limit=3)
    for name in ("first", "second", "third"):
        yield from store.take(store.request(three, id=name))
    assert not (yield from store.renew("first", "second", "third")).preempted
    yield from store.wait(store.request(three._replace(cost=2), id="wide"))
    renewal = yield from store.renew("first", "second", "third")
    assert renewal.preempted == {"first", "second"}


@scenario("CANCEL_RUNNING")
def the_next_newcomer_supersedes_the_one_that_waits(store: StoreUnderTest) -> Steps[None]:
    """And preempts no other: one is making room already."""
    two = WINS._replace(limit=2)
    yield from store.take(store.request(two, id="first"))
    yield from store.take(store.request(two, id="second"))
    old, new = store.request(two, id="old"), store.request(two, id="new")
    yield from store.wait(old)
    yield from store.wait(new)
    assert (yield from store.acquire(old)) == Replaced(KEY)
    assert (yield from store.renew("first", "second")).preempted == {"first"}
    yield from store.release("first")
    yield from store.take(new)


@scenario("CANCEL_RUNNING")
def cancel_running_supersedes_all_who_wait(store: StoreUnderTest) -> Steps[None]:
    """Whatever their own resolution."""
    yield from store.take(store.request(id="running"))
    queueing = store.request(id="queueing")
    yield from store.wait(queueing)
    yield from store.wait(store.request(WINS, id="newcomer"))
    assert (yield from store.acquire(queueing)) == Replaced(KEY)
    assert (yield from store.waiters()) == ["newcomer"]


@scenario("CANCEL_RUNNING", "S6")
def a_waiter_that_has_not_claimed_its_slot_gives_way(store: StoreUnderTest) -> Steps[None]:
    """For its caller it still waits, so it is superseded, and the slot is free at once."""
    yield from store.take(store.request(id="running"))
    handed = store.request(id="handed")
    yield from store.wait(handed)
    yield from store.release("running")
    yield from store.take(store.request(WINS, id="newcomer"))
    assert (yield from store.acquire(handed)) == Replaced(KEY)
    assert (yield from store.holders()) == ["newcomer"]


@scenario("CANCEL_RUNNING", "S3")
def trying_preempts_nobody(store: StoreUnderTest) -> Steps[None]:
    """A try is without any effect on others."""
    yield from store.take(store.request(WINS, id="running"))
    yield from store.wait(store.request(id="waiter"))
    yield from store.be_refused(store.request(WINS, mode=Mode.TRY))
    yield from store.be_refused(store.request(LATEST, mode=Mode.TRY))
    assert not (yield from store.renew("running")).preempted
    assert (yield from store.waiters()) == ["waiter"]
