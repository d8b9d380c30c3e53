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
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest

DURABLE = ("durable",)
SHOP, MAIL = "queue:shop", "queue:mail"


def _worker(name: str, worker: str = "worker-1", *, leaving: bool = False) -> Presence:
    return Presence(name, worker, leaving)


def _job(
    store: StoreUnderTest, ticket: str, *demands: Demand, name: str = SHOP, order: int | None = None
) -> Request:
    presence = _worker(name)
    return store.request(
        *demands, id=ticket, payload=ticket.encode(), presence=presence, order=order
    )


def _park(store: StoreUnderTest, *tickets: str, name: str = SHOP) -> Steps[list[Request]]:
    """Let jobs wait for `KEY`, in this order, behind a call that holds it."""
    yield from store.take(store.request(id="holder", lease=10_000))
    jobs = [_job(store, ticket, name=name) for ticket in tickets]
    for job in jobs:
        yield from store.wait(job)
    return jobs


def _noticed(store: StoreUnderTest) -> list[str]:
    ids = [notice.id for notice in store.notices]
    store.notices.clear()
    return ids


@scenario("S17", "S6", needs=DURABLE)
def jobs_without_a_worker_starve_nobody(store: StoreUnderTest) -> Steps[None]:
    """The slot goes to the call behind them, and not round among jobs that nobody can wake."""
    yield from _park(store, "job-1", "job-2", "job-3")
    store.clock.advance(PRESENCE + 1)
    yield from store.wait(store.request(id="call"))
    yield from store.release("holder")
    assert _noticed(store) == []
    assert (yield from store.holders()) == ["call"]


@scenario("S17", "S3", needs=DURABLE)
def a_dormant_ticket_stands_before_nobody(store: StoreUnderTest) -> Steps[None]:
    """Neither before a newcomer nor, under another priority, before one with a lower."""
    yield from store.take(store.request(id="holder"))
    high = Demand(KEY, 1, 1, ConflictResolution.PRIORITY, 9)
    yield from store.wait(_job(store, "job", high))
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    yield from store.take(store.request(mode=Mode.TRY))


@scenario("S17", "S7", needs=DURABLE)
def jobs_are_served_in_their_order_when_a_worker_is_back(store: StoreUnderTest) -> Steps[None]:
    """After an hour, at its first sweep; whoever came meanwhile stands behind them."""
    jobs = yield from _park(store, "job-1", "job-2")
    store.clock.advance(3600)
    yield from store.wait(store.request(id="call", lease=10_000))
    yield from store.sweep(_worker(SHOP, "worker-2"))
    assert (yield from store.waiters()) == ["job-1", "job-2", "call"]
    yield from store.release("holder")
    assert _noticed(store) == ["job-1"]
    yield from store.take(jobs[0])
    yield from store.release("job-1")
    assert _noticed(store) == ["job-2"]
    yield from store.take(jobs[1])
    yield from store.release("job-2")
    assert (yield from store.holders()) == ["call"]


@scenario("S17", "S6", needs=DURABLE)
def a_worker_that_is_back_finds_the_free_slot(store: StoreUnderTest) -> Steps[None]:
    """Its sweep serves, also where nothing ended and nobody asks."""
    jobs = yield from _park(store, "job-1", "job-2")
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    assert _noticed(store) == []
    yield from store.sweep()
    assert _noticed(store) == [], "whoever sweeps says nothing of the workers of others"
    yield from store.sweep(_worker(MAIL))
    assert _noticed(store) == []
    yield from store.sweep(_worker(SHOP))
    assert _noticed(store) == ["job-1"]
    yield from store.take(jobs[0])


@scenario("S17", needs=DURABLE)
def a_worker_that_asks_is_there(store: StoreUnderTest) -> Steps[None]:
    """Its jobs of before are served with it."""
    yield from _park(store, "job-1")
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    assert _noticed(store) == []
    yield from store.wait(_job(store, "job-2"))
    assert _noticed(store) == ["job-1"]


@scenario("S17", needs=DURABLE)
def sweeps_keep_jobs_awake(store: StoreUnderTest) -> Steps[None]:
    """For as long as one of the workers of their name sweeps."""
    yield from _park(store, "job")
    for _ in range(5):
        store.clock.advance(PRESENCE - 1)
        yield from store.sweep(_worker(SHOP, "worker-2"))
    yield from store.release("holder")
    assert _noticed(store) == ["job"]


@scenario("S17", "S6", "S8", needs=DURABLE)
def who_leaves_frees_those_behind_at_once(store: StoreUnderTest) -> Steps[None]:
    """A wide job held up a call: it is served in the step in which the last worker leaves."""
    listener = RecordingListener()
    yield from store.take(store.request(Demand(KEY, 2), id="holder"))
    yield from store.wait(_job(store, "wide", Demand(KEY, 2, cost=2)))
    yield from store.wait(store.request(Demand(KEY, 2), id="call", listener=listener))
    yield from store.sweep(_worker(SHOP, leaving=True))
    yield from store.eventually("the call was served", lambda: listener.woken)
    assert _noticed(store) == []
    assert (yield from store.holders()) == ["holder", "call"]


@scenario("S17", "S6", "S8", needs=DURABLE)
def a_call_looks_when_the_last_worker_may_be_gone(store: StoreUnderTest) -> Steps[None]:
    """Nobody sweeps any more: the call behind was told when to look, and then it is served."""
    yield from store.take(store.request(Demand(KEY, 2), id="holder", lease=10_000))
    yield from store.wait(_job(store, "wide", Demand(KEY, 2, cost=2)))
    call = store.request(Demand(KEY, 2), id="call")
    yield from store.wait(call)
    store.clock.advance(PRESENCE + 0.1)
    yield from store.take(call)


@scenario("S17", needs=DURABLE)
def who_leaves_takes_nothing_from_the_others_of_its_name(store: StoreUnderTest) -> Steps[None]:
    """A rolling restart: another worker of the name is there, so its jobs are served as ever."""
    yield from _park(store, "job-1", "job-2")
    yield from store.sweep(_worker(SHOP, "worker-2"))
    yield from store.sweep(_worker(SHOP, "worker-1", leaving=True))
    yield from store.release("holder")
    assert _noticed(store) == ["job-1"]
    yield from store.release("job-1")
    assert _noticed(store) == ["job-2"]
    yield from store.release("job-2")


@scenario("S17", needs=DURABLE)
def who_left_and_asks_once_more_is_not_back(store: StoreUnderTest) -> Steps[None]:
    """A worker that shuts down brings in what it had fetched before."""
    yield from store.take(store.request(id="holder"))
    job = _job(store, "job")
    yield from store.wait(job._replace(presence=_worker(SHOP, leaving=True)))
    yield from store.release("holder")
    assert _noticed(store) == []
    snapshot = yield from store.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (0, 0)


@scenario("S17", needs=DURABLE)
def jobs_of_one_queue_do_not_wait_for_the_worker_of_another(store: StoreUnderTest) -> Steps[None]:
    """Each name is present, or not, by itself; the jobs of a gate without a name always are."""
    yield from _park(store, "shop", name=SHOP)
    yield from store.wait(_job(store, "mail", name=MAIL))
    store.clock.advance(PRESENCE + 1)
    yield from store.sweep(_worker(MAIL))
    yield from store.release("holder")
    assert _noticed(store) == ["mail"]
    yield from store.release("mail")
    assert _noticed(store) == []
    yield from store.take(store.request(id="anybody", payload=b""))


@scenario("S17", "S13", needs=DURABLE)
def dormant_tickets_do_not_count_for_max_waiting(store: StoreUnderTest) -> Steps[None]:
    """One may wait, whoever is dormant."""
    yield from _park(store, "job-1", "job-2")
    one = Demand(KEY, 1, max_waiting=1)
    refused = yield from store.be_refused(store.request(one))
    assert refused.reason is Refusal.QUEUE_FULL
    store.clock.advance(PRESENCE + 1)
    yield from store.wait(store.request(one))
    refused = yield from store.be_refused(store.request(one))
    assert refused.reason is Refusal.QUEUE_FULL


@scenario("S17", "KEEP_LATEST", needs=DURABLE)
def a_dormant_ticket_can_be_superseded(store: StoreUnderTest) -> Steps[None]:
    """Its job has no business to run any more when a worker is back, however late: it hears so."""
    jobs = yield from _park(store, "job-1", "job-2")
    store.clock.advance(PRESENCE + 1)
    latest = store.request(Demand(KEY, 1, 1, ConflictResolution.KEEP_LATEST), id="latest")
    yield from store.wait(latest)
    assert _noticed(store) == [], "nobody could hear it"
    assert (yield from store.inspect()).dormant == ()
    assert (yield from store.acquire(jobs[1]._replace(mode=Mode.LOOK))) == Replaced(KEY)
    yield from store.release("holder")
    yield from store.take(latest)
    yield from store.release("latest")
    store.clock.advance(3600)
    yield from store.sweep(_worker(SHOP))
    notifications = [(notice.id, notice.answer) for notice in store.notices]
    assert sorted(notifications) == [("job-1", Replaced(KEY)), ("job-2", Replaced(KEY))]
    for job in jobs:
        assert (yield from store.acquire(job)) == Replaced(KEY)
    assert (yield from store.keys()) == []


@scenario("S17", "S9", "CANCEL_RUNNING", needs=DURABLE)
def a_job_that_was_offered_a_slot_is_superseded_without_a_worker(
    store: StoreUnderTest,
) -> Steps[None]:
    """On any of its keys; its last worker went before it came for the slots."""
    yield from store.take(store.request(id="holder", lease=10_000))
    job = _job(store, "job", Demand(OTHER_KEY, 1), Demand(KEY, 1))
    yield from store.wait(job._replace(claim=1000.0))
    yield from store.release("holder")
    assert _noticed(store) == ["job"]
    store.clock.advance(PRESENCE + 1)
    latest = Demand(KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from store.acquire(store.request(latest, id="latest"))
    assert (yield from store.holders()) == ["latest"]
    assert (yield from store.holders(OTHER_KEY)) == []
    yield from store.release("latest")
    assert _noticed(store) == []
    store.clock.advance(3600)
    yield from store.sweep(_worker(SHOP))
    assert _noticed(store) == ["job"]
    assert (yield from store.acquire(job)) == Replaced(KEY)
    assert (yield from store.keys()) == []


@scenario("S17", "CANCEL_RUNNING", needs=DURABLE)
def a_dormant_ticket_makes_way_for_the_latest(store: StoreUnderTest) -> Steps[None]:
    """As any that waits."""
    yield from _park(store, "job")
    store.clock.advance(PRESENCE + 1)
    latest = Demand(KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from store.wait(store.request(latest, id="latest"))
    yield from store.release("holder")
    yield from store.release("latest")
    assert _noticed(store) == []
    yield from store.sweep(_worker(SHOP))
    assert _noticed(store) == ["job"]
    assert (yield from store.keys()) == []


@scenario("S17", needs=DURABLE)
def a_snapshot_shows_who_is_dormant(store: StoreUnderTest) -> Steps[None]:
    """By the name of the gate, since when it has no worker; the others wait."""
    yield from _park(store, "job-1", "job-2")
    yield from store.sweep(_worker(SHOP))
    yield from store.wait(store.request(id="call", lease=10_000))
    snapshot = yield from store.inspect()
    assert [(waiter.id, waiter.name) for waiter in snapshot.waiters] == [
        ("job-1", SHOP),
        ("job-2", SHOP),
        ("call", ""),
    ]
    assert snapshot.dormant == ()
    store.clock.advance(PRESENCE + 60)
    snapshot = yield from store.inspect()
    assert snapshot.waiting == 1
    assert [waiter.id for waiter in snapshot.waiters] == ["call"]
    [dormant] = snapshot.dormant
    assert (dormant.name, dormant.waiting) == (SHOP, 2)
    assert dormant.absent_for is not None
    assert 59 < dormant.absent_for < 61
    assert [waiter.id for waiter in dormant.waiters] == ["job-1", "job-2"]


@scenario("S17", "S6", needs=DURABLE)
def a_slot_that_a_killed_worker_was_handed_goes_on(store: StoreUnderTest) -> Steps[None]:
    """At the end of its claim time, to the call behind; the job is dormant, in its place."""
    jobs = yield from _park(store, "job-1", "job-2")
    call = store.request(id="call")
    yield from store.wait(call)
    yield from store.release("holder")
    assert _noticed(store) == ["job-1"]
    store.clock.advance(PRESENCE + 1)
    yield from store.take(call)
    yield from store.sweep(_worker(SHOP))
    assert (yield from store.waiters()) == ["job-1", "job-2"]
    yield from store.release("call")
    assert _noticed(store) == ["job-1"]
    yield from store.take(jobs[0])


@scenario("S17", "S9", needs=DURABLE)
def a_dormant_job_of_several_keys_holds_up_none_of_them(store: StoreUnderTest) -> Steps[None]:
    """It keeps its place on the key in whose queue it sits, and gets both when it is awake."""
    yield from store.take(store.request(Demand(KEY, 1), id="holder"))
    both = _job(store, "both", Demand(KEY, 1), Demand(OTHER_KEY, 1))
    yield from store.wait(both)
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    yield from store.take(store.request(Demand(OTHER_KEY, 1), id="other"))
    yield from store.take(store.request(Demand(KEY, 1), id="one"))
    yield from store.release("one")
    yield from store.sweep(_worker(SHOP))
    assert _noticed(store) == []
    yield from store.release("other")
    assert _noticed(store) == ["both"]
    yield from store.take(both)


@scenario("S17", "S7", needs=DURABLE)
def dormant_tickets_cost_their_group_no_turn(store: StoreUnderTest) -> Steps[None]:
    """`fair_by`: a tenant's call is not behind the rounds of its dormant jobs."""

    def of(group: str) -> Demand:
        return Demand(KEY, 1, group=group)

    yield from store.take(store.request(id="holder"))
    for number in range(5):
        yield from store.wait(_job(store, f"job-{number}", of("tenant")))
    store.clock.advance(PRESENCE + 1)
    yield from store.wait(store.request(of("tenant"), id="tenant-1"))
    yield from store.wait(store.request(of("other"), id="other-1"))
    yield from store.wait(store.request(of("other"), id="other-2"))
    yield from store.wait(store.request(of("tenant"), id="tenant-2"))
    assert (yield from store.waiters()) == ["tenant-1", "other-1", "other-2", "tenant-2"]


@scenario("S17", "S19", needs=DURABLE)
def an_evicted_job_is_told(store: StoreUnderTest) -> Steps[None]:
    """While it waits, and when it was handed a slot; then the next is served."""
    jobs = yield from _park(store, "job-1", "job-2", "job-3")
    assert (yield from store.evict_waiter("job-2", [KEY]))
    [notice] = store.notices
    assert (notice.id, notice.payload, notice.name) == ("job-2", b"job-2", SHOP)
    assert isinstance(notice.answer, Refused)
    assert notice.answer.reason is Refusal.EVICTED
    refused = yield from store.be_refused(jobs[1])
    assert refused.reason is Refusal.EVICTED
    yield from store.release("holder")
    store.notices.clear()
    assert (yield from store.evict_waiter("job-1"))
    assert _noticed(store) == ["job-1", "job-3"]
    yield from store.take(jobs[2])
    assert not (yield from store.evict_waiter("job-3")), "it runs"
    assert not (yield from store.evict_waiter("nobody"))


@scenario("S17", "S19", needs=DURABLE)
def an_evicted_dormant_job_is_told_when_a_worker_is_back(store: StoreUnderTest) -> Steps[None]:
    """Until then it is kept, since nobody could hear; but it waits no longer."""
    jobs = yield from _park(store, "job-1", "job-2", "job-3")
    store.clock.advance(PRESENCE + 1)
    assert (yield from store.evict_waiter("job-1"))
    assert (yield from store.evict_waiter("job-2"))
    assert not (yield from store.evict_waiter("job-1"))
    assert _noticed(store) == []
    [dormant] = (yield from store.inspect()).dormant
    assert [waiter.id for waiter in dormant.waiters] == ["job-3"]
    look = yield from store.be_refused(jobs[1]._replace(mode=Mode.LOOK))
    assert look.reason is Refusal.EVICTED
    store.clock.advance(600)
    yield from store.release("holder")
    yield from store.sweep(_worker(SHOP))
    assert sorted(_noticed(store)) == ["job-1", "job-2", "job-3"]
    refused = yield from store.be_refused(jobs[0])
    assert refused.reason is Refusal.EVICTED
    yield from store.take(jobs[2])
    yield from store.release("job-3")
    assert (yield from store.keys()) == []


@scenario("S19")
def an_evicted_waiter_is_told(store: StoreUnderTest) -> Steps[None]:
    """A call that waits is refused, and whoever stood behind it goes on."""
    listener = RecordingListener()
    yield from store.take(store.request(Demand(KEY, 2), id="holder"))
    wide = store.request(Demand(KEY, 2, cost=2), id="wide", listener=listener)
    yield from store.wait(wide)
    yield from store.wait(store.request(Demand(KEY, 2), id="next"))
    assert not (yield from store.evict_waiter("holder"))
    assert (yield from store.evict_waiter("wide"))
    yield from store.eventually("the call was told", lambda: listener.woken)
    refused = yield from store.be_refused(wide)
    assert refused.reason is Refusal.EVICTED
    assert (yield from store.holders()) == ["holder", "next"]


@scenario("S17", needs=DURABLE)
def a_job_that_nobody_claims_lets_others_go_first(store: StoreUnderTest) -> Steps[None]:
    """Offered in vain a few times though its worker is there: for a while it stands behind all."""
    yield from _park(store)
    orphan = _job(store, "orphan")._replace(claim=PRESENCE - 2)
    yield from store.wait(orphan)
    yield from store.release("holder")
    for _ in range(OFFERS):
        assert _noticed(store) == ["orphan"]
        yield from store.sweep(_worker(SHOP))
        store.clock.advance(orphan.claim + 0.1)
        yield from store.sweep(_worker(SHOP))
    assert _noticed(store) == ["orphan"], "nobody else is there"
    call = store.request(id="call", lease=10_000)
    yield from store.wait(call)
    mail = _job(store, "mail", name=MAIL)
    yield from store.wait(mail)
    store.clock.advance(orphan.claim + 0.1)
    yield from store.sweep(_worker(SHOP))
    yield from store.sweep(_worker(MAIL))
    assert (yield from store.holders()) == ["call"]
    assert (yield from store.waiters()) == ["mail", "orphan"]
    yield from store.wait(_job(store, "later", name=MAIL))
    assert (yield from store.waiters()) == ["mail", "later", "orphan"]
    assert [w.deferred for w in (yield from store.inspect()).waiters] == [False, False, True]
    for _ in range(int(DEFERRED / PRESENCE) + 2):
        store.clock.advance(PRESENCE - 1)
        yield from store.sweep(_worker(SHOP))
        yield from store.sweep(_worker(MAIL))
        yield from store.take(call)
    store.clock.advance(DEFERRED / 2)
    yield from store.sweep(_worker(SHOP))
    yield from store.sweep(_worker(MAIL))
    assert (yield from store.waiters()) == ["orphan", "mail", "later"]
    yield from store.release("call")
    assert _noticed(store) == ["orphan"]
    assert isinstance((yield from store.acquire(orphan)), Granted)


@scenario("S17", needs=DURABLE)
def a_job_that_nobody_can_claim_is_not_deferred(store: StoreUnderTest) -> Steps[None]:
    """While its workers are away no offer counts."""
    [orphan] = yield from _park(store, "orphan")
    for _ in range(OFFERS + 1):
        yield from store.release("holder")
        yield from store.sweep(_worker(SHOP))
        store.clock.advance(PRESENCE + 1)
        yield from store.sweep()
        yield from store.take(store.request(id="holder", lease=10_000))
        _noticed(store)
    yield from store.sweep(_worker(SHOP))
    assert isinstance((yield from store.acquire(orphan)), Queued)
    assert [w.deferred for w in (yield from store.inspect()).waiters] == [False]
