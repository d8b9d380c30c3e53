"""The conflict resolutions: what happens to the running, the waiting and the newcomer."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Loss, Mode, Refusal, Replaced
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Stage, Steps

CANCEL = ConflictResolution.CANCEL
KEEP_LATEST = ConflictResolution.KEEP_LATEST
CANCEL_RUNNING = ConflictResolution.CANCEL_RUNNING

LATEST = Demand(KEY, 1, 1, KEEP_LATEST)
WINS = Demand(KEY, 1, 1, CANCEL_RUNNING)


@scenario("CANCEL", "S3")
def cancel_refuses_at_once(stage: Stage) -> Steps[None]:
    """Running and waiting are untouched, and nothing is left of the refused."""
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="waiter"))
    refused = yield from stage.be_refused(stage.request(Demand(KEY, 1, 1, CANCEL)))
    assert (refused.key, refused.max_concurrent, refused.in_use) == (KEY, 1, 1)
    assert refused.reason is Refusal.FULL
    assert (yield from stage.holders()) == ["holder"]
    assert (yield from stage.waiters()) == ["waiter"]


@scenario("CANCEL", "S3")
def cancel_comes_in_where_there_is_room(stage: Stage) -> Steps[None]:
    """Each time anew: a refusal is not remembered."""
    call = stage.request(Demand(KEY, 1, 1, CANCEL), id="call")
    yield from stage.take(stage.request(id="holder"))
    yield from stage.be_refused(call)
    yield from stage.release("holder")
    yield from stage.take(call)


@scenario("KEEP_LATEST")
def keep_latest_supersedes_all_who_wait(stage: Stage) -> Steps[None]:
    """Whatever their own resolution; each is told. The running are untouched."""
    running = RecordingListener()
    yield from stage.take(stage.request(id="running", listener=running))
    listeners = [RecordingListener() for _ in range(3)]
    old = [stage.request(id=f"old-{n}", listener=heard) for n, heard in enumerate(listeners)]
    for request in old:
        yield from stage.wait(request)
    latest = stage.request(LATEST, id="latest")
    yield from stage.wait(latest)
    yield from stage.eventually("all were told", lambda: all(heard.woken for heard in listeners))
    for request in old:
        assert (yield from stage.acquire(request)) == Replaced(KEY)
    assert (yield from stage.waiters()) == ["latest"]
    assert (running.losses, running.woken) == ([], 0)
    yield from stage.release("running")
    yield from stage.take(latest)


@scenario("KEEP_LATEST")
def keep_latest_supersedes_itself(stage: Stage) -> Steps[None]:
    """Of many, the first runs and the last waits."""
    yield from stage.take(stage.request(LATEST, id="running"))
    requests = [stage.request(LATEST, id=f"call-{number}") for number in range(5)]
    for request in requests:
        yield from stage.wait(request)
    for request in requests[:-1]:
        assert (yield from stage.acquire(request)) == Replaced(KEY)
    yield from stage.release("running")
    yield from stage.take(requests[-1])


@scenario("KEEP_LATEST")
def a_queueing_newcomer_supersedes_nobody(stage: Stage) -> Steps[None]:
    """It waits behind the latest."""
    yield from stage.take(stage.request(id="running"))
    latest = stage.request(LATEST, id="latest")
    yield from stage.wait(latest)
    yield from stage.wait(stage.request(id="queueing"))
    yield from stage.release("running")
    yield from stage.take(latest)
    assert (yield from stage.waiters()) == ["queueing"]


@scenario("KEEP_LATEST", "S13")
def the_latest_finds_the_queue_empty(stage: Stage) -> Steps[None]:
    """Whom it supersedes takes no place from it."""
    demand = LATEST._replace(max_waiting=1)
    yield from stage.take(stage.request(demand))
    for name in ("old", "new"):
        yield from stage.wait(stage.request(demand, id=name))
    assert (yield from stage.waiters()) == ["new"]


@scenario("KEEP_LATEST", "S3")
def superseding_may_make_room(stage: Stage) -> Steps[None]:
    """The waiter that stood in its way needed more than was free; the newcomer does not."""
    yield from stage.take(stage.request(Demand(KEY, 2), id="running"))
    wide = stage.request(Demand(KEY, 2, 2), id="wide")
    yield from stage.wait(wide)
    yield from stage.take(stage.request(Demand(KEY, 2, 1, KEEP_LATEST), id="latest"))
    assert (yield from stage.acquire(wide)) == Replaced(KEY)


@scenario("KEEP_LATEST", "S17")
def the_latest_is_the_one_that_was_made_last(stage: Stage) -> Steps[None]:
    """Jobs ask out of order: one that was made earlier comes too late."""
    began = int(stage.clock() * 1_000_000)
    yield from stage.take(stage.request(LATEST))
    yield from stage.wait(stage.request(LATEST, id="newer", order=began - 1000))
    older = stage.request(LATEST, id="older", order=began - 2000)
    assert (yield from stage.acquire(older)) == Replaced(KEY)
    assert (yield from stage.acquire(older)) == Replaced(KEY)
    assert (yield from stage.waiters()) == ["newer"]
    yield from stage.wait(stage.request(LATEST, id="newest", order=began - 500))
    assert (yield from stage.waiters()) == ["newest"]


@scenario("KEEP_LATEST", "S7")
def the_latest_supersedes_those_made_before_it(stage: Stage) -> Steps[None]:
    """It asks late: who was made after it waits on, whatever its resolution."""
    began = int(stage.clock() * 1_000_000)
    yield from stage.take(stage.request())
    yield from stage.wait(stage.request(id="younger", order=began - 1000))
    yield from stage.wait(stage.request(id="oldest", order=began - 3000))
    yield from stage.wait(stage.request(LATEST, id="late", order=began - 2000))
    assert (yield from stage.waiters()) == ["late", "younger"]


@scenario("CANCEL_RUNNING", "S12")
def a_paused_key_preempts_nobody(stage: Stage) -> Steps[None]:
    """The newcomer waits for the operator, and no holder is in its way."""
    yield from stage.take(stage.request(WINS, id="running"))
    yield from stage.pause()
    yield from stage.wait(stage.request(WINS, id="newcomer"))
    assert not (yield from stage.renew("running")).preempted


@scenario("CANCEL_RUNNING")
def cancel_running_asks_the_oldest_to_let_go(stage: Stage) -> Steps[None]:
    """The slot passes on only when it did."""
    two = WINS._replace(limit=2)
    listeners = {name: RecordingListener() for name in ("oldest", "younger")}
    for name, listener in listeners.items():
        yield from stage.take(stage.request(two, id=name, listener=listener))
    newcomer = stage.request(two, id="newcomer")
    yield from stage.wait(newcomer)
    yield from stage.eventually("the oldest was told", lambda: listeners["oldest"].losses)
    assert listeners["oldest"].losses == [Loss.PREEMPTED]
    assert listeners["younger"].losses == []
    snapshot = yield from stage.inspect()
    preempted = [(holder.id, holder.preempted) for holder in snapshot.holders]
    assert preempted == [("oldest", True), ("younger", False)]
    yield from stage.wait(newcomer)
    yield from stage.release("oldest")
    yield from stage.take(newcomer)
    assert (yield from stage.inspect()).in_use == 2


@scenario("CANCEL_RUNNING", "S10")
def a_preempted_holder_hears_of_it_when_it_renews(stage: Stage) -> Steps[None]:
    """It lives on until it lets go: it is not gone."""
    yield from stage.take(stage.request(WINS, id="oldest"))
    newcomer = stage.request(WINS, id="newcomer", lease=300)
    yield from stage.wait(newcomer)
    for _ in range(3):
        stage.clock.advance(20)
        renewal = yield from stage.renew("oldest")
        assert renewal.preempted == {"oldest"}
        assert not renewal.gone
    yield from stage.wait(newcomer)


@scenario("CANCEL_RUNNING", "S2")
def a_preempted_holder_that_crashed_is_replaced(stage: Stage) -> Steps[None]:
    """Its lease ends like any other."""
    yield from stage.take(stage.request(WINS, id="crashed", lease=10))
    newcomer = stage.request(WINS, id="newcomer", lease=300)
    yield from stage.wait(newcomer)
    stage.clock.advance(11)
    yield from stage.take(newcomer)


@scenario("CANCEL_RUNNING")
def as_many_are_preempted_as_the_newcomer_needs(stage: Stage) -> Steps[None]:
    """And none if it fits."""
    three = WINS._replace(limit=3)
    for name in ("first", "second", "third"):
        yield from stage.take(stage.request(three, id=name))
    assert not (yield from stage.renew("first", "second", "third")).preempted
    yield from stage.wait(stage.request(three._replace(cost=2), id="wide"))
    renewal = yield from stage.renew("first", "second", "third")
    assert renewal.preempted == {"first", "second"}


@scenario("CANCEL_RUNNING")
def the_next_newcomer_supersedes_the_one_that_waits(stage: Stage) -> Steps[None]:
    """And preempts nobody else: room is being made already."""
    two = WINS._replace(limit=2)
    yield from stage.take(stage.request(two, id="first"))
    yield from stage.take(stage.request(two, id="second"))
    old, new = stage.request(two, id="old"), stage.request(two, id="new")
    yield from stage.wait(old)
    yield from stage.wait(new)
    assert (yield from stage.acquire(old)) == Replaced(KEY)
    assert (yield from stage.renew("first", "second")).preempted == {"first"}
    yield from stage.release("first")
    yield from stage.take(new)


@scenario("CANCEL_RUNNING")
def cancel_running_supersedes_all_who_wait(stage: Stage) -> Steps[None]:
    """Whatever their own resolution."""
    yield from stage.take(stage.request(id="running"))
    queueing = stage.request(id="queueing")
    yield from stage.wait(queueing)
    yield from stage.wait(stage.request(WINS, id="newcomer"))
    assert (yield from stage.acquire(queueing)) == Replaced(KEY)
    assert (yield from stage.waiters()) == ["newcomer"]


@scenario("CANCEL_RUNNING", "S6")
def who_has_not_taken_up_its_slot_gives_way(stage: Stage) -> Steps[None]:
    """For its caller it still waits, so it is superseded, and the slot is free at once."""
    yield from stage.take(stage.request(id="running"))
    handed = stage.request(id="handed")
    yield from stage.wait(handed)
    yield from stage.release("running")
    yield from stage.take(stage.request(WINS, id="newcomer"))
    assert (yield from stage.acquire(handed)) == Replaced(KEY)
    assert (yield from stage.holders()) == ["newcomer"]


@scenario("CANCEL_RUNNING", "S3")
def trying_preempts_nobody(stage: Stage) -> Steps[None]:
    """A try is without any effect on others."""
    yield from stage.take(stage.request(WINS, id="running"))
    yield from stage.wait(stage.request(id="waiter"))
    yield from stage.be_refused(stage.request(WINS, mode=Mode.TRY))
    yield from stage.be_refused(stage.request(LATEST, mode=Mode.TRY))
    assert not (yield from stage.renew("running")).preempted
    assert (yield from stage.waiters()) == ["waiter"]
