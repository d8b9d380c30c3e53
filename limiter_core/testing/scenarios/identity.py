"""S1, S5, S19: who is who. Repeating is safe; releasing touches nothing but what it names."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Replaced
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Stage, Steps

TWO = Demand(KEY, 2)


@scenario("S1", rows=(27,))
def repeating_a_grant_takes_one_slot(stage: Stage) -> Steps[None]:
    """A reply was lost, the request is sent again: the same answer, and one slot."""
    request = stage.request(TWO, id="lost-reply")
    first = yield from stage.take(request)
    again = yield from stage.take(request)
    assert again == first
    assert (yield from stage.inspect()).in_use == 1
    yield from stage.take(stage.request(TWO))


@scenario("S1")
def repeating_a_grant_later_is_as_good_as_a_renewal(stage: Stage) -> Steps[None]:
    """The answer is the same, so the time it promises is the lease's, from now."""
    request = stage.request(id="holder")
    first = yield from stage.take(request)
    stage.clock.advance(20)
    again = yield from stage.take(request)
    assert again.fencing_token == first.fencing_token
    stage.clock.advance(20)
    yield from stage.be_refused(stage.request(Demand(KEY, 1, 1, ConflictResolution.CANCEL)))
    assert (yield from stage.holders()) == ["holder"]


@scenario("S1", "S4")
def repeating_a_wait_keeps_one_ticket(stage: Stage) -> Steps[None]:
    """A waiter that asks again keeps its place and its arrival order."""
    yield from stage.take(stage.request(id="holder"))
    request = stage.request(id="waiter")
    first = yield from stage.wait(request)
    yield from stage.wait(stage.request(id="later"))
    again = yield from stage.wait(request._replace(order=first.order))
    assert (again.key, again.order) == (first.key, first.order)
    assert (yield from stage.waiters()) == ["waiter", "later"]


@scenario("S1", "S6")
def taking_up_a_slot_twice_is_taking_it_up_once(stage: Stage) -> Steps[None]:
    """The claim of a slot that was handed over may be repeated, too."""
    yield from stage.take(stage.request(TWO, id="holder"))
    yield from stage.take(stage.request(TWO, id="other"))
    request = stage.request(TWO, id="waiter")
    yield from stage.wait(request)
    yield from stage.release("holder")
    first = yield from stage.take(request)
    again = yield from stage.take(request)
    assert again.fencing_token == first.fencing_token
    assert sorted((yield from stage.holders())) == ["other", "waiter"]


@scenario("S1", "KEEP_LATEST")
def a_superseded_waiter_is_told_so_every_time(stage: Stage) -> Steps[None]:
    """It does not get a new ticket by asking again."""
    latest = Demand(KEY, 1, 1, ConflictResolution.KEEP_LATEST)
    yield from stage.take(stage.request(latest))
    old = stage.request(latest, id="old")
    queued = yield from stage.wait(old)
    yield from stage.wait(stage.request(latest, id="new"))
    for _ in range(2):
        answer = yield from stage.acquire(old._replace(order=queued.order))
        assert answer == Replaced(KEY)
    assert (yield from stage.waiters()) == ["new"]


@scenario("S5", rows=(13,))
def releasing_an_unknown_id_changes_nothing(stage: Stage) -> Steps[None]:
    """It is told that there was nothing."""
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="waiter"))
    assert (yield from stage.release("nobody", (KEY,))) is False
    assert (yield from stage.release("nobody")) is False
    assert (yield from stage.holders()) == ["holder"]
    assert (yield from stage.waiters()) == ["waiter"]


@scenario("S5", rows=(5, 13))
def releasing_twice_frees_one_slot(stage: Stage) -> Steps[None]:
    """The second release is a no-op, though the slot has a new holder by then."""
    yield from stage.take(stage.request(id="first"))
    assert (yield from stage.release("first", (KEY,))) is True
    yield from stage.take(stage.request(id="second"))
    assert (yield from stage.release("first", (KEY,))) is False
    assert (yield from stage.holders()) == ["second"]
    yield from stage.be_refused(stage.request(Demand(KEY, 1, 1, ConflictResolution.CANCEL)))


@scenario("S5", rows=(7, 13))
def a_stale_release_does_not_free_anothers_slot(stage: Stage) -> Steps[None]:
    """A holder that overslept its lease releases when another has the slot."""
    yield from stage.take(stage.request(id="overslept", lease=10))
    stage.clock.advance(11)
    yield from stage.take(stage.request(id="successor"))
    assert (yield from stage.release("overslept", (KEY,))) is False
    assert (yield from stage.holders()) == ["successor"]
    assert (yield from stage.inspect()).in_use == 1


@scenario("S5", "S2")
def releasing_an_ended_lease_finds_nothing(stage: Stage) -> Steps[None]:
    """Nobody else came, the lease is over all the same."""
    yield from stage.take(stage.request(id="overslept", lease=10))
    stage.clock.advance(11)
    assert (yield from stage.release("overslept", (KEY,))) is False


@scenario("S5", rows=(5,))
def a_release_frees_exactly_what_it_held(stage: Stage) -> Steps[None]:
    """The cost that was taken, on every key it was taken of."""
    yield from stage.take(stage.request(Demand(KEY, 5, 3), Demand(OTHER_KEY, 5, 2), id="wide"))
    yield from stage.take(stage.request(Demand(KEY, 5, 2), Demand(OTHER_KEY, 5, 1), id="narrow"))
    assert (yield from stage.inspect(KEY)).in_use == 5
    assert (yield from stage.inspect(OTHER_KEY)).in_use == 3
    yield from stage.release("wide", (KEY, OTHER_KEY))
    assert (yield from stage.inspect(KEY)).in_use == 2
    assert (yield from stage.inspect(OTHER_KEY)).in_use == 1


@scenario("S19")
def a_lease_is_dropped_by_its_id_alone(stage: Stage) -> Steps[None]:
    """The job was cancelled, and nobody knows its keys any more."""
    yield from stage.take(stage.request(Demand(KEY, 1), Demand(OTHER_KEY, 1), id="job"))
    assert (yield from stage.release("job")) is True
    assert (yield from stage.keys()) == []


@scenario("S19", "S15")
def a_ticket_is_dropped_by_its_id_alone(stage: Stage) -> Steps[None]:
    """It is out of the queue, and the next moves up."""
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="cancelled"))
    next_one = stage.request(id="next")
    yield from stage.wait(next_one)
    assert (yield from stage.release("cancelled")) is True
    assert (yield from stage.waiters()) == ["next"]
    yield from stage.release("holder")
    yield from stage.take(next_one)


@scenario("S1", "S5")
def keys_know_nothing_of_each_other(stage: Stage) -> Steps[None]:
    """A full key is no obstacle on another, nor is its release a gift."""
    yield from stage.take(stage.request(Demand(KEY, 1), id="a"))
    yield from stage.take(stage.request(Demand(OTHER_KEY, 1), id="b"))
    waiter = stage.request(Demand(KEY, 1), id="waiter")
    yield from stage.wait(waiter)
    yield from stage.release("b")
    yield from stage.wait(waiter)
    yield from stage.release("a")
    answer = yield from stage.acquire(waiter)
    assert isinstance(answer, Granted)
