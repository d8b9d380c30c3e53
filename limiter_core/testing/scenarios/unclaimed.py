"""Scenarios of jobs that are evicted, or offered slots that no worker claims (S17, S19)."""

from __future__ import annotations

from limiter_core.requests import (
    PRESENCE,
    Demand,
    Granted,
    Mode,
    Queued,
    Refusal,
    Refused,
)
from limiter_core.store import DEFERRED, OFFERS
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
from limiter_core.testing.store_under_test import KEY, Steps, StoreUnderTest


@scenario("S17", "S19", needs=DURABLE)
def an_evicted_job_is_told(store: StoreUnderTest) -> Steps[None]:
    """While it waits, and when it was handed a slot; then the next is served."""
    jobs = yield from park(store, "job-1", "job-2", "job-3")
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
    assert take_notices(store) == ["job-1", "job-3"]
    yield from store.take(jobs[2])
    assert not (yield from store.evict_waiter("job-3")), "it runs"
    assert not (yield from store.evict_waiter("nobody"))


@scenario("S17", "S19", needs=DURABLE)
def an_evicted_dormant_job_is_told_when_a_worker_is_back(store: StoreUnderTest) -> Steps[None]:
    """Until then it is kept, since no worker can be notified; but it waits no longer."""
    jobs = yield from park(store, "job-1", "job-2", "job-3")
    store.clock.advance(PRESENCE + 1)
    assert (yield from store.evict_waiter("job-1"))
    assert (yield from store.evict_waiter("job-2"))
    assert not (yield from store.evict_waiter("job-1"))
    assert take_notices(store) == []
    [dormant] = (yield from store.inspect()).dormant
    assert [waiter.id for waiter in dormant.waiters] == ["job-3"]
    look = yield from store.be_refused(jobs[1]._replace(mode=Mode.LOOK))
    assert look.reason is Refusal.EVICTED
    store.clock.advance(600)
    yield from store.release("holder")
    yield from store.sweep(worker_of(SHOP))
    assert sorted(take_notices(store)) == ["job-1", "job-2", "job-3"]
    refused = yield from store.be_refused(jobs[0])
    assert refused.reason is Refusal.EVICTED
    yield from store.take(jobs[2])
    yield from store.release("job-3")
    assert (yield from store.keys()) == []


@scenario("S19")
def an_evicted_waiter_is_told(store: StoreUnderTest) -> Steps[None]:
    """A waiting call is refused, and the next one behind it is served."""
    listener = RecordingListener()
    yield from store.take(store.request(Demand(KEY, 2), id="holder"))
    wide = store.request(Demand(KEY, 2, cost=2), id="wide", listener=listener)
    yield from store.wait(wide)
    yield from store.wait(store.request(Demand(KEY, 2), id="next"))
    assert not (yield from store.evict_waiter("holder"))
    assert (yield from store.evict_waiter("wide"))
    yield from store.eventually("the call was notified", lambda: listener.woken)
    refused = yield from store.be_refused(wide)
    assert refused.reason is Refusal.EVICTED
    assert (yield from store.holders()) == ["holder", "next"]


@scenario("S17", needs=DURABLE)
def a_job_that_nobody_claims_lets_others_go_first(store: StoreUnderTest) -> Steps[None]:
    """Offered some times and not claimed, with its worker present: it is behind all for a while."""
    yield from park(store)
    orphan = job_of(store, "orphan")._replace(claim=PRESENCE - 2)
    yield from store.wait(orphan)
    yield from store.release("holder")
    for _ in range(OFFERS):
        assert take_notices(store) == ["orphan"]
        yield from store.sweep(worker_of(SHOP))
        store.clock.advance(orphan.claim + 0.1)
        yield from store.sweep(worker_of(SHOP))
    assert take_notices(store) == ["orphan"], "no other job is there"
    call = store.request(id="call", lease=10_000)
    yield from store.wait(call)
    mail = job_of(store, "mail", name=MAIL)
    yield from store.wait(mail)
    store.clock.advance(orphan.claim + 0.1)
    yield from store.sweep(worker_of(SHOP))
    yield from store.sweep(worker_of(MAIL))
    assert (yield from store.holders()) == ["call"]
    assert (yield from store.waiters()) == ["mail", "orphan"]
    yield from store.wait(job_of(store, "later", name=MAIL))
    assert (yield from store.waiters()) == ["mail", "later", "orphan"]
    assert [w.deferred for w in (yield from store.inspect()).waiters] == [False, False, True]
    for _ in range(int(DEFERRED / PRESENCE) + 2):
        store.clock.advance(PRESENCE - 1)
        yield from store.sweep(worker_of(SHOP))
        yield from store.sweep(worker_of(MAIL))
        yield from store.take(call)
    store.clock.advance(DEFERRED / 2)
    yield from store.sweep(worker_of(SHOP))
    yield from store.sweep(worker_of(MAIL))
    assert (yield from store.waiters()) == ["orphan", "mail", "later"]
    yield from store.release("call")
    assert take_notices(store) == ["orphan"]
    assert isinstance((yield from store.acquire(orphan)), Granted)


@scenario("S17", needs=DURABLE)
def a_job_that_nobody_can_claim_is_not_deferred(store: StoreUnderTest) -> Steps[None]:
    """While its workers are away no offer counts."""
    [orphan] = yield from park(store, "orphan")
    for _ in range(OFFERS + 1):
        yield from store.release("holder")
        yield from store.sweep(worker_of(SHOP))
        store.clock.advance(PRESENCE + 1)
        yield from store.sweep()
        yield from store.take(store.request(id="holder", lease=10_000))
        take_notices(store)
    yield from store.sweep(worker_of(SHOP))
    assert isinstance((yield from store.acquire(orphan)), Queued)
    assert [w.deferred for w in (yield from store.inspect()).waiters] == [False]
