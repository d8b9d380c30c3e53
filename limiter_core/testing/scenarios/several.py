"""S9: several keys in one request. All or none, and nothing held while waiting."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Mode, Refusal, Refused, Request
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, THIRD_KEY, Steps, StoreUnderTest

A, B, C = Demand(KEY, 1), Demand(OTHER_KEY, 1), Demand(THIRD_KEY, 1)
CANCEL = ConflictResolution.CANCEL


@scenario("S9")
def all_or_none(store: StoreUnderTest) -> Steps[None]:
    """The last of three is full: nothing is taken of the others."""
    yield from store.take(store.request(C))
    refused = yield from store.be_refused(store.request(A, B, C, mode=Mode.TRY))
    assert refused.key == THIRD_KEY
    assert refused.blocked_by in ((), (THIRD_KEY,))
    assert (yield from store.keys()) == [THIRD_KEY]
    yield from store.take(store.request(A, B))


@scenario("S9")
def a_refusal_names_all_keys_that_block(store: StoreUnderTest) -> Steps[None]:
    """In the order of the demands: a full one, and one whose waiter has precedence."""
    yield from store.take(store.request(Demand(KEY, 2)))
    yield from store.take(store.request(C))
    yield from store.wait(store.request(Demand(KEY, 2, 2)))
    one = Demand(KEY, 2)
    refused = yield from store.be_refused(store.request(C, B, one, mode=Mode.TRY))
    assert (refused.key, refused.blocked_by) == (THIRD_KEY, (THIRD_KEY, KEY))
    queued = yield from store.wait(store.request(C, B, one, id="waiter"))
    assert queued.blocked_by == (THIRD_KEY, KEY)
    yield from store.release("waiter")
    cancelling = Demand(KEY, 2, 1, CANCEL)
    refused = yield from store.be_refused(store.request(C, B, cancelling))
    assert (refused.key, refused.blocked_by) == (KEY, (THIRD_KEY, KEY))
    bounded = Demand(THIRD_KEY, 1, max_waiting=0)
    refused = yield from store.be_refused(store.request(bounded, one))
    assert refused.reason is Refusal.QUEUE_FULL
    assert (refused.key, refused.blocked_by) == (THIRD_KEY, (THIRD_KEY, KEY))


@scenario("S9")
def each_key_has_its_own_cost_and_limit(store: StoreUnderTest) -> Steps[None]:
    """And the grant takes the right number of each."""
    yield from store.take(store.request(Demand(KEY, 10, 4), Demand(OTHER_KEY, 2, 1)))
    assert (yield from store.inspect(KEY)).in_use == 4
    assert (yield from store.inspect(OTHER_KEY)).in_use == 1


@scenario("S9")
def a_waiter_holds_nothing(store: StoreUnderTest) -> Steps[None]:
    """Only one key is full; the other stays free for others."""
    yield from store.take(store.request(B, id="holder"))
    queued = yield from store.wait(store.request(A, B, id="both"))
    assert queued.key == OTHER_KEY
    assert (yield from store.inspect(KEY)).in_use == 0
    yield from store.take(store.request(A, mode=Mode.TRY))


@scenario("S9", "S6")
def all_keys_are_granted_when_the_last_comes_free(store: StoreUnderTest) -> Steps[None]:
    """In the step that freed it."""
    yield from store.take(store.request(B, id="holder"))
    both = store.request(A, B, id="both")
    yield from store.wait(both)
    yield from store.release("holder")
    yield from store.be_refused(store.request(A, mode=Mode.TRY))
    yield from store.be_refused(store.request(B, mode=Mode.TRY))
    yield from store.take(both)


@scenario("S9")
def a_waiter_moves_to_the_key_that_blocks_it(store: StoreUnderTest) -> Steps[None]:
    """The slot that it waited for is free, but another key is full now. Its order stays."""
    yield from store.take(store.request(B, id="holder-b"))
    both = store.request(A, B, id="both")
    first = yield from store.wait(both)
    yield from store.take(store.request(A, id="holder-a"))
    yield from store.release("holder-b")
    moved = yield from store.wait(both)
    assert (moved.key, moved.order) == (KEY, first.order)
    yield from store.take(store.request(B, id="other-b", mode=Mode.TRY))
    yield from store.release("other-b")
    yield from store.release("holder-a")
    yield from store.take(both)


@scenario("S9", "S7")
def a_waiter_that_moves_keeps_its_arrival_order(store: StoreUnderTest) -> Steps[None]:
    """On the new key it is ahead of later calls."""
    yield from store.take(store.request(B, id="holder-b"))
    both = store.request(A, B, id="both")
    yield from store.wait(both)
    yield from store.take(store.request(A, id="holder-a"))
    yield from store.wait(store.request(A, id="later"))
    yield from store.release("holder-b")
    assert (yield from store.waiters(KEY)) == ["both", "later"]
    yield from store.release("holder-a")
    yield from store.take(both)


@scenario("S9", "S6")
def a_waiter_behind_one_that_moves_is_served(store: StoreUnderTest) -> Steps[None]:
    """Nobody waits while a slot is free."""
    yield from store.take(store.request(B, id="holder-b"))
    yield from store.wait(store.request(A, B, id="both"))
    behind = store.request(B, id="behind")
    yield from store.wait(behind)
    yield from store.take(store.request(A, id="holder-a"))
    yield from store.release("holder-b")
    yield from store.take(behind)
    assert (yield from store.waiters(KEY)) == ["both"]


@scenario("S9", "S6")
def a_release_serves_all_its_keys(store: StoreUnderTest) -> Steps[None]:
    """One on each."""
    yield from store.take(store.request(A, B, C, id="all"))
    waiters = [store.request(demand) for demand in (A, B, C)]
    for waiter in waiters:
        yield from store.wait(waiter)
    yield from store.release("all")
    for waiter in waiters:
        yield from store.take(waiter)


@scenario("S9", "S2", "S6")
def an_ended_lease_frees_all_its_keys(store: StoreUnderTest) -> Steps[None]:
    """Noticed on one of them, it is over on the others."""
    yield from store.take(store.request(A, B, id="crashed", lease=10))
    waiter = store.request(B, id="waiter", lease=60)
    yield from store.wait(waiter)
    store.clock.advance(11)
    yield from store.take(store.request(A, mode=Mode.TRY))
    yield from store.take(waiter)


@scenario("S9", "S15")
def a_waiter_for_several_keys_leaves_all_of_them(store: StoreUnderTest) -> Steps[None]:
    """Nothing of it is left on any."""
    yield from store.take(store.request(A, B, id="holder"))
    yield from store.wait(store.request(A, B, C, id="all"))
    yield from store.release("all")
    yield from store.release("holder")
    assert (yield from store.keys()) == []


@scenario("S9", "S15")
def a_crossed_grant_of_several_keys_is_given_back(store: StoreUnderTest) -> Steps[None]:
    """The next is served on each."""
    yield from store.take(store.request(A, B, id="holder"))
    yield from store.wait(store.request(A, B, id="impatient"))
    yield from store.release("holder")
    yield from store.release("impatient")
    yield from store.take(store.request(A, mode=Mode.TRY))
    yield from store.take(store.request(B, mode=Mode.TRY))


@scenario("S9", "CANCEL")
def a_full_key_that_says_cancel_refuses_the_whole(store: StoreUnderTest) -> Steps[None]:
    """Though the other blocking key would let it wait."""
    yield from store.take(store.request(A, B))
    cancelling = Demand(OTHER_KEY, 1, 1, CANCEL)
    refused = yield from store.be_refused(store.request(A, cancelling))
    assert (refused.key, refused.max_concurrent, refused.in_use) == (OTHER_KEY, 1, 1)
    assert (yield from store.inspect(KEY)).waiting == 0


@scenario("S9", "S1", "CANCEL")
def a_key_that_says_cancel_refuses_at_a_later_hand_off(store: StoreUnderTest) -> Steps[None]:
    """It was free when the call came to wait for another, and is full when its turn comes."""
    yield from store.take(store.request(A, id="holder-a"))
    listener = RecordingListener()
    both = store.request(A, Demand(OTHER_KEY, 1, 1, CANCEL), id="both", listener=listener)
    yield from store.wait(both)
    yield from store.take(store.request(B, id="holder-b"))
    behind = store.request(A, id="behind")
    yield from store.wait(behind)
    yield from store.release("holder-a")
    yield from store.eventually("the refused waiter was notified", lambda: listener.woken)
    for _ in range(2):
        answer = yield from store.acquire(both)
        assert isinstance(answer, Refused)
        assert answer.key == OTHER_KEY
    yield from store.take(behind)


@scenario("S9", "CANCEL")
def a_key_that_says_cancel_does_not_refuse_while_it_is_free(store: StoreUnderTest) -> Steps[None]:
    """The call waits for the other, and gets both."""
    yield from store.take(store.request(A, id="holder"))
    both = store.request(A, Demand(OTHER_KEY, 1, 1, CANCEL), id="both")
    yield from store.wait(both)
    yield from store.release("holder")
    yield from store.take(both)


@scenario("S9", "KEEP_LATEST")
def superseding_reaches_those_who_sit_on_another_key(store: StoreUnderTest) -> Steps[None]:
    """Every call that waits on the key is superseded, wherever it sits."""
    yield from store.take(store.request(A, B, id="holder"))
    both = store.request(A, B, id="both")
    assert (yield from store.wait(both)).key == KEY
    latest = store.request(Demand(OTHER_KEY, 1, 1, ConflictResolution.KEEP_LATEST), id="latest")
    yield from store.wait(latest)
    answer = yield from store.acquire(both)
    assert type(answer).__name__ == "Replaced", answer
    assert (yield from store.waiters(KEY)) == []
    assert (yield from store.waiters(OTHER_KEY)) == ["latest"]


@scenario("S9", "S6", "KEEP_LATEST")
def a_waiter_behind_a_superseded_one_is_served(store: StoreUnderTest) -> Steps[None]:
    """It sat on another key than the one on which it was superseded."""
    yield from store.take(store.request(Demand(KEY, 2), B, id="holder"))
    yield from store.wait(store.request(Demand(KEY, 2, 2), B, id="wide"))
    behind = store.request(Demand(KEY, 2), id="behind")
    yield from store.wait(behind)
    latest = Demand(OTHER_KEY, 1, 1, ConflictResolution.KEEP_LATEST)
    yield from store.wait(store.request(latest, id="latest"))
    yield from store.take(behind)


@scenario("S9", "S6", "CANCEL_RUNNING")
def what_else_a_superseded_grant_held_is_handed_on(store: StoreUnderTest) -> Steps[None]:
    """A slot of two keys was not claimed yet, and a new call on one of them wins."""
    yield from store.take(store.request(A, B, id="holder"))
    yield from store.wait(store.request(A, B, id="handed"))
    waiter = store.request(A, id="waiter")
    yield from store.wait(waiter)
    yield from store.release("holder")
    wins = Demand(OTHER_KEY, 1, 1, ConflictResolution.CANCEL_RUNNING)
    yield from store.take(store.request(wins, id="newcomer"))
    yield from store.take(waiter)


def _offered_before_another_waits(store: StoreUnderTest) -> Steps[Request]:
    """Offer a job one slot of each of two keys; a newer call waits for the second of them.

    When both come free it has to move to the first, of which it wants two slots, and there is the
    latest.
    """
    yield from store.take(store.request(Demand(KEY, 2), id="long", lease=10_000))
    yield from store.take(store.request(B, id="holder"))
    job = store.request(Demand(KEY, 2), B, id="job", payload=b"job")
    yield from store.wait(job)
    yield from store.release("holder")
    latest = Demand(KEY, 2, 2, ConflictResolution.KEEP_LATEST)
    yield from store.wait(store.request(B, latest, id="latest", lease=10_000))
    assert [notice.id for notice in store.notices] == ["job"]
    store.notices.clear()
    return job


def _the_job_is_offered_them_again(store: StoreUnderTest, job: Request) -> Steps[None]:
    notifications = [(notice.id, type(notice.answer)) for notice in store.notices]
    assert notifications == [("job", Granted)], "its waiting has one end"
    snapshot = yield from store.inspect()
    assert [holder.id for holder in snapshot.holders] == ["long", "job"]
    assert snapshot.waiting == len(snapshot.waiters) == 1
    yield from store.take(job)
    for name in ("job", "long"):
        yield from store.release(name)
    assert (yield from store.holders()) == ["latest"]
    yield from store.release("latest")
    assert (yield from store.keys()) == []


@scenario("S9", "S17", "KEEP_LATEST", needs=("durable",))
def a_job_that_did_not_come_is_not_superseded_before_it_waits_again(
    store: StoreUnderTest,
) -> Steps[None]:
    """The waiters are served first, and one of them moves to a key of the job."""
    job = yield from _offered_before_another_waits(store)
    store.clock.advance(job.claim + 0.1)
    yield from store.sweep()
    yield from _the_job_is_offered_them_again(store, job)


@scenario("S9", "S17", "KEEP_LATEST", needs=("durable",))
def a_job_evicted_before_it_came_is_not_superseded_before_it_waits_again(
    store: StoreUnderTest,
) -> Steps[None]:
    """The same, at the word of an operator."""
    job = yield from _offered_before_another_waits(store)
    assert (yield from store.evict("job"))
    yield from _the_job_is_offered_them_again(store, job)


@scenario("S9", needs=("spans_scopes",))
def keys_of_different_scopes_are_taken_together(store: StoreUnderTest) -> Steps[None]:
    """For stores that can."""
    here, there, nowhere = Demand("here/a", 1), Demand("there/b", 1), Demand("c", 1)
    yield from store.take(store.request(there, id="holder"))
    every = store.request(here, there, nowhere, id="all")
    yield from store.wait(every)
    yield from store.release("holder")
    yield from store.take(every)
    assert (yield from store.keys()) == ["c", "here/a", "there/b"]
