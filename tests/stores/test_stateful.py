"""The memory store does what the model of the rules allows, whatever is asked of it (S1 to S20)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from limiter_core.requests import Demand, Notice, Request
from limiter_core.testing import StoreMachine
from limiter_memory import MemoryStore

from . import broken


class MemoryMachine(StoreMachine):
    def make_stores(self, clock):
        return [MemoryStore(clock=clock).sync_face()]


TestMemoryStore = pytest.mark.timeout(300)(MemoryMachine.TestCase)
TestMemoryStore.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_what_has_ended_is_noticed_by_a_step_not_by_the_clock():
    """The model knows of steps alone; a store that follows the clock would be ahead of it."""
    clock = MemoryMachine().make_clock()
    store = MemoryStore(clock=clock)
    request = Request("holder", (Demand("key", 1, 1),), lease=30.0)
    store.acquire(request)
    store.acquire(Request("waiter", (Demand("key", 1, 1),), payload=b"waiter"))
    notices: list[Notice] = []
    store.on_notice(notices.append)
    clock.advance(31)
    assert not notices
    store.sweep()
    assert [notice.id for notice in notices] == ["waiter"]


def run(machine):
    """Look for a run that fails, always the same way; that it is not the shortest is no matter."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=500,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(
    "kind",
    [
        broken.ForgetsRepeats,
        broken.LetsTriesOvertake,
        broken.LosesTickets,
        broken.HandsToNobody,
        broken.CountsEverybodyOnce,
        broken.TakesTheFirstKeyAlone,
        broken.TokensFollowTheClockAlone,
        broken.HasRoomForAll,
        broken.FallsSilent,
        broken.SupersedesNobody,
    ],
)
def test_the_machine_finds_a_broken_store(kind):
    class Machine(StoreMachine):
        def make_stores(self, clock):
            return [kind(clock=clock)]

    with pytest.raises(AssertionError):
        run(Machine)


def test_stores_that_differ_are_told_apart():
    """Two stores, each right by itself as far as the run goes, but not the same."""

    class Machine(StoreMachine):
        def make_stores(self, clock):
            return [MemoryStore(clock=clock), broken.NeverExpires(clock=clock)]

    with pytest.raises(AssertionError, match=r"one store:|gave|told were"):
        run(Machine)
