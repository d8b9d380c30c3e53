"""Memory and Redis side by side with the model: same answers, same order, same news."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Presence, Request
from limiter_core.store import SyncStore
from limiter_core.testing import FakeClock
from limiter_core.testing._calls import LISTENED_LEASE
from limiter_core.testing.stateful import StoreMachine
from limiter_memory import MemoryStore
from limiter_redis import RedisStore
from limiter_redis.session.tracker import RequestTracker

from ._fake_time import FAKED, ServerClock
from ._servers import Server
from ._tools import until_now


class UnfollowedClock(ServerClock):
    """Moves the server's time as well; tells no store, as the machine's own clock."""

    def on_advance(self, follow: Callable[[], object]) -> None:
        """Call nobody: the memory store would look at once, which the model knows nothing of."""


def leave_time_to_the_clock(tracker: RequestTracker) -> None:
    """Have the background do nothing in a run: it goes by real time, of which the model knows none.

    On a busy machine a run may last longer than it takes until the first look or deadline; and all
    is renewed once the process is subscribed to the notices of jobs, some time after its start.
    What a call may have taken that was notified of a loss while it asked is released by the run.
    """
    tracker.policies.is_due = lambda now: False  # type: ignore[method-assign]
    requests = tracker.requests
    requests._jitter = lambda: 1e6
    requests.due = lambda now: []  # type: ignore[method-assign]
    requests.deadlines = lambda now: None  # type: ignore[method-assign]
    requests.releases_due = lambda now: []  # type: ignore[method-assign]


@pytest.fixture
def machine(server: Server) -> Iterator[Any]:
    """The machine, on stores that are new for each of its runs."""
    opened: list[RedisStore] = []

    class SideBySide(StoreMachine):
        patience = 2.0

        @property
        def stores_agree(self) -> bool:  # type: ignore[override]
            # Which of several keys is swept first is a choice; the model allows each.
            return self.kind == "one key"

        def make_clock(self) -> FakeClock:
            server.admin.flushdb()
            return UnfollowedClock(server)

        def make_stores(self, clock: FakeClock) -> Sequence[SyncStore]:
            store = RedisStore(server.url, script=FAKED)
            opened.append(store)
            leave_time_to_the_clock(store.session.tracker)
            store.session.renewer.ensure_running()
            until_now(lambda: store.session.renewer.listening, "the renewer listens")
            # Sweeps come to scopes that had a job. Before its first one, a worker that is there is
            # known in the scope up to a sweep later: the model has it known at once.
            face = store.sync_face()
            face.acquire(Request("first", (Demand(self.keys[0], 1),), payload=b""))
            face.release("first")
            return [MemoryStore(clock=clock).sync_face(), store.sync_face()]

        def teardown(self) -> None:
            super().teardown()
            opened[-1].session.tracker.requests.clear()
            opened.pop().close()

    yield SideBySide
    while opened:
        opened[-1].session.tracker.requests.clear()
        opened.pop().close()
    server.admin.flushdb()  # a run may end with what an operator set, which stays (S14)


def run(machine: Any, **how: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            database=None,
            **how,
        ),
    )


@pytest.mark.parametrize("leaving", [0, 2], ids=["holder", "waiter"])
def test_a_release_in_whose_step_a_lease_ends_notifies_others_alone(
    machine: Any, leaving: int
) -> None:
    """A holder that overran releases; a waiter leaves, whose slot would be free (S2, S5, S15)."""
    demand = Demand("model/a", 2, 1)
    call = Request("", (demand,), LISTENED_LEASE, max_hold=15.7, claim=LISTENED_LEASE)
    steps = machine()
    steps.begin("one key", 1, [ConflictResolution.QUEUE], [call] * 4)
    steps.pass_time(12.002)
    steps.pass_time(4.002)
    steps.release([leaving])
    steps.teardown()


def test_a_call_that_is_notified_of_a_loss_while_it_asks_is_over(machine: Any) -> None:
    """The Redis store notifies it of nothing more, and releases what the answer granted."""
    demand = Demand("model/a", 2, 1)
    call = Request("", (demand,), LISTENED_LEASE, max_hold=15.7, claim=LISTENED_LEASE)
    steps = machine()
    steps.begin("one key", 1, [ConflictResolution.QUEUE], [call])
    steps.pass_time(12.002)
    steps.pass_time(4.002)
    steps.ask_again([0], "worker-1")
    steps.pass_time(12.002)
    steps.pass_time(4.002)
    steps.inspect(0)
    steps.teardown()


def test_a_policy_that_has_ended_by_the_clock_of_the_server_does_not_count(machine: Any) -> None:
    """Also where its process does not know that yet, and the key has no holder (S22)."""
    call = Request("", (Demand("model/a", 2, 1, name="one"),), 30.1)
    steps = machine()
    steps.begin("one key", 1, [ConflictResolution.QUEUE], [])
    steps.change_policy("one", "1", 3.1)
    steps.pass_time(4.002)
    steps.call([call])
    steps.teardown()


def test_a_dead_waiter_at_the_head_blocks_none_behind_it(machine: Any) -> None:
    """Also where a step serves its key for another one, and has not reaped it (S2)."""
    a, b, c = (Demand(f"model/{key}", 2, 1) for key in "abc")

    def call(*demands: Demand, payload: bytes | None = None) -> Request:
        return Request("", demands, 30.1, claim=3.3, payload=payload, claimant="worker-1")

    steps = machine()
    steps.begin("swept", 2, [ConflictResolution.QUEUE], [call(a), call(a, b, payload=b"job")])
    steps.evict(0)
    steps.call([call(a._replace(name="one")), call(b._replace(limit=0), a), call(a, b, c)])
    steps.pass_time(2.002)
    presence = Presence("queue:x", "one")
    for times in (2, 3):
        steps.ignore_offers(times, presence)
    steps.pass_time(0.502)
    steps.ignore_offers(2, presence)
    steps.teardown()


@pytest.mark.exhaustive
def test_memory_and_redis_do_the_same(machine: Any) -> None:
    """S1 to S23; row 5."""
    run(machine, max_examples=40, stateful_step_count=30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_and_redis_do_the_same_for_long(machine: Any) -> None:
    """S1 to S23; row 5."""
    run(machine, max_examples=1500, stateful_step_count=50)
