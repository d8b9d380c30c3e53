"""The memory store does what the model of the rules allows, whatever is asked of it (S1 to S23)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from limiter_core.requests import Demand, Loss, Notice, Request
from limiter_core.testing import RecordingListener, StoreMachine
from limiter_memory import MemoryStore

from . import broken


class MemoryMachine(StoreMachine):
    def make_stores(self, clock):
        return [MemoryStore(clock=clock).sync_face()]


TestMemoryStore = pytest.mark.exhaustive(pytest.mark.timeout(300)(MemoryMachine.TestCase))
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


def hold_and_wait():
    """Return a store and its listeners; the leases of the holders end, and no step noticed it."""
    clock = MemoryMachine().make_clock()
    store = MemoryStore(clock=clock)
    listeners = {id_: RecordingListener() for id_ in ("first", "second", "leaving", "following")}
    for id_, listener in listeners.items():
        store.acquire(Request(id_, (Demand("key", 2, 1),), 30.0, max_hold=20.0, listener=listener))
    clock.advance(21)
    return store, listeners


def test_a_release_sends_its_own_caller_no_notification():
    """Also not of the grant that a waiter got in the step in which it leaves (S5, S15)."""
    store, listeners = hold_and_wait()
    assert store.release("first") is False
    assert listeners["first"].losses == []
    assert listeners["second"].losses == [Loss.OVERRAN]

    store, listeners = hold_and_wait()
    assert store.release("leaving") is True
    assert listeners["leaving"].answers == []
    assert listeners["following"].woken == 1
    assert store.inspect("key").in_use == 1


def test_a_job_that_ends_is_not_notified_of_its_own_loss():
    """Only that of its own delivery: that of another one is notified (S18)."""
    for claimant, losses in (("this", []), ("other", [Loss.OVERRAN])):
        clock, listener = MemoryMachine().make_clock(), RecordingListener()
        store = MemoryStore(clock=clock)
        request = Request("job", (Demand("key", 1, 1),), 30.0, max_hold=20.0, payload=b"job")
        store.acquire(request._replace(claimant="this", listener=listener))
        clock.advance(21)
        assert store.release_claim("job", ("key",), claimant) is False
        assert listener.losses == losses


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
        *(
            pytest.param(kind, marks=pytest.mark.exhaustive)
            for kind in (
                broken.LetsTriesOvertake,
                broken.LosesTickets,
                broken.HandsToNobody,
                broken.CountsEverybodyOnce,
                broken.TakesTheFirstKeyAlone,
                broken.TokensFollowTheClockAlone,
                broken.HasRoomForAll,
                broken.KeepsKeys,
                broken.FallsSilent,
                broken.SupersedesNobody,
            )
        ),
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
