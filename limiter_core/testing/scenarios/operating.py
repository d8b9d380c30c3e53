"""S12: what an operator does. Overrides, pauses, evictions; each takes effect in its own step."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Loss, Mode, Refusal
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Steps, StoreUnderTest

CANCEL = ConflictResolution.CANCEL


def _queue(store: StoreUnderTest, count: int, limit: int = 1) -> Steps[None]:
    for number in range(count):
        yield from store.wait(store.request(Demand(KEY, limit), id=f"waiter-{number}"))


@scenario("S12", "S6", rows=(36,))
def a_raised_limit_wakes_as_many_as_now_fit(store: StoreUnderTest) -> Steps[None]:
    """Not one more, not one less; and without another step."""
    yield from store.take(store.request(id="holder"))
    yield from _queue(store, 5)
    yield from store.set_limit(3)
    assert (yield from store.holders()) == ["holder", "waiter-0", "waiter-1"]
    assert (yield from store.waiters()) == ["waiter-2", "waiter-3", "waiter-4"]


@scenario("S12", "S6", rows=(36,))
def a_limit_raised_to_less_than_is_in_use_wakes_nobody(store: StoreUnderTest) -> Steps[None]:
    """What counts is the room there is, not the difference between old and new.

    In anyio a limit that was raised while more than it were in use woke too many:
    https://github.com/agronholm/anyio/pull/1223.
    """
    holders = [f"holder-{number}" for number in range(4)]
    for name in holders:
        yield from store.take(store.request(Demand(KEY, 4), id=name))
    yield from store.set_limit(1)
    yield from _queue(store, 4, limit=4)
    yield from store.set_limit(3)
    assert (yield from store.holders()) == holders
    yield from store.set_limit(4)
    assert (yield from store.holders()) == holders
    yield from store.set_limit(5)
    assert (yield from store.holders()) == [*holders, "waiter-0"]
    assert (yield from store.inspect()).waiting == 3


@scenario("S12", "S6", rows=(36,))
def those_a_raised_limit_lets_in_are_woken(store: StoreUnderTest) -> Steps[None]:
    """The others are not; but the next in line may be, to see to the end of their leases."""
    yield from store.take(store.request(id="holder"))
    listeners = [RecordingListener() for _ in range(5)]
    requests = [store.request(listener=listener) for listener in listeners]
    for request in requests:
        yield from store.wait(request)
    yield from store.set_limit(3)
    yield from store.eventually("two were woken", lambda: all(x.woken for x in listeners[:2]))
    yield from store.take(requests[0])
    yield from store.take(requests[1])
    yield from store.wait(requests[2])
    assert not any(listener.woken for listener in listeners[3:])


@scenario("S12", rows=(36,))
def a_lowered_limit_drains(store: StoreUnderTest) -> Steps[None]:
    """No holder is ended, and no call is admitted until the use is below the new number."""
    names = ["a", "b", "c"]
    for name in names:
        yield from store.take(store.request(Demand(KEY, 3), id=name))
    yield from store.set_limit(1)
    waiter = store.request(Demand(KEY, 3), id="waiter")
    queued = yield from store.wait(waiter)
    assert (queued.max_concurrent, queued.in_use) == (1, 3)
    assert not (yield from store.renew(*names)).gone
    for name in ("a", "b"):
        yield from store.release(name)
        yield from store.wait(waiter)
    yield from store.release("c")
    yield from store.take(waiter)


@scenario("S12", rows=(36,))
def an_override_replaces_every_declared_number(store: StoreUnderTest) -> Steps[None]:
    """Higher ones and lower ones, newcomers' and waiters'."""
    yield from store.set_limit(2)
    yield from store.take(store.request(Demand(KEY, 1)))
    yield from store.take(store.request(Demand(KEY, 1)))
    refused = yield from store.be_refused(store.request(Demand(KEY, 9), mode=Mode.TRY))
    assert (refused.max_concurrent, refused.in_use) == (2, 2)
    snapshot = yield from store.inspect()
    assert (snapshot.limit, snapshot.override, snapshot.declared) == (2, 2, (1,))


@scenario("S12", "S6", rows=(36,))
def a_reset_returns_to_the_declared_numbers(store: StoreUnderTest) -> Steps[None]:
    """And admits the waiters that fit below their own."""
    yield from store.set_limit(1)
    yield from store.take(store.request(Demand(KEY, 3), id="holder"))
    yield from _queue(store, 4, limit=3)
    yield from store.reset_limit()
    assert (yield from store.holders()) == ["holder", "waiter-0", "waiter-1"]
    snapshot = yield from store.inspect()
    assert (snapshot.limit, snapshot.override) == (3, None)


@scenario("S12", "S8")
def a_cost_above_the_override_waits(store: StoreUnderTest) -> Steps[None]:
    """For as long as the override lasts: the number that the code declares is right."""
    wide = store.request(Demand(KEY, 5, 3), id="wide")
    yield from store.set_limit(2)
    queued = yield from store.wait(wide)
    assert queued.max_concurrent == 2
    yield from store.reset_limit()
    yield from store.take(wide)


@scenario("S12")
def an_override_of_zero_admits_nobody(store: StoreUnderTest) -> Steps[None]:
    """They wait, or are refused; holders go on."""
    yield from store.take(store.request(Demand(KEY, 3), id="holder"))
    yield from store.set_limit(0)
    waiter = store.request(Demand(KEY, 3, 2), id="waiter")
    assert (yield from store.wait(waiter)).max_concurrent == 0
    refused = yield from store.be_refused(store.request(Demand(KEY, 3, 1, CANCEL)))
    assert (refused.reason, refused.max_concurrent) == (Refusal.FULL, 0)
    assert not (yield from store.renew("holder")).gone
    yield from store.release("holder")
    yield from store.wait(waiter)
    yield from store.reset_limit()
    yield from store.take(waiter)


@scenario("S12")
def a_paused_key_admits_nobody(store: StoreUnderTest) -> Steps[None]:
    """They wait, or are refused, with a limit of 0; holders continue."""
    yield from store.take(store.request(Demand(KEY, 3), id="holder"))
    yield from store.pause()
    waiter = store.request(Demand(KEY, 3), id="waiter")
    queued = yield from store.wait(waiter)
    assert (queued.max_concurrent, queued.in_use) == (0, 1)
    refused = yield from store.be_refused(store.request(Demand(KEY, 3, 1, CANCEL)))
    assert (refused.reason, refused.max_concurrent) == (Refusal.FULL, 0)
    yield from store.be_refused(store.request(Demand(KEY, 3), mode=Mode.TRY))
    assert not (yield from store.renew("holder")).gone
    snapshot = yield from store.inspect()
    assert (snapshot.paused, snapshot.limit, snapshot.in_use) == (True, 3, 1)
    yield from store.release("holder")
    yield from store.wait(waiter)


@scenario("S12", "S6")
def a_resumed_key_admits_those_who_fit(store: StoreUnderTest) -> Steps[None]:
    """In the same step, in their order."""
    yield from store.pause()
    yield from _queue(store, 4, limit=2)
    yield from store.resume()
    assert (yield from store.holders()) == ["waiter-0", "waiter-1"]
    assert (yield from store.waiters()) == ["waiter-2", "waiter-3"]
    assert not (yield from store.inspect()).paused


@scenario("S12")
def a_pause_and_an_override_do_not_touch_each_other(store: StoreUnderTest) -> Steps[None]:
    """A limit raised during a pause takes effect with its end."""
    yield from store.take(store.request(id="holder"))
    yield from _queue(store, 3)
    yield from store.pause()
    yield from store.set_limit(3)
    assert (yield from store.holders()) == ["holder"]
    yield from store.resume()
    assert (yield from store.holders()) == ["holder", "waiter-0", "waiter-1"]
    yield from store.pause()
    yield from store.reset_limit()
    assert (yield from store.inspect()).paused


@scenario("S12", "S9")
def one_paused_key_of_several_holds_the_call_up(store: StoreUnderTest) -> Steps[None]:
    """It holds nothing of the other meanwhile."""
    yield from store.pause()
    both = store.request(Demand(KEY, 1), Demand("contract/b", 1), id="both")
    assert (yield from store.wait(both)).key == KEY
    assert (yield from store.inspect("contract/b")).in_use == 0
    yield from store.resume()
    yield from store.take(both)


@scenario("S12", "S14")
def what_an_operator_set_stays_until_it_is_reset(store: StoreUnderTest) -> Steps[None]:
    """An idle key keeps its override and its pause, and nothing else."""
    yield from store.set_limit(7)
    yield from store.pause("contract/b")
    store.clock.advance(100_000)
    yield from store.sweep()
    assert (yield from store.keys()) == [KEY, "contract/b"]
    snapshot = yield from store.inspect()
    assert (snapshot.limit, snapshot.override, snapshot.declared) == (7, 7, ())
    assert (yield from store.inspect("contract/b")).paused
    yield from store.reset_limit()
    yield from store.resume("contract/b")
    assert (yield from store.keys()) == []


@scenario("S12", "S14")
def taking_back_what_was_not_set_changes_nothing(store: StoreUnderTest) -> Steps[None]:
    """And leaves nothing."""
    yield from store.reset_limit()
    yield from store.resume()
    assert (yield from store.keys()) == []


@scenario("S12", "S6")
def an_evicted_holder_is_told(store: StoreUnderTest) -> Steps[None]:
    """Once, and it is gone."""
    listener = RecordingListener()
    yield from store.take(store.request(id="stuck", listener=listener))
    assert (yield from store.evict("stuck")) is True
    yield from store.eventually("the holder was notified", lambda: listener.losses)
    assert listener.losses == [Loss.EVICTED]
    assert (yield from store.evict("stuck")) is False
    assert (yield from store.keys()) == []


@scenario("S12", "S5")
def only_holders_are_evicted(store: StoreUnderTest) -> Steps[None]:
    """Not the waiting, not the unknown."""
    yield from store.take(store.request(id="holder"))
    yield from store.wait(store.request(id="waiter"))
    assert (yield from store.evict("waiter")) is False
    assert (yield from store.evict("nobody")) is False
    assert (yield from store.waiters()) == ["waiter"]


@scenario("S2", "S12")
def an_ended_lease_cannot_be_evicted(store: StoreUnderTest) -> Steps[None]:
    """Each step first drops what ended, this one too: there is no such holder any more."""
    yield from store.take(store.request(id="ended", lease=10))
    waiter = store.request(id="waiter", lease=60)
    yield from store.wait(waiter)
    store.clock.advance(11)
    assert (yield from store.evict("ended")) is False
    yield from store.take(waiter)
