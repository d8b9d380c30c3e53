"""S22, S23: limits by name, and the log; of stores that have them (`Capabilities.policies`)."""

from __future__ import annotations

from limiter_core.policies import PAUSED, Change
from limiter_core.requests import Demand
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, Steps, StoreUnderTest

NAMED = Demand(KEY, 4, name="billing")


@scenario("S22", "S6", needs=("policies",))
def a_policy_judges_new_calls_and_those_who_wait(store: StoreUnderTest) -> Steps[None]:
    """A share, a pause, and back to what the code declares."""
    yield from store.change_policy(Change("set", name="billing", new="50%"))
    for number in range(2):
        yield from store.take(store.request(NAMED, id=f"holder-{number}"))
    for number in range(3):
        yield from store.wait(store.request(NAMED, id=f"waiter-{number}"))
    yield from store.change_policy(Change("pause", name="billing", new=PAUSED))
    yield from store.change_policy(Change("set", name="billing", new="3"))
    assert len((yield from store.holders())) == 2
    yield from store.change_policy(Change("resume", name="billing"))
    assert len((yield from store.holders())) == 3
    yield from store.change_policy(Change("reset", name="billing"))
    assert len((yield from store.holders())) == 4
    assert (yield from store.waiters()) == ["waiter-2"]


@scenario("S22", "S17", needs=("policies", "durable"))
def a_policy_ends_by_the_clock_of_the_store(store: StoreUnderTest) -> Steps[None]:
    """Waiters run at the next step, without a new call."""
    yield from store.change_policy(Change("pause", name="billing", new=PAUSED, lasts=10))
    yield from store.wait(store.request(NAMED, id="waiter", lease=600))
    yield from store.wait(store.request(NAMED, id="job", payload=b"job"))
    store.clock.advance(11)
    yield from store.sweep()
    assert set((yield from store.holders())) == {"waiter", "job"}


@scenario("S22", "S17", needs=("policies", "durable"))
def a_slot_that_is_not_claimed_waits_by_the_policy_of_then(store: StoreUnderTest) -> Steps[None]:
    """The policy changes while a job is offered its slot."""
    yield from store.change_policy(Change("set", name="billing", new="1"))
    yield from store.take(store.request(NAMED, id="holder"))
    for number in range(3):
        job = store.request(NAMED, id=f"job-{number}", claim=10.0, payload=b"job")
        yield from store.wait(job)
    yield from store.set_limit(2)
    yield from store.reset_limit()
    assert set((yield from store.holders())) == {"holder", "job-0"}
    yield from store.change_policy(Change("reset", name="billing"))
    assert set((yield from store.holders())) == {"holder", "job-0", "job-1", "job-2"}
    yield from store.change_policy(Change("set", name="billing", new="3"))
    store.clock.advance(11)
    yield from store.sweep()
    assert len((yield from store.holders())) == 3
    yield from store.change_policy(Change("pause", name="billing", new=PAUSED))
    store.clock.advance(11)
    yield from store.sweep()
    assert (yield from store.holders()) == ["holder"]
    yield from store.change_policy(Change("resume", name="billing"))
    yield from store.change_policy(Change("reset", name="billing"))
    assert len((yield from store.holders())) == 4


@scenario("S22", "S12", needs=("policies",))
def an_override_counts_before_a_policy(store: StoreUnderTest) -> Steps[None]:
    """And calls of another name on the key go by what their code declares."""
    yield from store.change_policy(Change("pause", name="billing", new=PAUSED))
    yield from store.take(store.request(Demand(KEY, 4, name="other")))
    waiter = store.request(NAMED, id="waiter")
    yield from store.wait(waiter)
    yield from store.set_limit(4)
    yield from store.take(waiter)
    yield from store.reset_limit()
    yield from store.change_policy(Change("resume", name="billing"))
