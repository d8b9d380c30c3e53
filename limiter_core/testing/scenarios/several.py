"""S9: several keys in one request. All or none, and nothing held while waiting."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Mode, Refused, Request
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, THIRD_KEY, Stage, Steps

A, B, C = Demand(KEY, 1), Demand(OTHER_KEY, 1), Demand(THIRD_KEY, 1)
CANCEL = ConflictResolution.CANCEL


@scenario("S9")
def all_or_none(stage: Stage) -> Steps[None]:
    """The last of three is full: nothing is taken of the others."""
    yield from stage.take(stage.request(C))
    refused = yield from stage.be_refused(stage.request(A, B, C, mode=Mode.TRY))
    assert refused.key == THIRD_KEY
    assert (yield from stage.keys()) == [THIRD_KEY]
    yield from stage.take(stage.request(A, B))


@scenario("S9")
def each_key_has_its_own_cost_and_limit(stage: Stage) -> Steps[None]:
    """And the grant takes the right number of each."""
    yield from stage.take(stage.request(Demand(KEY, 10, 4), Demand(OTHER_KEY, 2, 1)))
    assert (yield from stage.inspect(KEY)).in_use == 4
    assert (yield from stage.inspect(OTHER_KEY)).in_use == 1


@scenario("S9")
def who_waits_holds_nothing(stage: Stage) -> Steps[None]:
    """Only one key is full; the other stays free for others."""
    yield from stage.take(stage.request(B, id="holder"))
    queued = yield from stage.wait(stage.request(A, B, id="both"))
    assert queued.key == OTHER_KEY
    assert (yield from stage.inspect(KEY)).in_use == 0
    yield from stage.take(stage.request(A, mode=Mode.TRY))


@scenario("S9", "S6")
def all_keys_are_granted_when_the_last_comes_free(stage: Stage) -> Steps[None]:
    """In the step that freed it."""
    yield from stage.take(stage.request(B, id="holder"))
    both = stage.request(A, B, id="both")
    yield from stage.wait(both)
    yield from stage.release("holder")
    yield from stage.be_refused(stage.request(A, mode=Mode.TRY))
    yield from stage.be_refused(stage.request(B, mode=Mode.TRY))
    yield from stage.take(both)


@scenario("S9")
def a_waiter_moves_to_the_key_that_blocks_it(stage: Stage) -> Steps[None]:
    """What it waited for came free, but another key is full by now. Its arrival order stays."""
    yield from stage.take(stage.request(B, id="holder-b"))
    both = stage.request(A, B, id="both")
    first = yield from stage.wait(both)
    yield from stage.take(stage.request(A, id="holder-a"))
    yield from stage.release("holder-b")
    moved = yield from stage.wait(both)
    assert (moved.key, moved.order) == (KEY, first.order)
    yield from stage.take(stage.request(B, id="other-b", mode=Mode.TRY))
    yield from stage.release("other-b")
    yield from stage.release("holder-a")
    yield from stage.take(both)


@scenario("S9", "S7")
def a_waiter_that_moves_keeps_its_arrival_order(stage: Stage) -> Steps[None]:
    """On the new key it stands ahead of those who came later."""
    yield from stage.take(stage.request(B, id="holder-b"))
    both = stage.request(A, B, id="both")
    yield from stage.wait(both)
    yield from stage.take(stage.request(A, id="holder-a"))
    yield from stage.wait(stage.request(A, id="later"))
    yield from stage.release("holder-b")
    assert (yield from stage.waiters(KEY)) == ["both", "later"]
    yield from stage.release("holder-a")
    yield from stage.take(both)


@scenario("S9", "S6")
def who_stood_behind_one_that_moves_is_served(stage: Stage) -> Steps[None]:
    """Nobody waits while a slot is free."""
    yield from stage.take(stage.request(B, id="holder-b"))
    yield from stage.wait(stage.request(A, B, id="both"))
    behind = stage.request(B, id="behind")
    yield from stage.wait(behind)
    yield from stage.take(stage.request(A, id="holder-a"))
    yield from stage.release("holder-b")
    yield from stage.take(behind)
    assert (yield from stage.waiters(KEY)) == ["both"]


@scenario("S9", "S6")
def a_release_serves_all_its_keys(stage: Stage) -> Steps[None]:
    """One on each."""
    yield from stage.take(stage.request(A, B, C, id="all"))
    waiters = [stage.request(demand) for demand in (A, B, C)]
    for waiter in waiters:
        yield from stage.wait(waiter)
    yield from stage.release("all")
    for waiter in waiters:
        yield from stage.take(waiter)


@scenario("S9", "S2", "S6")
def an_ended_lease_frees_all_its_keys(stage: Stage) -> Steps[None]:
    """Noticed on one of them, it is over on the others."""
    yield from stage.take(stage.request(A, B, id="crashed", lease=10))
    waiter = stage.request(B, id="waiter", lease=60)
    yield from stage.wait(waiter)
    stage.clock.advance(11)
    yield from stage.take(stage.request(A, mode=Mode.TRY))
    yield from stage.take(waiter)


@scenario("S9", "S15")
def a_waiter_for_several_keys_leaves_all_of_them(stage: Stage) -> Steps[None]:
    """Nothing of it is left on any."""
    yield from stage.take(stage.request(A, B, id="holder"))
    yield from stage.wait(stage.request(A, B, C, id="all"))
    yield from stage.release("all")
    yield from stage.release("holder")
    assert (yield from stage.keys()) == []


@scenario("S9", "S15")
def a_crossed_grant_of_several_keys_is_given_back(stage: Stage) -> Steps[None]:
    """The next is served on each."""
    yield from stage.take(stage.request(A, B, id="holder"))
    yield from stage.wait(stage.request(A, B, id="impatient"))
    yield from stage.release("holder")
    yield from stage.release("impatient")
    yield from stage.take(stage.request(A, mode=Mode.TRY))
    yield from stage.take(stage.request(B, mode=Mode.TRY))


@scenario("S9", "CANCEL")
def a_full_key_that_says_cancel_refuses_the_whole(stage: Stage) -> Steps[None]:
    """Though the other blocking key would let it wait."""
    yield from stage.take(stage.request(A, B))
    cancelling = Demand(OTHER_KEY, 1, 1, CANCEL)
    refused = yield from stage.be_refused(stage.request(A, cancelling))
    assert (refused.key, refused.max_concurrent, refused.in_use) == (OTHER_KEY, 1, 1)
    assert (yield from stage.inspect(KEY)).waiting == 0


@scenario("S9", "S1", "CANCEL")
def a_key_that_says_cancel_refuses_at_a_later_hand_off(stage: Stage) -> Steps[None]:
    """It was free when the call came to wait for another, and is full when its turn comes."""
    yield from stage.take(stage.request(A, id="holder-a"))
    listener = RecordingListener()
    both = stage.request(A, Demand(OTHER_KEY, 1, 1, CANCEL), id="both", listener=listener)
    yield from stage.wait(both)
    yield from stage.take(stage.request(B, id="holder-b"))
    behind = stage.request(A, id="behind")
    yield from stage.wait(behind)
    yield from stage.release("holder-a")
    yield from stage.eventually("the refused waiter was told", lambda: listener.woken)
    for _ in range(2):
        answer = yield from stage.acquire(both)
        assert isinstance(answer, Refused)
        assert answer.key == OTHER_KEY
    yield from stage.take(behind)


@scenario("S9", "CANCEL")
def a_key_that_says_cancel_does_not_refuse_while_it_is_free(stage: Stage) -> Steps[None]:
    """The call waits for the other, and gets both."""
    yield from stage.take(stage.request(A, id="holder"))
    both = stage.request(A, Demand(OTHER_KEY, 1, 1, CANCEL), id="both")
    yield from stage.wait(both)
    yield from stage.release("holder")
    yield from stage.take(both)


@scenario("S9", "KEEP_LATEST")
def superseding_reaches_those_who_sit_on_another_key(stage: Stage) -> Steps[None]:
    """Every call that waits on the key is superseded, wherever it sits."""
    yield from stage.take(stage.request(A, B, id="holder"))
    both = stage.request(A, B, id="both")
    assert (yield from stage.wait(both)).key == KEY
    latest = stage.request(Demand(OTHER_KEY, 1, 1, ConflictResolution.KEEP_LATEST), id="latest")
    yield from stage.wait(latest)
    answer = yield from stage.acquire(both)
    assert type(answer).__name__ == "Replaced", answer
    assert (yield from stage.waiters(KEY)) == []
    assert (yield from stage.waiters(OTHER_KEY)) == ["latest"]


@scenario("S9", "S6", "KEEP_LATEST")
def who_stood_behind_a_superseded_waiter_is_served(stage: Stage) -> Steps[None]:
    """It sat on another key than the one on which it was superseded."""
    yield from stage.take(stage.request(Demand(KEY, 2), B, id="holder"))
    yield from stage.wait(stage.request(Demand(KEY, 2, 2), B, id="wide"))
    behind = stage.request(Demand(KEY, 2), id="behind")
    yield from stage.wait(behind)
    latest = Demand(OTHER_KEY, 1, 1, ConflictResolution.KEEP_LATEST)
    yield from stage.wait(stage.request(latest, id="latest"))
    yield from stage.take(behind)


@scenario("S9", "S6", "CANCEL_RUNNING")
def what_else_a_superseded_grant_held_is_handed_on(stage: Stage) -> Steps[None]:
    """A slot of two keys was not taken up yet, and a newcomer on one of them wins."""
    yield from stage.take(stage.request(A, B, id="holder"))
    yield from stage.wait(stage.request(A, B, id="handed"))
    waiter = stage.request(A, id="waiter")
    yield from stage.wait(waiter)
    yield from stage.release("holder")
    wins = Demand(OTHER_KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from stage.take(stage.request(wins, id="newcomer"))
    yield from stage.take(waiter)


def _offered_before_another_waits(stage: Stage) -> Steps[Request]:
    """Offer a job one slot of each of two keys; a newer call waits for the second of them.

    When both come free it has to move to the first, of which it wants two slots, and there is the
    latest.
    """
    yield from stage.take(stage.request(Demand(KEY, 2), id="long", lease=10_000))
    yield from stage.take(stage.request(B, id="holder"))
    job = stage.request(Demand(KEY, 2), B, id="job", payload=b"job")
    yield from stage.wait(job)
    yield from stage.release("holder")
    latest = Demand(KEY, 2, 2, ConflictResolution.KEEP_LATEST)
    yield from stage.wait(stage.request(B, latest, id="latest", lease=10_000))
    assert [notice.id for notice in stage.notices] == ["job"]
    stage.notices.clear()
    return job


def _the_job_is_offered_them_again(stage: Stage, job: Request) -> Steps[None]:
    told = [(notice.id, type(notice.answer)) for notice in stage.notices]
    assert told == [("job", Granted)], "its waiting has one end"
    snapshot = yield from stage.inspect()
    assert [holder.id for holder in snapshot.holders] == ["long", "job"]
    assert snapshot.waiting == len(snapshot.waiters) == 1
    yield from stage.take(job)
    for name in ("job", "long"):
        yield from stage.release(name)
    assert (yield from stage.holders()) == ["latest"]
    yield from stage.release("latest")
    assert (yield from stage.keys()) == []


@scenario("S9", "S17", "KEEP_LATEST", needs=("durable",))
def a_job_that_did_not_come_is_not_superseded_before_it_waits_again(stage: Stage) -> Steps[None]:
    """Those who waited are served first, and one of them moves to a key of the job."""
    job = yield from _offered_before_another_waits(stage)
    stage.clock.advance(job.claim + 0.1)
    yield from stage.sweep()
    yield from _the_job_is_offered_them_again(stage, job)


@scenario("S9", "S17", "KEEP_LATEST", needs=("durable",))
def a_job_evicted_before_it_came_is_not_superseded_before_it_waits_again(
    stage: Stage,
) -> Steps[None]:
    """The same, at the word of an operator."""
    job = yield from _offered_before_another_waits(stage)
    assert (yield from stage.evict("job"))
    yield from _the_job_is_offered_them_again(stage, job)


@scenario("S9", needs=("spans_scopes",))
def keys_of_different_scopes_are_taken_together(stage: Stage) -> Steps[None]:
    """For stores that can."""
    here, there, nowhere = Demand("here/a", 1), Demand("there/b", 1), Demand("c", 1)
    yield from stage.take(stage.request(there, id="holder"))
    every = stage.request(here, there, nowhere, id="all")
    yield from stage.wait(every)
    yield from stage.release("holder")
    yield from stage.take(every)
    assert (yield from stage.keys()) == ["c", "here/a", "there/b"]
