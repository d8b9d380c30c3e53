"""S12: what an operator does. Overrides, pauses, evictions; each takes effect in its own step."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Loss, Mode, Refusal
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Stage, Steps

CANCEL = ConflictResolution.CANCEL


def _queue(stage: Stage, count: int, limit: int = 1) -> Steps[None]:
    for number in range(count):
        yield from stage.wait(stage.request(Demand(KEY, limit), id=f"waiter-{number}"))


@scenario("S12", "S6", rows=(36,))
def a_raised_limit_wakes_as_many_as_now_fit(stage: Stage) -> Steps[None]:
    """Not one more, not one less; and without another step."""
    yield from stage.take(stage.request(id="holder"))
    yield from _queue(stage, 5)
    yield from stage.set_limit(3)
    assert (yield from stage.holders()) == ["holder", "waiter-0", "waiter-1"]
    assert (yield from stage.waiters()) == ["waiter-2", "waiter-3", "waiter-4"]


@scenario("S12", "S6", rows=(36,))
def a_limit_raised_to_less_than_is_in_use_wakes_nobody(stage: Stage) -> Steps[None]:
    """What counts is the room there is, not the difference between old and new.

    In anyio a limit that was raised while more than it were in use woke too many:
    https://github.com/agronholm/anyio/pull/1223.
    """
    holders = [f"holder-{number}" for number in range(4)]
    for name in holders:
        yield from stage.take(stage.request(Demand(KEY, 4), id=name))
    yield from stage.set_limit(1)
    yield from _queue(stage, 4, limit=4)
    yield from stage.set_limit(3)
    assert (yield from stage.holders()) == holders
    yield from stage.set_limit(4)
    assert (yield from stage.holders()) == holders
    yield from stage.set_limit(5)
    assert (yield from stage.holders()) == [*holders, "waiter-0"]
    assert (yield from stage.inspect()).waiting == 3


@scenario("S12", "S6", rows=(36,))
def those_a_raised_limit_lets_in_are_woken(stage: Stage) -> Steps[None]:
    """The others are not; but the next in line may be, to see to the end of their leases."""
    yield from stage.take(stage.request(id="holder"))
    listeners = [RecordingListener() for _ in range(5)]
    requests = [stage.request(listener=listener) for listener in listeners]
    for request in requests:
        yield from stage.wait(request)
    yield from stage.set_limit(3)
    yield from stage.eventually("two were woken", lambda: all(x.woken for x in listeners[:2]))
    yield from stage.take(requests[0])
    yield from stage.take(requests[1])
    yield from stage.wait(requests[2])
    assert not any(listener.woken for listener in listeners[3:])


@scenario("S12", rows=(36,))
def a_lowered_limit_drains(stage: Stage) -> Steps[None]:
    """Nobody is killed, and nobody comes in until there is room below the new number."""
    names = ["a", "b", "c"]
    for name in names:
        yield from stage.take(stage.request(Demand(KEY, 3), id=name))
    yield from stage.set_limit(1)
    waiter = stage.request(Demand(KEY, 3), id="waiter")
    queued = yield from stage.wait(waiter)
    assert (queued.max_concurrent, queued.in_use) == (1, 3)
    assert not (yield from stage.renew(*names)).gone
    for name in ("a", "b"):
        yield from stage.release(name)
        yield from stage.wait(waiter)
    yield from stage.release("c")
    yield from stage.take(waiter)


@scenario("S12", rows=(36,))
def an_override_replaces_every_declared_number(stage: Stage) -> Steps[None]:
    """Higher ones and lower ones, newcomers' and waiters'."""
    yield from stage.set_limit(2)
    yield from stage.take(stage.request(Demand(KEY, 1)))
    yield from stage.take(stage.request(Demand(KEY, 1)))
    refused = yield from stage.be_refused(stage.request(Demand(KEY, 9), mode=Mode.TRY))
    assert (refused.max_concurrent, refused.in_use) == (2, 2)
    snapshot = yield from stage.inspect()
    assert (snapshot.limit, snapshot.override, snapshot.declared) == (2, 2, (1,))


@scenario("S12", "S6", rows=(36,))
def a_reset_returns_to_the_declared_numbers(stage: Stage) -> Steps[None]:
    """And admits the waiters that fit below their own."""
    yield from stage.set_limit(1)
    yield from stage.take(stage.request(Demand(KEY, 3), id="holder"))
    yield from _queue(stage, 4, limit=3)
    yield from stage.reset_limit()
    assert (yield from stage.holders()) == ["holder", "waiter-0", "waiter-1"]
    snapshot = yield from stage.inspect()
    assert (snapshot.limit, snapshot.override) == (3, None)


@scenario("S12", "S8")
def a_cost_above_the_override_waits(stage: Stage) -> Steps[None]:
    """For as long as the override lasts: the number that the code declares is right."""
    wide = stage.request(Demand(KEY, 5, 3), id="wide")
    yield from stage.set_limit(2)
    queued = yield from stage.wait(wide)
    assert queued.max_concurrent == 2
    yield from stage.reset_limit()
    yield from stage.take(wide)


@scenario("S12")
def an_override_of_zero_admits_nobody(stage: Stage) -> Steps[None]:
    """They wait, or are refused; holders go on."""
    yield from stage.take(stage.request(Demand(KEY, 3), id="holder"))
    yield from stage.set_limit(0)
    waiter = stage.request(Demand(KEY, 3, 2), id="waiter")
    assert (yield from stage.wait(waiter)).max_concurrent == 0
    refused = yield from stage.be_refused(stage.request(Demand(KEY, 3, 1, CANCEL)))
    assert (refused.reason, refused.max_concurrent) == (Refusal.FULL, 0)
    assert not (yield from stage.renew("holder")).gone
    yield from stage.release("holder")
    yield from stage.wait(waiter)
    yield from stage.reset_limit()
    yield from stage.take(waiter)


@scenario("S12")
def a_paused_key_admits_nobody(stage: Stage) -> Steps[None]:
    """They wait, or are refused, and are told that nobody may enter; holders go on."""
    yield from stage.take(stage.request(Demand(KEY, 3), id="holder"))
    yield from stage.pause()
    waiter = stage.request(Demand(KEY, 3), id="waiter")
    queued = yield from stage.wait(waiter)
    assert (queued.max_concurrent, queued.in_use) == (0, 1)
    refused = yield from stage.be_refused(stage.request(Demand(KEY, 3, 1, CANCEL)))
    assert (refused.reason, refused.max_concurrent) == (Refusal.FULL, 0)
    yield from stage.be_refused(stage.request(Demand(KEY, 3), mode=Mode.TRY))
    assert not (yield from stage.renew("holder")).gone
    snapshot = yield from stage.inspect()
    assert (snapshot.paused, snapshot.limit, snapshot.in_use) == (True, 3, 1)
    yield from stage.release("holder")
    yield from stage.wait(waiter)


@scenario("S12", "S6")
def a_resumed_key_admits_those_who_fit(stage: Stage) -> Steps[None]:
    """In the same step, in their order."""
    yield from stage.pause()
    yield from _queue(stage, 4, limit=2)
    yield from stage.resume()
    assert (yield from stage.holders()) == ["waiter-0", "waiter-1"]
    assert (yield from stage.waiters()) == ["waiter-2", "waiter-3"]
    assert not (yield from stage.inspect()).paused


@scenario("S12")
def a_pause_and_an_override_do_not_touch_each_other(stage: Stage) -> Steps[None]:
    """A limit raised during a pause takes effect with its end."""
    yield from stage.take(stage.request(id="holder"))
    yield from _queue(stage, 3)
    yield from stage.pause()
    yield from stage.set_limit(3)
    assert (yield from stage.holders()) == ["holder"]
    yield from stage.resume()
    assert (yield from stage.holders()) == ["holder", "waiter-0", "waiter-1"]
    yield from stage.pause()
    yield from stage.reset_limit()
    assert (yield from stage.inspect()).paused


@scenario("S12", "S9")
def one_paused_key_of_several_holds_the_call_up(stage: Stage) -> Steps[None]:
    """It holds nothing of the other meanwhile."""
    yield from stage.pause()
    both = stage.request(Demand(KEY, 1), Demand("contract/b", 1), id="both")
    assert (yield from stage.wait(both)).key == KEY
    assert (yield from stage.inspect("contract/b")).in_use == 0
    yield from stage.resume()
    yield from stage.take(both)


@scenario("S12", "S14")
def what_an_operator_set_stays_until_he_takes_it_back(stage: Stage) -> Steps[None]:
    """An idle key keeps its override and its pause, and nothing else."""
    yield from stage.set_limit(7)
    yield from stage.pause("contract/b")
    stage.clock.advance(100_000)
    yield from stage.sweep()
    assert (yield from stage.keys()) == [KEY, "contract/b"]
    snapshot = yield from stage.inspect()
    assert (snapshot.limit, snapshot.override, snapshot.declared) == (7, 7, ())
    assert (yield from stage.inspect("contract/b")).paused
    yield from stage.reset_limit()
    yield from stage.resume("contract/b")
    assert (yield from stage.keys()) == []


@scenario("S12", "S14")
def taking_back_what_was_not_set_changes_nothing(stage: Stage) -> Steps[None]:
    """And leaves nothing."""
    yield from stage.reset_limit()
    yield from stage.resume()
    assert (yield from stage.keys()) == []


@scenario("S12", "S6")
def an_evicted_holder_is_told(stage: Stage) -> Steps[None]:
    """Once, and it is gone."""
    listener = RecordingListener()
    yield from stage.take(stage.request(id="stuck", listener=listener))
    assert (yield from stage.evict("stuck")) is True
    yield from stage.eventually("the holder was told", lambda: listener.losses)
    assert listener.losses == [Loss.EVICTED]
    assert (yield from stage.evict("stuck")) is False
    assert (yield from stage.keys()) == []


@scenario("S12", "S5")
def only_holders_are_evicted(stage: Stage) -> Steps[None]:
    """Not the waiting, not the unknown."""
    yield from stage.take(stage.request(id="holder"))
    yield from stage.wait(stage.request(id="waiter"))
    assert (yield from stage.evict("waiter")) is False
    assert (yield from stage.evict("nobody")) is False
    assert (yield from stage.waiters()) == ["waiter"]


@scenario("S2", "S12")
def an_ended_lease_cannot_be_evicted(stage: Stage) -> Steps[None]:
    """Each step first drops what ended, this one too: there is no such holder any more."""
    yield from stage.take(stage.request(id="ended", lease=10))
    waiter = stage.request(id="waiter", lease=60)
    yield from stage.wait(waiter)
    stage.clock.advance(11)
    assert (yield from stage.evict("ended")) is False
    yield from stage.take(waiter)
