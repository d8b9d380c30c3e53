"""S17: tickets of job queues are served while a worker can wake their jobs, and dormant else."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import (
    PRESENCE,
    Demand,
    Mode,
    Refusal,
    Replaced,
)
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.scenarios._jobs import (
    DURABLE,
    MAIL,
    SHOP,
    job_of,
    park,
    take_notices,
    worker_of,
)
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest


@scenario("S17", "S6", needs=DURABLE)
def jobs_without_a_worker_starve_nobody(store: StoreUnderTest) -> Steps[None]:
    """The slot goes to the call behind them, not from one job to the next that cannot be woken."""
    yield from park(store, "job-1", "job-2", "job-3")
    store.clock.advance(PRESENCE + 1)
    yield from store.wait(store.request(id="call"))
    yield from store.release("holder")
    assert take_notices(store) == []
    assert (yield from store.holders()) == ["call"]


@scenario("S17", "S3", needs=DURABLE)
def a_dormant_ticket_stands_before_nobody(store: StoreUnderTest) -> Steps[None]:
    """Neither before a newcomer nor, under another priority, before one with a lower."""
    yield from store.take(store.request(id="holder"))
    high = Demand(KEY, 1, 1, ConflictResolution.PRIORITY, 9)
    yield from store.wait(job_of(store, "job", high))
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    yield from store.take(store.request(mode=Mode.TRY))


@scenario("S17", "S7", needs=DURABLE)
def jobs_are_served_in_their_order_when_a_worker_is_back(store: StoreUnderTest) -> Steps[None]:
    """After an hour, at its first sweep; calls that came meanwhile are behind them."""
    jobs = yield from park(store, "job-1", "job-2")
    store.clock.advance(3600)
    yield from store.wait(store.request(id="call", lease=10_000))
    yield from store.sweep(worker_of(SHOP, "worker-2"))
    assert (yield from store.waiters()) == ["job-1", "job-2", "call"]
    yield from store.release("holder")
    assert take_notices(store) == ["job-1"]
    yield from store.take(jobs[0])
    yield from store.release("job-1")
    assert take_notices(store) == ["job-2"]
    yield from store.take(jobs[1])
    yield from store.release("job-2")
    assert (yield from store.holders()) == ["call"]


@scenario("S17", "S6", needs=DURABLE)
def a_worker_that_is_back_finds_the_free_slot(store: StoreUnderTest) -> Steps[None]:
    """Its sweep serves, also where nothing ended and no call asks."""
    jobs = yield from park(store, "job-1", "job-2")
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    assert take_notices(store) == []
    yield from store.sweep()
    assert take_notices(store) == [], "a sweep reports only its own worker"
    yield from store.sweep(worker_of(MAIL))
    assert take_notices(store) == []
    yield from store.sweep(worker_of(SHOP))
    assert take_notices(store) == ["job-1"]
    yield from store.take(jobs[0])


@scenario("S17", needs=DURABLE)
def a_worker_that_asks_is_there(store: StoreUnderTest) -> Steps[None]:
    """Its jobs of before are served with it."""
    yield from park(store, "job-1")
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    assert take_notices(store) == []
    yield from store.wait(job_of(store, "job-2"))
    assert take_notices(store) == ["job-1"]


@scenario("S17", needs=DURABLE)
def sweeps_keep_jobs_awake(store: StoreUnderTest) -> Steps[None]:
    """For as long as one of the workers of their name sweeps."""
    yield from park(store, "job")
    for _ in range(5):
        store.clock.advance(PRESENCE - 1)
        yield from store.sweep(worker_of(SHOP, "worker-2"))
    yield from store.release("holder")
    assert take_notices(store) == ["job"]


@scenario("S17", "S6", "S8", needs=DURABLE)
def a_worker_that_leaves_frees_those_behind_at_once(store: StoreUnderTest) -> Steps[None]:
    """A wide job held up a call: it is served in the step in which the last worker leaves."""
    listener = RecordingListener()
    yield from store.take(store.request(Demand(KEY, 2), id="holder"))
    yield from store.wait(job_of(store, "wide", Demand(KEY, 2, cost=2)))
    yield from store.wait(store.request(Demand(KEY, 2), id="call", listener=listener))
    yield from store.sweep(worker_of(SHOP, leaving=True))
    yield from store.eventually("the call was served", lambda: listener.woken)
    assert take_notices(store) == []
    assert (yield from store.holders()) == ["holder", "call"]


@scenario("S17", "S6", "S8", needs=DURABLE)
def a_call_looks_when_the_last_worker_may_be_gone(store: StoreUnderTest) -> Steps[None]:
    """No worker sweeps any more: the call behind knows when to look, and is served then."""
    yield from store.take(store.request(Demand(KEY, 2), id="holder", lease=10_000))
    yield from store.wait(job_of(store, "wide", Demand(KEY, 2, cost=2)))
    call = store.request(Demand(KEY, 2), id="call")
    yield from store.wait(call)
    store.clock.advance(PRESENCE + 0.1)
    yield from store.take(call)


@scenario("S17", needs=DURABLE)
def a_worker_that_leaves_takes_nothing_from_others_of_its_name(
    store: StoreUnderTest,
) -> Steps[None]:
    """A rolling restart: another worker of the name is there, so its jobs are served as ever."""
    yield from park(store, "job-1", "job-2")
    yield from store.sweep(worker_of(SHOP, "worker-2"))
    yield from store.sweep(worker_of(SHOP, "worker-1", leaving=True))
    yield from store.release("holder")
    assert take_notices(store) == ["job-1"]
    yield from store.release("job-1")
    assert take_notices(store) == ["job-2"]
    yield from store.release("job-2")


@scenario("S17", needs=DURABLE)
def a_worker_that_left_and_asks_once_more_is_not_back(store: StoreUnderTest) -> Steps[None]:
    """A worker that shuts down brings in what it had fetched before."""
    yield from store.take(store.request(id="holder"))
    job = job_of(store, "job")
    yield from store.wait(job._replace(presence=worker_of(SHOP, leaving=True)))
    yield from store.release("holder")
    assert take_notices(store) == []
    snapshot = yield from store.inspect()
    assert (snapshot.in_use, snapshot.waiting) == (0, 0)


@scenario("S17", needs=DURABLE)
def jobs_of_one_queue_do_not_wait_for_the_worker_of_another(store: StoreUnderTest) -> Steps[None]:
    """Each name is present, or not, by itself; the jobs of a gate without a name always are."""
    yield from park(store, "shop", name=SHOP)
    yield from store.wait(job_of(store, "mail", name=MAIL))
    store.clock.advance(PRESENCE + 1)
    yield from store.sweep(worker_of(MAIL))
    yield from store.release("holder")
    assert take_notices(store) == ["mail"]
    yield from store.release("mail")
    assert take_notices(store) == []
    yield from store.take(store.request(id="anybody", payload=b""))


@scenario("S17", "S13", needs=DURABLE)
def dormant_tickets_do_not_count_for_max_waiting(store: StoreUnderTest) -> Steps[None]:
    """One may wait, however many are dormant."""
    yield from park(store, "job-1", "job-2")
    one = Demand(KEY, 1, max_waiting=1)
    refused = yield from store.be_refused(store.request(one))
    assert refused.reason is Refusal.QUEUE_FULL
    store.clock.advance(PRESENCE + 1)
    yield from store.wait(store.request(one))
    refused = yield from store.be_refused(store.request(one))
    assert refused.reason is Refusal.QUEUE_FULL


@scenario("S17", "KEEP_LATEST", needs=DURABLE)
def a_dormant_ticket_can_be_superseded(store: StoreUnderTest) -> Steps[None]:
    """Its job is not to run any more when a worker is back, however late: it is notified then."""
    jobs = yield from park(store, "job-1", "job-2")
    store.clock.advance(PRESENCE + 1)
    latest = store.request(Demand(KEY, 1, 1, ConflictResolution.KEEP_LATEST), id="latest")
    yield from store.wait(latest)
    assert take_notices(store) == [], "no worker can be notified"
    assert (yield from store.inspect()).dormant == ()
    assert (yield from store.acquire(jobs[1]._replace(mode=Mode.LOOK))) == Replaced(KEY)
    yield from store.release("holder")
    yield from store.take(latest)
    yield from store.release("latest")
    store.clock.advance(3600)
    yield from store.sweep(worker_of(SHOP))
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
    job = job_of(store, "job", Demand(OTHER_KEY, 1), Demand(KEY, 1))
    yield from store.wait(job._replace(claim=1000.0))
    yield from store.release("holder")
    assert take_notices(store) == ["job"]
    store.clock.advance(PRESENCE + 1)
    latest = Demand(KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from store.acquire(store.request(latest, id="latest"))
    assert (yield from store.holders()) == ["latest"]
    assert (yield from store.holders(OTHER_KEY)) == []
    yield from store.release("latest")
    assert take_notices(store) == []
    store.clock.advance(3600)
    yield from store.sweep(worker_of(SHOP))
    assert take_notices(store) == ["job"]
    assert (yield from store.acquire(job)) == Replaced(KEY)
    assert (yield from store.keys()) == []


@scenario("S17", "CANCEL_RUNNING", needs=DURABLE)
def a_dormant_ticket_makes_way_for_the_latest(store: StoreUnderTest) -> Steps[None]:
    """As any that waits."""
    yield from park(store, "job")
    store.clock.advance(PRESENCE + 1)
    latest = Demand(KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from store.wait(store.request(latest, id="latest"))
    yield from store.release("holder")
    yield from store.release("latest")
    assert take_notices(store) == []
    yield from store.sweep(worker_of(SHOP))
    assert take_notices(store) == ["job"]
    assert (yield from store.keys()) == []


@scenario("S17", needs=DURABLE)
def a_snapshot_shows_which_tickets_are_dormant(store: StoreUnderTest) -> Steps[None]:
    """By the name of the gate, since when it has no worker; the others wait."""
    yield from park(store, "job-1", "job-2")
    yield from store.sweep(worker_of(SHOP))
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
    jobs = yield from park(store, "job-1", "job-2")
    call = store.request(id="call")
    yield from store.wait(call)
    yield from store.release("holder")
    assert take_notices(store) == ["job-1"]
    store.clock.advance(PRESENCE + 1)
    yield from store.take(call)
    yield from store.sweep(worker_of(SHOP))
    assert (yield from store.waiters()) == ["job-1", "job-2"]
    yield from store.release("call")
    assert take_notices(store) == ["job-1"]
    yield from store.take(jobs[0])


@scenario("S17", "S9", needs=DURABLE)
def a_dormant_job_of_several_keys_holds_up_none_of_them(store: StoreUnderTest) -> Steps[None]:
    """It keeps its place on the key in whose queue it sits, and gets both when it is awake."""
    yield from store.take(store.request(Demand(KEY, 1), id="holder"))
    both = job_of(store, "both", Demand(KEY, 1), Demand(OTHER_KEY, 1))
    yield from store.wait(both)
    store.clock.advance(PRESENCE + 1)
    yield from store.release("holder")
    yield from store.take(store.request(Demand(OTHER_KEY, 1), id="other"))
    yield from store.take(store.request(Demand(KEY, 1), id="one"))
    yield from store.release("one")
    yield from store.sweep(worker_of(SHOP))
    assert take_notices(store) == []
    yield from store.release("other")
    assert take_notices(store) == ["both"]
    yield from store.take(both)


@scenario("S17", "S7", needs=DURABLE)
def dormant_tickets_cost_their_group_no_turn(store: StoreUnderTest) -> Steps[None]:
    """`fair_by`: a tenant's call is not behind the rounds of its dormant jobs."""

    def of(group: str) -> Demand:
        return Demand(KEY, 1, group=group)

    yield from store.take(store.request(id="holder"))
    for number in range(5):
        yield from store.wait(job_of(store, f"job-{number}", of("tenant")))
    store.clock.advance(PRESENCE + 1)
    yield from store.wait(store.request(of("tenant"), id="tenant-1"))
    yield from store.wait(store.request(of("other"), id="other-1"))
    yield from store.wait(store.request(of("other"), id="other-2"))
    yield from store.wait(store.request(of("tenant"), id="tenant-2"))
    assert (yield from store.waiters()) == ["tenant-1", "other-1", "other-2", "tenant-2"]
