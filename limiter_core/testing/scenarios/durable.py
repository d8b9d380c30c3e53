"""S17, S18, S19: tickets of job queues, which wait with no process behind them."""

from __future__ import annotations

from collections.abc import Sequence

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
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Stage, Steps

DURABLE = ("durable",)


def _park(stage: Stage, *names: str) -> Steps[list[Request]]:
    """Let jobs of these names wait for `KEY`, made in this order a second apart, long ago."""
    began = int((stage.clock() - 3600) * 1_000_000)
    jobs = [
        stage.request(id=name, payload=name.encode(), order=began + number * 1_000_000)
        for number, name in enumerate(names)
    ]
    for job in jobs:
        yield from stage.wait(job)
    return jobs


def _noticed(stage: Stage) -> Sequence[str]:
    """Return the ids that were notified since the last time."""
    ids = [notice.id for notice in stage.notices]
    stage.notices.clear()
    return ids


@scenario("S17", needs=DURABLE)
def a_durable_ticket_needs_no_renewal(stage: Stage) -> Steps[None]:
    """It waits for days."""
    yield from stage.take(stage.request(id="holder", lease=500_000))
    [job] = yield from _park(stage, "job")
    stage.clock.advance(400_000)
    yield from stage.sweep()
    snapshot = yield from stage.inspect()
    assert [(waiter.id, waiter.durable) for waiter in snapshot.waiters] == [("job", True)]
    yield from stage.release("holder")
    yield from stage.take(job)


@scenario("S17", "S6", needs=DURABLE)
def who_frees_the_slot_is_told_whom_to_wake(stage: Stage) -> Steps[None]:
    """With the payload, in that very step, and once."""
    yield from stage.take(stage.request(id="holder"))
    jobs = yield from _park(stage, "first", "second")
    assert stage.notices == []
    yield from stage.release("holder")
    [notice] = stage.notices
    assert (notice.id, notice.payload) == ("first", b"first")
    granted = yield from stage.take(jobs[0])
    assert isinstance(notice.answer, Granted)
    assert notice.answer.fencing_token == granted.fencing_token
    yield from stage.sweep()
    assert _noticed(stage) == ["first"]


@scenario("S17", needs=DURABLE, rows=(20,))
def a_payload_comes_back_as_it_was_given(stage: Stage) -> Steps[None]:
    """Any bytes: none at all, NUL, not text, many."""
    payloads = [b"", b"\x00\xff\n\x80{}[]|", bytes(range(256)) * 256]
    for payload in payloads:
        yield from stage.take(stage.request(id="holder"))
        job = stage.request(id="job", payload=payload)
        yield from stage.wait(job)
        yield from stage.release("holder")
        assert stage.notices.pop().payload == payload
        yield from stage.take(job)
        yield from stage.release("job")


@scenario("S17", needs=DURABLE)
def of_other_waiters_there_is_no_notice(stage: Stage) -> Steps[None]:
    """They have a process of their own that asks."""
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="waiter"))
    yield from stage.release("holder")
    assert stage.notices == []


@scenario("S17", "S2", "S6", needs=DURABLE)
def an_ended_lease_wakes_a_job(stage: Stage) -> Steps[None]:
    """The process that notices the end is told, by a sweep if by nothing else."""
    yield from stage.take(stage.request(id="crashed", lease=10))
    yield from _park(stage, "job")
    stage.clock.advance(11)
    yield from stage.sweep()
    assert _noticed(stage) == ["job"]


@scenario("S17", needs=DURABLE)
def an_unclaimed_slot_is_offered_again(stage: Stage) -> Steps[None]:
    """The process died that was to wake the job: any other's sweep finds it, again and again."""
    yield from stage.take(stage.request(id="holder"))
    [job] = yield from _park(stage, "job")
    yield from stage.release("holder")
    assert _noticed(stage) == ["job"]
    for _ in range(3):
        stage.clock.advance(4)
        yield from stage.sweep()
        assert _noticed(stage) == []
        stage.clock.advance(2)
        yield from stage.sweep()
        assert _noticed(stage) == ["job"]
    yield from stage.take(job)


@scenario("S17", "S6", "S7", needs=DURABLE)
def a_lapsed_ticket_keeps_its_arrival_order(stage: Stage) -> Steps[None]:
    """The next is served first, but none that came after both."""
    yield from stage.take(stage.request(id="holder"))
    jobs = yield from _park(stage, "lapsing", "next", "last")
    yield from stage.release("holder")
    stage.clock.advance(6)
    yield from stage.sweep()
    assert _noticed(stage) == ["lapsing", "next"]
    assert (yield from stage.waiters()) == ["lapsing", "last"]
    yield from stage.take(jobs[1])
    yield from stage.release("next")
    yield from stage.take(jobs[0])
    assert _noticed(stage) == ["lapsing"]


@scenario("S17", "S6", needs=DURABLE)
def a_job_comes_late_but_is_not_lost(stage: Stage) -> Steps[None]:
    """It was passed over and asks only now: it waits on in its old place."""
    yield from stage.take(stage.request(id="holder"))
    late, _ = yield from _park(stage, "late", "next")
    yield from stage.release("holder")
    stage.clock.advance(6)
    yield from stage.wait(late)
    assert (yield from stage.holders()) == ["next"]
    assert (yield from stage.waiters()) == ["late"]


@scenario("S17", "S7", needs=DURABLE)
def jobs_are_served_in_the_order_they_were_made(stage: Stage) -> Steps[None]:
    """Whatever the order in which they ask."""
    yield from stage.take(stage.request(id="holder"))
    began = int(stage.clock() * 1_000_000)
    for age in (1, 3, 2):
        order = began - age * 1_000_000
        yield from stage.wait(stage.request(id=f"age-{age}", payload=b"", order=order))
    yield from stage.release("holder")
    for name in ("age-3", "age-2", "age-1"):
        assert _noticed(stage) == [name]
        yield from stage.release(name)


@scenario("S17", "KEEP_LATEST", needs=DURABLE)
def a_superseded_job_is_reported(stage: Stage) -> Steps[None]:
    """Nobody stands behind its ticket to ask, so the step that ended it says so."""
    yield from stage.take(stage.request(id="holder"))
    yield from _park(stage, "old")
    latest = Demand(KEY, 1, 1, ConflictResolution.KEEP_LATEST)
    yield from stage.wait(stage.request(latest, id="new", payload=b"new"))
    [notice] = stage.notices
    assert (notice.id, notice.payload, notice.answer) == ("old", b"old", Replaced(KEY))


@scenario("S17", "S9", "CANCEL", needs=DURABLE)
def a_job_refused_at_the_hand_off_is_reported(stage: Stage) -> Steps[None]:
    """One of its keys says CANCEL and is full when its turn comes."""
    yield from stage.take(stage.request(Demand(KEY, 1), id="holder"))
    cancelling = Demand(OTHER_KEY, 1, 1, ConflictResolution.CANCEL)
    yield from stage.wait(stage.request(Demand(KEY, 1), cancelling, id="job", payload=b"job"))
    yield from stage.take(stage.request(Demand(OTHER_KEY, 1)))
    yield from stage.release("holder")
    [notice] = stage.notices
    assert isinstance(notice.answer, Refused)
    assert (notice.id, notice.answer.key) == ("job", OTHER_KEY)


@scenario("S18", needs=DURABLE)
def a_second_delivery_is_told_that_the_job_runs(stage: Stage) -> Steps[None]:
    """It takes nothing, and the first one's lease is as it was."""
    job = stage.request(Demand(KEY, 2), id="job", payload=b"job", claimant="worker-1")
    granted = yield from stage.take(job)
    stage.clock.advance(20)
    held = yield from stage.acquire(job._replace(claimant="worker-2"))
    assert isinstance(held, Held)
    assert held.expires_in is not None
    assert 9 < held.expires_in <= 10
    assert (yield from stage.inspect()).in_use == 1
    again = yield from stage.take(job)
    assert again.fencing_token == granted.fencing_token


@scenario("S18", "S2", needs=DURABLE)
def a_second_delivery_takes_over_an_ended_lease(stage: Stage) -> Steps[None]:
    """The first worker crashed; the job runs anew, under a new token."""
    job = stage.request(id="job", payload=b"job", claimant="worker-1")
    first = yield from stage.take(job)
    stage.clock.advance(31)
    second = yield from stage.take(job._replace(claimant="worker-2"))
    assert second.fencing_token > first.fencing_token


@scenario("S18", "S17", "S6", needs=DURABLE)
def whichever_delivery_comes_first_takes_the_slot_up(stage: Stage) -> Steps[None]:
    """A slot handed over to the ticket is nobody's yet; then the other is told that it is held."""
    yield from stage.take(stage.request(id="holder"))
    job = stage.request(id="job", payload=b"job", claimant="asked-first")
    yield from stage.wait(job)
    yield from stage.release("holder")
    yield from stage.take(job._replace(claimant="came-first"))
    assert isinstance((yield from stage.acquire(job)), Held)


@scenario("S19", "S17", needs=DURABLE)
def a_cancelled_job_is_dropped_by_its_id_alone(stage: Stage) -> Steps[None]:
    """While it waits, and when it was handed its slot but did not come: the next is woken."""
    yield from stage.take(stage.request(id="holder"))
    yield from _park(stage, "waiting", "handed", "next")
    assert (yield from stage.release("waiting")) is True
    yield from stage.release("holder")
    assert _noticed(stage) == ["handed"]
    assert (yield from stage.release("handed")) is True
    assert _noticed(stage) == ["next"]
    stage.clock.advance(100)
    yield from stage.release("next")
    assert (yield from stage.keys()) == []


@scenario("S17", "S3", needs=DURABLE)
def a_durable_try_leaves_no_ticket(stage: Stage) -> Steps[None]:
    """A payload makes a ticket durable, it does not make one."""
    yield from stage.take(stage.request(id="holder"))
    yield from stage.be_refused(stage.request(payload=b"job", mode=Mode.TRY))
    yield from stage.release("holder")
    assert stage.notices == []
    assert (yield from stage.keys()) == []


@scenario("S17", "S6", needs=DURABLE)
def a_job_evicted_before_it_came_is_not_lost(stage: Stage) -> Steps[None]:
    """The next is served, and the job is offered a slot again in its turn."""
    yield from stage.take(stage.request(id="holder"))
    jobs = yield from _park(stage, "first", "second")
    yield from stage.release("holder")
    assert _noticed(stage) == ["first"]
    yield from stage.evict("first")
    assert _noticed(stage) == ["second"]
    yield from stage.take(jobs[1])
    yield from stage.release("second")
    assert _noticed(stage) == ["first"]
    yield from stage.take(jobs[0])


@scenario("S17", "S18", needs=DURABLE)
def a_look_tells_where_a_job_stands_and_changes_nothing(stage: Stage) -> Steps[None]:
    """Whoever parked a job asks once more, without taking its slot from the one who is woken."""
    yield from stage.take(stage.request(id="holder"))
    [job] = yield from _park(stage, "job")
    look = job._replace(mode=Mode.LOOK)
    assert isinstance((yield from stage.acquire(look)), Queued)
    yield from stage.release("holder")
    stage.clock.advance(2)
    handed = yield from stage.acquire(look)
    assert isinstance(handed, Granted)
    assert handed.expires_in is not None
    assert 2.5 < handed.expires_in <= 3.1, "what is left of the claim time"
    granted = yield from stage.take(job._replace(claimant="worker"))
    assert granted.fencing_token == handed.fencing_token
    assert isinstance((yield from stage.acquire(look._replace(claimant="worker"))), Held)
    yield from stage.release("job")
    answer = yield from stage.acquire(look)
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.UNKNOWN
    assert (yield from stage.keys()) == []


@scenario("S17", "S1", needs=DURABLE)
def a_look_tells_how_a_job_ended(stage: Stage) -> Steps[None]:
    """Superseded, or never heard of."""
    yield from stage.take(stage.request(id="holder"))
    [job] = yield from _park(stage, "job")
    newest = stage.request(
        Demand(KEY, 1, on_conflict=ConflictResolution.KEEP_LATEST), id="newest", payload=b"newest"
    )
    yield from stage.wait(newest)
    assert isinstance((yield from stage.acquire(job._replace(mode=Mode.LOOK))), Replaced)
    stranger = stage.request(id="stranger", payload=b"", mode=Mode.LOOK)
    assert (yield from stage.be_refused(stranger)).reason is Refusal.UNKNOWN


@scenario("S17", "S1", needs=DURABLE)
def a_job_hears_from_when_it_asks_with_a_listener(stage: Stage) -> Steps[None]:
    """It waits with nobody behind it; once granted, it asks again, and somebody is."""
    yield from stage.take(stage.request(id="holder"))
    [job] = yield from _park(stage, "job")
    yield from stage.release("holder")
    granted = yield from stage.take(job)
    listener = RecordingListener()
    again = yield from stage.take(job._replace(listener=listener))
    assert again.fencing_token == granted.fencing_token
    assert (yield from stage.evict("job"))
    yield from stage.eventually("the holder was told", lambda: listener.losses)
    assert listener.losses == [Loss.EVICTED]


@scenario("S17", needs=DURABLE)
def a_job_that_waits_has_nobody_behind_it(stage: Stage) -> Steps[None]:
    """Whoever asked with a listener hears nothing more until another delivery is granted."""
    yield from stage.take(stage.request(id="holder"))
    listener = RecordingListener()
    yield from stage.wait(stage.request(id="job", payload=b"job", listener=listener))
    yield from stage.release("holder")
    assert _noticed(stage) == ["job"]
    stage.clock.advance(6)
    yield from stage.sweep()
    assert _noticed(stage) == ["job"], "not taken up by itself: it is offered again"
    yield from stage.take(stage.request(id="job", payload=b"job", listener=listener))
    assert not listener.woken
    yield from stage.evict("job")
    yield from stage.eventually("the holder was told", lambda: listener.losses)


@scenario("S15", "S19", needs=DURABLE)
def a_withdrawal_takes_nothing_from_who_runs(stage: Stage) -> Steps[None]:
    """A ticket goes, and a slot that it was handed; a lease that was taken up stays."""
    yield from stage.take(stage.request(id="holder", payload=b"holder"))
    assert not (yield from stage.withdraw("holder"))
    jobs = yield from _park(stage, "first", "second", "third")
    assert (yield from stage.withdraw("first", [KEY]))
    assert (yield from stage.waiters()) == ["second", "third"]
    yield from stage.release("holder")
    assert _noticed(stage) == ["second"]
    assert (yield from stage.withdraw("second"))
    assert _noticed(stage) == ["third"], "what it was handed goes on to the next"
    yield from stage.take(jobs[2])
    assert not (yield from stage.withdraw("third", [KEY]))
    assert (yield from stage.holders()) == ["third"]
    yield from stage.release("third")
    assert not (yield from stage.withdraw("third"))
    assert (yield from stage.keys()) == []
