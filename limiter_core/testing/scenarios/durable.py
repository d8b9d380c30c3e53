"""S17, S18, S19: tickets of job queues, which wait with no process behind them."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import (
    Demand,
    Granted,
    Held,
    Loss,
    Mode,
    Queued,
    Refusal,
    Refused,
    Replaced,
    Request,
)
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.scenarios._jobs import DURABLE, take_notices
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest


def _park(store: StoreUnderTest, *names: str) -> Steps[list[Request]]:
    """Let jobs of these names wait for `KEY`, made in this order a second apart, long ago."""
    began = int((store.clock() - 3600) * 1_000_000)
    jobs = [
        store.request(id=name, payload=name.encode(), order=began + number * 1_000_000)
        for number, name in enumerate(names)
    ]
    for job in jobs:
        yield from store.wait(job)
    return jobs


@scenario("S17", needs=DURABLE)
def a_durable_ticket_needs_no_renewal(store: StoreUnderTest) -> Steps[None]:
    """It waits for days."""
    yield from store.take(store.request(id="holder", lease=500_000))
    [job] = yield from _park(store, "job")
    store.clock.advance(400_000)
    yield from store.sweep()
    snapshot = yield from store.inspect()
    assert [(waiter.id, waiter.durable) for waiter in snapshot.waiters] == [("job", True)]
    yield from store.release("holder")
    yield from store.take(job)


@scenario("S17", "S6", needs=DURABLE)
def a_release_names_the_job_to_wake(store: StoreUnderTest) -> Steps[None]:
    """With the payload, in that very step, and once."""
    yield from store.take(store.request(id="holder"))
    jobs = yield from _park(store, "first", "second")
    assert store.notices == []
    yield from store.release("holder")
    [notice] = store.notices
    assert (notice.id, notice.payload) == ("first", b"first")
    granted = yield from store.take(jobs[0])
    assert isinstance(notice.answer, Granted)
    assert notice.answer.fencing_token == granted.fencing_token
    yield from store.sweep()
    assert take_notices(store) == ["first"]


@scenario("S17", needs=DURABLE, rows=(20,))
def a_payload_comes_back_as_it_was_given(store: StoreUnderTest) -> Steps[None]:
    """Any bytes: none at all, NUL, not text, many."""
    payloads = [b"", b"\x00\xff\n\x80{}[]|", bytes(range(256)) * 256]
    for payload in payloads:
        yield from store.take(store.request(id="holder"))
        job = store.request(id="job", payload=payload)
        yield from store.wait(job)
        yield from store.release("holder")
        assert store.notices.pop().payload == payload
        yield from store.take(job)
        yield from store.release("job")


@scenario("S17", needs=DURABLE)
def of_other_waiters_there_is_no_notice(store: StoreUnderTest) -> Steps[None]:
    """They have a process of their own that asks."""
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="waiter"))
    yield from store.release("holder")
    assert store.notices == []


@scenario("S17", "S2", "S6", needs=DURABLE)
def an_ended_lease_wakes_a_job(store: StoreUnderTest) -> Steps[None]:
    """The process that notices the end is notified, at a sweep if at no other step."""
    yield from store.take(store.request(id="crashed", lease=10))
    yield from _park(store, "job")
    store.clock.advance(11)
    yield from store.sweep()
    assert take_notices(store) == ["job"]


@scenario("S17", needs=DURABLE)
def an_unclaimed_slot_is_offered_again(store: StoreUnderTest) -> Steps[None]:
    """The process died that was to wake the job: any other's sweep finds it, again and again."""
    yield from store.take(store.request(id="holder"))
    [job] = yield from _park(store, "job")
    yield from store.release("holder")
    assert take_notices(store) == ["job"]
    for _ in range(3):
        store.clock.advance(4)
        yield from store.sweep()
        assert take_notices(store) == []
        store.clock.advance(2)
        yield from store.sweep()
        assert take_notices(store) == ["job"]
    yield from store.take(job)


@scenario("S17", "S6", "S7", needs=DURABLE)
def a_lapsed_ticket_keeps_its_arrival_order(store: StoreUnderTest) -> Steps[None]:
    """The next is served first, but none that came after both."""
    yield from store.take(store.request(id="holder"))
    jobs = yield from _park(store, "lapsing", "next", "last")
    yield from store.release("holder")
    store.clock.advance(6)
    yield from store.sweep()
    assert take_notices(store) == ["lapsing", "next"]
    assert (yield from store.waiters()) == ["lapsing", "last"]
    yield from store.take(jobs[1])
    yield from store.release("next")
    yield from store.take(jobs[0])
    assert take_notices(store) == ["lapsing"]


@scenario("S17", "S6", needs=DURABLE)
def a_job_comes_late_but_is_not_lost(store: StoreUnderTest) -> Steps[None]:
    """It was passed over and asks only now: it waits on in its old place."""
    yield from store.take(store.request(id="holder"))
    late, _ = yield from _park(store, "late", "next")
    yield from store.release("holder")
    store.clock.advance(6)
    yield from store.wait(late)
    assert (yield from store.holders()) == ["next"]
    assert (yield from store.waiters()) == ["late"]


@scenario("S17", "S7", needs=DURABLE)
def jobs_are_served_in_the_order_they_were_made(store: StoreUnderTest) -> Steps[None]:
    """Whatever the order in which they ask."""
    yield from store.take(store.request(id="holder"))
    began = int(store.clock() * 1_000_000)
    for age in (1, 3, 2):
        order = began - age * 1_000_000
        yield from store.wait(store.request(id=f"age-{age}", payload=b"", order=order))
    yield from store.release("holder")
    for name in ("age-3", "age-2", "age-1"):
        assert take_notices(store) == [name]
        yield from store.release(name)


@scenario("S17", "KEEP_LATEST", needs=DURABLE)
def a_superseded_job_is_reported(store: StoreUnderTest) -> Steps[None]:
    """No caller asks for its ticket, so the step that ended it sends a notice."""
    yield from store.take(store.request(id="holder"))
    yield from _park(store, "old")
    latest = Demand(KEY, 1, 1, ConflictResolution.KEEP_LATEST)
    yield from store.wait(store.request(latest, id="new", payload=b"new"))
    [notice] = store.notices
    assert (notice.id, notice.payload, notice.answer) == ("old", b"old", Replaced(KEY))


@scenario("S17", "S9", "CANCEL", needs=DURABLE)
def a_job_refused_at_the_hand_off_is_reported(store: StoreUnderTest) -> Steps[None]:
    """One of its keys says CANCEL and is full when its turn comes."""
    yield from store.take(store.request(Demand(KEY, 1), id="holder"))
    cancelling = Demand(OTHER_KEY, 1, 1, ConflictResolution.CANCEL)
    yield from store.wait(store.request(Demand(KEY, 1), cancelling, id="job", payload=b"job"))
    yield from store.take(store.request(Demand(OTHER_KEY, 1)))
    yield from store.release("holder")
    [notice] = store.notices
    assert isinstance(notice.answer, Refused)
    assert (notice.id, notice.answer.key) == ("job", OTHER_KEY)


@scenario("S18", needs=DURABLE)
def a_second_delivery_is_told_that_the_job_runs(store: StoreUnderTest) -> Steps[None]:
    """It takes nothing, and the first one's lease is as it was."""
    job = store.request(Demand(KEY, 2), id="job", payload=b"job", claimant="worker-1")
    granted = yield from store.take(job)
    store.clock.advance(20)
    held = yield from store.acquire(job._replace(claimant="worker-2"))
    assert isinstance(held, Held)
    assert held.expires_in is not None
    assert 9 < held.expires_in <= 10
    assert (yield from store.inspect()).in_use == 1
    again = yield from store.take(job)
    assert again.fencing_token == granted.fencing_token


@scenario("S18", "S2", needs=DURABLE)
def a_second_delivery_takes_over_an_ended_lease(store: StoreUnderTest) -> Steps[None]:
    """The first worker crashed; the job runs anew, under a new token."""
    job = store.request(id="job", payload=b"job", claimant="worker-1")
    first = yield from store.take(job)
    store.clock.advance(31)
    second = yield from store.take(job._replace(claimant="worker-2"))
    assert second.fencing_token > first.fencing_token


@scenario("S18", "S17", "S6", needs=DURABLE)
def whichever_delivery_comes_first_takes_the_slot_up(store: StoreUnderTest) -> Steps[None]:
    """A slot that was handed over has no claimant yet; later the other delivery gets `Held`."""
    yield from store.take(store.request(id="holder"))
    job = store.request(id="job", payload=b"job", claimant="asked-first")
    yield from store.wait(job)
    yield from store.release("holder")
    yield from store.take(job._replace(claimant="came-first"))
    assert isinstance((yield from store.acquire(job)), Held)


@scenario("S19", "S17", needs=DURABLE)
def a_cancelled_job_is_dropped_by_its_id_alone(store: StoreUnderTest) -> Steps[None]:
    """While it waits, and when it was handed its slot but did not come: the next is woken."""
    yield from store.take(store.request(id="holder"))
    yield from _park(store, "waiting", "handed", "next")
    assert (yield from store.release("waiting")) is True
    yield from store.release("holder")
    assert take_notices(store) == ["handed"]
    assert (yield from store.release("handed")) is True
    assert take_notices(store) == ["next"]
    store.clock.advance(100)
    yield from store.release("next")
    assert (yield from store.keys()) == []


@scenario("S17", "S3", needs=DURABLE)
def a_durable_try_leaves_no_ticket(store: StoreUnderTest) -> Steps[None]:
    """A payload makes a ticket durable, it does not make one."""
    yield from store.take(store.request(id="holder"))
    yield from store.be_refused(store.request(payload=b"job", mode=Mode.TRY))
    yield from store.release("holder")
    assert store.notices == []
    assert (yield from store.keys()) == []


@scenario("S17", "S6", needs=DURABLE)
def a_job_evicted_before_it_came_is_not_lost(store: StoreUnderTest) -> Steps[None]:
    """The next is served, and the job is offered a slot again in its turn."""
    yield from store.take(store.request(id="holder"))
    jobs = yield from _park(store, "first", "second")
    yield from store.release("holder")
    assert take_notices(store) == ["first"]
    yield from store.evict("first")
    assert take_notices(store) == ["second"]
    yield from store.take(jobs[1])
    yield from store.release("second")
    assert take_notices(store) == ["first"]
    yield from store.take(jobs[0])


@scenario("S17", "S18", needs=DURABLE)
def a_look_tells_where_a_job_stands_and_changes_nothing(store: StoreUnderTest) -> Steps[None]:
    """The process that parked a job looks again, and takes no slot from the woken delivery."""
    yield from store.take(store.request(id="holder"))
    [job] = yield from _park(store, "job")
    look = job._replace(mode=Mode.LOOK)
    assert isinstance((yield from store.acquire(look)), Queued)
    yield from store.release("holder")
    store.clock.advance(2)
    handed = yield from store.acquire(look)
    assert isinstance(handed, Granted)
    assert handed.expires_in is not None
    assert 2.5 < handed.expires_in <= 3.1, "what is left of the claim time"
    granted = yield from store.take(job._replace(claimant="worker"))
    assert granted.fencing_token == handed.fencing_token
    assert isinstance((yield from store.acquire(look._replace(claimant="worker"))), Held)
    yield from store.release("job")
    answer = yield from store.acquire(look)
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.UNKNOWN
    assert (yield from store.keys()) == []


@scenario("S17", "S1", needs=DURABLE)
def a_look_tells_how_a_job_ended(store: StoreUnderTest) -> Steps[None]:
    """Superseded, or unknown."""
    yield from store.take(store.request(id="holder"))
    [job] = yield from _park(store, "job")
    newest = store.request(
        Demand(KEY, 1, on_conflict=ConflictResolution.KEEP_LATEST), id="newest", payload=b"newest"
    )
    yield from store.wait(newest)
    assert isinstance((yield from store.acquire(job._replace(mode=Mode.LOOK))), Replaced)
    stranger = store.request(id="stranger", payload=b"", mode=Mode.LOOK)
    assert (yield from store.be_refused(stranger)).reason is Refusal.UNKNOWN


@scenario("S17", "S1", needs=DURABLE)
def a_job_hears_from_when_it_asks_with_a_listener(store: StoreUnderTest) -> Steps[None]:
    """It waits without a process; once granted, it asks again, and has a listener."""
    yield from store.take(store.request(id="holder"))
    [job] = yield from _park(store, "job")
    yield from store.release("holder")
    granted = yield from store.take(job)
    listener = RecordingListener()
    again = yield from store.take(job._replace(listener=listener))
    assert again.fencing_token == granted.fencing_token
    assert (yield from store.evict("job"))
    yield from store.eventually("the holder was notified", lambda: listener.losses)
    assert listener.losses == [Loss.EVICTED]


@scenario("S17", needs=DURABLE)
def a_job_that_waits_has_nobody_behind_it(store: StoreUnderTest) -> Steps[None]:
    """A listener gets nothing more until another delivery is granted."""
    yield from store.take(store.request(id="holder"))
    listener = RecordingListener()
    yield from store.wait(store.request(id="job", payload=b"job", listener=listener))
    yield from store.release("holder")
    assert take_notices(store) == ["job"]
    store.clock.advance(6)
    yield from store.sweep()
    assert take_notices(store) == ["job"], "not claimed by itself: it is offered again"
    yield from store.take(store.request(id="job", payload=b"job", listener=listener))
    assert not listener.woken
    yield from store.evict("job")
    yield from store.eventually("the holder was notified", lambda: listener.losses)


@scenario("S15", "S19", needs=DURABLE)
def a_withdrawal_takes_nothing_from_a_job_that_runs(store: StoreUnderTest) -> Steps[None]:
    """A ticket is removed, and a slot that was handed to it; a claimed lease stays."""
    yield from store.take(store.request(id="holder", payload=b"holder"))
    assert not (yield from store.withdraw("holder"))
    jobs = yield from _park(store, "first", "second", "third")
    assert (yield from store.withdraw("first", [KEY]))
    assert (yield from store.waiters()) == ["second", "third"]
    yield from store.release("holder")
    assert take_notices(store) == ["second"]
    assert (yield from store.withdraw("second"))
    assert take_notices(store) == ["third"], "its slot goes to the next"
    yield from store.take(jobs[2])
    assert not (yield from store.withdraw("third", [KEY]))
    assert (yield from store.holders()) == ["third"]
    yield from store.release("third")
    assert not (yield from store.withdraw("third"))
    assert (yield from store.keys()) == []
