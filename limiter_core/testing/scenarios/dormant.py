"""S17: tickets of job queues are served while a worker can wake their jobs, and dormant else."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import (
    PRESENCE,
    Demand,
    Granted,
    Mode,
    Presence,
    Queued,
    Refusal,
    Refused,
    Replaced,
    Request,
)
from limiter_core.store import DEFERRED, OFFERS
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Stage, Steps

DURABLE = ("durable",)
SHOP, MAIL = "queue:shop", "queue:mail"


def _worker(name: str, worker: str = "worker-1", *, leaving: bool = False) -> Presence:
    return Presence(name, worker, leaving)


def _job(
    stage: Stage, ticket: str, *demands: Demand, name: str = SHOP, order: int | None = None
) -> Request:
    presence = _worker(name)
    return stage.request(
        *demands, id=ticket, payload=ticket.encode(), presence=presence, order=order
    )


def _park(stage: Stage, *tickets: str, name: str = SHOP) -> Steps[list[Request]]:
    """Let jobs wait for `KEY`, in this order, behind a call that holds it."""
    yield from stage.take(stage.request(id="holder", lease=10_000))
    jobs = [_job(stage, ticket, name=name) for ticket in tickets]
    for job in jobs:
        yield from stage.wait(job)
    return jobs


def _noticed(stage: Stage) -> list[str]:
    ids = [notice.id for notice in stage.notices]
    stage.notices.clear()
    return ids


@scenario("S17", "S6", needs=DURABLE)
def jobs_without_a_worker_starve_nobody(stage: Stage) -> Steps[None]:
    """The slot goes to the call behind them, and not round among jobs that nobody can wake."""
    yield from _park(stage, "job-1", "job-2", "job-3")
    stage.clock.advance(PRESENCE + 1)
    yield from stage.wait(stage.request(id="call"))
    yield from stage.release("holder")
    assert _noticed(stage) == []
    assert (yield from stage.holders()) == ["call"]


@scenario("S17", "S3", needs=DURABLE)
def a_dormant_ticket_stands_before_nobody(stage: Stage) -> Steps[None]:
    """Neither before a newcomer nor, under another priority, before one with a lower."""
    yield from stage.take(stage.request(id="holder"))
    high = Demand(KEY, 1, 1, ConflictResolution.PRIORITY, 9)
    yield from stage.wait(_job(stage, "job", high))
    stage.clock.advance(PRESENCE + 1)
    yield from stage.release("holder")
    yield from stage.take(stage.request(mode=Mode.TRY))


@scenario("S17", "S7", needs=DURABLE)
def jobs_are_served_in_their_order_when_a_worker_is_back(stage: Stage) -> Steps[None]:
    """After an hour, at its first sweep; whoever came meanwhile stands behind them."""
    jobs = yield from _park(stage, "job-1", "job-2")
    stage.clock.advance(3600)
    yield from stage.wait(stage.request(id="call", lease=10_000))
    yield from stage.sweep(_worker(SHOP, "worker-2"))
    assert (yield from stage.waiters()) == ["job-1", "job-2", "call"]
    yield from stage.release("holder")
    assert _noticed(stage) == ["job-1"]
    yield from stage.take(jobs[0])
    yield from stage.release("job-1")
    assert _noticed(stage) == ["job-2"]
    yield from stage.take(jobs[1])
    yield from stage.release("job-2")
    assert (yield from stage.holders()) == ["call"]


@scenario("S17", "S6", needs=DURABLE)
def a_worker_that_is_back_finds_the_free_slot(stage: Stage) -> Steps[None]:
    """Its sweep serves, also where nothing ended and nobody asks."""
    jobs = yield from _park(stage, "job-1", "job-2")
    stage.clock.advance(PRESENCE + 1)
    yield from stage.release("holder")
    assert _noticed(stage) == []
    yield from stage.sweep()
    assert _noticed(stage) == [], "whoever sweeps says nothing of the workers of others"
    yield from stage.sweep(_worker(MAIL))
    assert _noticed(stage) == []
    yield from stage.sweep(_worker(SHOP))
    assert _noticed(stage) == ["job-1"]
    yield from stage.take(jobs[0])


@scenario("S17", needs=DURABLE)
def a_worker_that_asks_is_there(stage: Stage) -> Steps[None]:
    """Its jobs of before are served with it."""
    yield from _park(stage, "job-1")
    stage.clock.advance(PRESENCE + 1)
    yield from stage.release("holder")
    assert _noticed(stage) == []
    yield from stage.wait(_job(stage, "job-2"))
    assert _noticed(stage) == ["job-1"]


@scenario("S17", needs=DURABLE)
def sweeps_keep_jobs_awake(stage: Stage) -> Steps[None]:
    """For as long as one of the workers of their name sweeps."""
    yield from _park(stage, "job")
    for _ in range(5):
        stage.clock.advance(PRESENCE - 1)
        yield from stage.sweep(_worker(SHOP, "worker-2"))
    yield from stage.release("holder")
    assert _noticed(stage) == ["job"]


@scenario("S17", "S6", "S8", needs=DURABLE)
def who_leaves_frees_those_behind_at_once(stage: Stage) -> Steps[None]:
    """A wide job held up a call: it is served in the step in which the last worker leaves."""
    listener = RecordingListener()
    yield from stage.take(stage.request(Demand(KEY, 2), id="holder"))
    yield from stage.wait(_job(stage, "wide", Demand(KEY, 2, cost=2)))
    yield from stage.wait(stage.request(Demand(KEY, 2), id="call", listener=listener))
    yield from stage.sweep(_worker(SHOP, leaving=True))
    yield from stage.eventually("the call was served", lambda: listener.woken)
    assert _noticed(stage) == []
    assert (yield from stage.holders()) == ["holder", "call"]


@scenario("S17", "S6", "S8", needs=DURABLE)
def a_call_looks_when_the_last_worker_may_be_gone(stage: Stage) -> Steps[None]:
    """Nobody sweeps any more: the call behind was told when to look, and then it is served."""
    yield from stage.take(stage.request(Demand(KEY, 2), id="holder", lease=10_000))
    yield from stage.wait(_job(stage, "wide", Demand(KEY, 2, cost=2)))
    call = stage.request(Demand(KEY, 2), id="call")
    yield from stage.wait(call)
    stage.clock.advance(PRESENCE + 0.1)
    yield from stage.take(call)


@scenario("S17", needs=DURABLE)
def who_leaves_takes_nothing_from_the_others_of_its_name(stage: Stage) -> Steps[None]:
    """A rolling restart: another worker of the name is there, so its jobs are served as ever."""
    yield from _park(stage, "job-1", "job-2")
    yield from stage.sweep(_worker(SHOP, "worker-2"))
    yield from stage.sweep(_worker(SHOP, "worker-1", leaving=True))
    yield from stage.release("holder")
    assert _noticed(stage) == ["job-1"]
    yield from stage.release("job-1")
    assert _noticed(stage) == ["job-2"]
    yield from stage.release("job-2")


@scenario("S17", needs=DURABLE)
def who_left_and_asks_once_more_is_not_back(stage: Stage) -> Steps[None]:
    """A worker that shuts down brings in what it had fetched before."""
    yield from stage.take(stage.request(id="holder"))
    job = _job(stage, "job")
    yield from stage.wait(job._replace(presence=_worker(SHOP, leaving=True)))
    yield from stage.release("holder")
    assert _noticed(stage) == []
    snapshot = yield from stage.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (0, 0)


@scenario("S17", needs=DURABLE)
def jobs_of_one_queue_do_not_wait_for_the_worker_of_another(stage: Stage) -> Steps[None]:
    """Each name is present, or not, by itself; the jobs of a gate without a name always are."""
    yield from _park(stage, "shop", name=SHOP)
    yield from stage.wait(_job(stage, "mail", name=MAIL))
    stage.clock.advance(PRESENCE + 1)
    yield from stage.sweep(_worker(MAIL))
    yield from stage.release("holder")
    assert _noticed(stage) == ["mail"]
    yield from stage.release("mail")
    assert _noticed(stage) == []
    yield from stage.take(stage.request(id="anybody", payload=b""))


@scenario("S17", "S13", needs=DURABLE)
def dormant_tickets_do_not_count_for_max_waiting(stage: Stage) -> Steps[None]:
    """One may wait, whoever is dormant."""
    yield from _park(stage, "job-1", "job-2")
    one = Demand(KEY, 1, max_waiting=1)
    refused = yield from stage.be_refused(stage.request(one))
    assert refused.reason is Refusal.QUEUE_FULL
    stage.clock.advance(PRESENCE + 1)
    yield from stage.wait(stage.request(one))
    refused = yield from stage.be_refused(stage.request(one))
    assert refused.reason is Refusal.QUEUE_FULL


@scenario("S17", "KEEP_LATEST", needs=DURABLE)
def a_dormant_ticket_can_be_superseded(stage: Stage) -> Steps[None]:
    """Its job has no business to run any more when a worker is back, however late: it hears so."""
    jobs = yield from _park(stage, "job-1", "job-2")
    stage.clock.advance(PRESENCE + 1)
    latest = stage.request(Demand(KEY, 1, 1, ConflictResolution.KEEP_LATEST), id="latest")
    yield from stage.wait(latest)
    assert _noticed(stage) == [], "nobody could hear it"
    assert (yield from stage.inspect()).dormant == ()
    assert (yield from stage.acquire(jobs[1]._replace(mode=Mode.LOOK))) == Replaced(KEY)
    yield from stage.release("holder")
    yield from stage.take(latest)
    yield from stage.release("latest")
    stage.clock.advance(3600)
    yield from stage.sweep(_worker(SHOP))
    told = [(notice.id, notice.answer) for notice in stage.notices]
    assert sorted(told) == [("job-1", Replaced(KEY)), ("job-2", Replaced(KEY))]
    for job in jobs:
        assert (yield from stage.acquire(job)) == Replaced(KEY)
    assert (yield from stage.keys()) == []


@scenario("S17", "S9", "CANCEL_RUNNING", needs=DURABLE)
def a_job_that_was_offered_a_slot_is_superseded_without_a_worker(stage: Stage) -> Steps[None]:
    """On any of its keys; its last worker went before it came for the slots."""
    yield from stage.take(stage.request(id="holder", lease=10_000))
    job = _job(stage, "job", Demand(OTHER_KEY, 1), Demand(KEY, 1))
    yield from stage.wait(job._replace(claim=1000.0))
    yield from stage.release("holder")
    assert _noticed(stage) == ["job"]
    stage.clock.advance(PRESENCE + 1)
    latest = Demand(KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from stage.acquire(stage.request(latest, id="latest"))
    assert (yield from stage.holders()) == ["latest"]
    assert (yield from stage.holders(OTHER_KEY)) == []
    yield from stage.release("latest")
    assert _noticed(stage) == []
    stage.clock.advance(3600)
    yield from stage.sweep(_worker(SHOP))
    assert _noticed(stage) == ["job"]
    assert (yield from stage.acquire(job)) == Replaced(KEY)
    assert (yield from stage.keys()) == []


@scenario("S17", "CANCEL_RUNNING", needs=DURABLE)
def a_dormant_ticket_makes_way_for_the_latest(stage: Stage) -> Steps[None]:
    """As any that waits."""
    yield from _park(stage, "job")
    stage.clock.advance(PRESENCE + 1)
    latest = Demand(KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from stage.wait(stage.request(latest, id="latest"))
    yield from stage.release("holder")
    yield from stage.release("latest")
    assert _noticed(stage) == []
    yield from stage.sweep(_worker(SHOP))
    assert _noticed(stage) == ["job"]
    assert (yield from stage.keys()) == []


@scenario("S17", needs=DURABLE)
def a_snapshot_shows_who_is_dormant(stage: Stage) -> Steps[None]:
    """By the name of the gate, since when it has no worker; the others wait."""
    yield from _park(stage, "job-1", "job-2")
    yield from stage.sweep(_worker(SHOP))
    yield from stage.wait(stage.request(id="call", lease=10_000))
    snapshot = yield from stage.inspect()
    assert [(waiter.id, waiter.name) for waiter in snapshot.waiters] == [
        ("job-1", SHOP),
        ("job-2", SHOP),
        ("call", ""),
    ]
    assert snapshot.dormant == ()
    stage.clock.advance(PRESENCE + 60)
    snapshot = yield from stage.inspect()
    assert snapshot.waiting == 1
    assert [waiter.id for waiter in snapshot.waiters] == ["call"]
    [dormant] = snapshot.dormant
    assert (dormant.name, dormant.waiting) == (SHOP, 2)
    assert dormant.absent_for is not None
    assert 59 < dormant.absent_for < 61
    assert [waiter.id for waiter in dormant.waiters] == ["job-1", "job-2"]


@scenario("S17", "S6", needs=DURABLE)
def a_slot_that_a_killed_worker_was_handed_goes_on(stage: Stage) -> Steps[None]:
    """At the end of its claim time, to the call behind; the job is dormant, in its place."""
    jobs = yield from _park(stage, "job-1", "job-2")
    call = stage.request(id="call")
    yield from stage.wait(call)
    yield from stage.release("holder")
    assert _noticed(stage) == ["job-1"]
    stage.clock.advance(PRESENCE + 1)
    yield from stage.take(call)
    yield from stage.sweep(_worker(SHOP))
    assert (yield from stage.waiters()) == ["job-1", "job-2"]
    yield from stage.release("call")
    assert _noticed(stage) == ["job-1"]
    yield from stage.take(jobs[0])


@scenario("S17", "S9", needs=DURABLE)
def a_dormant_job_of_several_keys_holds_up_none_of_them(stage: Stage) -> Steps[None]:
    """It keeps its place on the key in whose queue it sits, and gets both when it is awake."""
    yield from stage.take(stage.request(Demand(KEY, 1), id="holder"))
    both = _job(stage, "both", Demand(KEY, 1), Demand(OTHER_KEY, 1))
    yield from stage.wait(both)
    stage.clock.advance(PRESENCE + 1)
    yield from stage.release("holder")
    yield from stage.take(stage.request(Demand(OTHER_KEY, 1), id="other"))
    yield from stage.take(stage.request(Demand(KEY, 1), id="one"))
    yield from stage.release("one")
    yield from stage.sweep(_worker(SHOP))
    assert _noticed(stage) == []
    yield from stage.release("other")
    assert _noticed(stage) == ["both"]
    yield from stage.take(both)


@scenario("S17", "S7", needs=DURABLE)
def dormant_tickets_cost_their_group_no_turn(stage: Stage) -> Steps[None]:
    """`fair_by`: a tenant's call is not behind the rounds of its dormant jobs."""

    def of(group: str) -> Demand:
        return Demand(KEY, 1, group=group)

    yield from stage.take(stage.request(id="holder"))
    for number in range(5):
        yield from stage.wait(_job(stage, f"job-{number}", of("tenant")))
    stage.clock.advance(PRESENCE + 1)
    yield from stage.wait(stage.request(of("tenant"), id="tenant-1"))
    yield from stage.wait(stage.request(of("other"), id="other-1"))
    yield from stage.wait(stage.request(of("other"), id="other-2"))
    yield from stage.wait(stage.request(of("tenant"), id="tenant-2"))
    assert (yield from stage.waiters()) == ["tenant-1", "other-1", "other-2", "tenant-2"]


@scenario("S17", "S19", needs=DURABLE)
def an_evicted_job_is_told(stage: Stage) -> Steps[None]:
    """While it waits, and when it was handed a slot; then the next is served."""
    jobs = yield from _park(stage, "job-1", "job-2", "job-3")
    assert (yield from stage.evict_waiter("job-2", [KEY]))
    [notice] = stage.notices
    assert (notice.id, notice.payload, notice.name) == ("job-2", b"job-2", SHOP)
    assert isinstance(notice.answer, Refused)
    assert notice.answer.reason is Refusal.EVICTED
    refused = yield from stage.be_refused(jobs[1])
    assert refused.reason is Refusal.EVICTED
    yield from stage.release("holder")
    stage.notices.clear()
    assert (yield from stage.evict_waiter("job-1"))
    assert _noticed(stage) == ["job-1", "job-3"]
    yield from stage.take(jobs[2])
    assert not (yield from stage.evict_waiter("job-3")), "it runs"
    assert not (yield from stage.evict_waiter("nobody"))


@scenario("S17", "S19", needs=DURABLE)
def an_evicted_dormant_job_is_told_when_a_worker_is_back(stage: Stage) -> Steps[None]:
    """Until then it is kept, since nobody could hear; but it waits no longer."""
    jobs = yield from _park(stage, "job-1", "job-2", "job-3")
    stage.clock.advance(PRESENCE + 1)
    assert (yield from stage.evict_waiter("job-1"))
    assert (yield from stage.evict_waiter("job-2"))
    assert not (yield from stage.evict_waiter("job-1"))
    assert _noticed(stage) == []
    [dormant] = (yield from stage.inspect()).dormant
    assert [waiter.id for waiter in dormant.waiters] == ["job-3"]
    look = yield from stage.be_refused(jobs[1]._replace(mode=Mode.LOOK))
    assert look.reason is Refusal.EVICTED
    stage.clock.advance(600)
    yield from stage.release("holder")
    yield from stage.sweep(_worker(SHOP))
    assert sorted(_noticed(stage)) == ["job-1", "job-2", "job-3"]
    refused = yield from stage.be_refused(jobs[0])
    assert refused.reason is Refusal.EVICTED
    yield from stage.take(jobs[2])
    yield from stage.release("job-3")
    assert (yield from stage.keys()) == []


@scenario("S19")
def an_evicted_waiter_is_told(stage: Stage) -> Steps[None]:
    """A call that waits is refused, and whoever stood behind it goes on."""
    listener = RecordingListener()
    yield from stage.take(stage.request(Demand(KEY, 2), id="holder"))
    wide = stage.request(Demand(KEY, 2, cost=2), id="wide", listener=listener)
    yield from stage.wait(wide)
    yield from stage.wait(stage.request(Demand(KEY, 2), id="next"))
    assert not (yield from stage.evict_waiter("holder"))
    assert (yield from stage.evict_waiter("wide"))
    yield from stage.eventually("the call was told", lambda: listener.woken)
    refused = yield from stage.be_refused(wide)
    assert refused.reason is Refusal.EVICTED
    assert (yield from stage.holders()) == ["holder", "next"]


@scenario("S17", needs=DURABLE)
def a_job_that_nobody_claims_lets_others_go_first(stage: Stage) -> Steps[None]:
    """Offered in vain a few times though its worker is there: for a while it stands behind all."""
    yield from _park(stage)
    orphan = _job(stage, "orphan")._replace(claim=PRESENCE - 2)
    yield from stage.wait(orphan)
    yield from stage.release("holder")
    for _ in range(OFFERS):
        assert _noticed(stage) == ["orphan"]
        yield from stage.sweep(_worker(SHOP))
        stage.clock.advance(orphan.claim + 0.1)
        yield from stage.sweep(_worker(SHOP))
    assert _noticed(stage) == ["orphan"], "nobody else is there"
    call = stage.request(id="call", lease=10_000)
    yield from stage.wait(call)
    mail = _job(stage, "mail", name=MAIL)
    yield from stage.wait(mail)
    stage.clock.advance(orphan.claim + 0.1)
    yield from stage.sweep(_worker(SHOP))
    yield from stage.sweep(_worker(MAIL))
    assert (yield from stage.holders()) == ["call"]
    assert (yield from stage.waiters()) == ["mail", "orphan"]
    yield from stage.wait(_job(stage, "later", name=MAIL))
    assert (yield from stage.waiters()) == ["mail", "later", "orphan"]
    assert [w.deferred for w in (yield from stage.inspect()).waiters] == [False, False, True]
    for _ in range(int(DEFERRED / PRESENCE) + 2):
        stage.clock.advance(PRESENCE - 1)
        yield from stage.sweep(_worker(SHOP))
        yield from stage.sweep(_worker(MAIL))
        yield from stage.take(call)
    stage.clock.advance(DEFERRED / 2)
    yield from stage.sweep(_worker(SHOP))
    yield from stage.sweep(_worker(MAIL))
    assert (yield from stage.waiters()) == ["orphan", "mail", "later"]
    yield from stage.release("call")
    assert _noticed(stage) == ["orphan"]
    assert isinstance((yield from stage.acquire(orphan)), Granted)


@scenario("S17", needs=DURABLE)
def a_job_that_nobody_can_claim_is_not_deferred(stage: Stage) -> Steps[None]:
    """While its workers are away no offer counts."""
    [orphan] = yield from _park(stage, "orphan")
    for _ in range(OFFERS + 1):
        yield from stage.release("holder")
        yield from stage.sweep(_worker(SHOP))
        stage.clock.advance(PRESENCE + 1)
        yield from stage.sweep()
        yield from stage.take(stage.request(id="holder", lease=10_000))
        _noticed(stage)
    yield from stage.sweep(_worker(SHOP))
    assert isinstance((yield from stage.acquire(orphan)), Queued)
    assert [w.deferred for w in (yield from stage.inspect()).waiters] == [False]
