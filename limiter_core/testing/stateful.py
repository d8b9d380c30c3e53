"""A hypothesis machine that runs stores beside the model of the rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from limiter_core.limits import ConflictResolution
from limiter_core.policies import PAUSED, Change, PolicyStore
from limiter_core.requests import Demand, Presence, Request
from limiter_core.store import SyncStore
from limiter_core.testing._calls import KEYS, LISTENED_LEASE, NAMES, PRESENCES, calls
from limiter_core.testing._compared_run import ComparedRun
from limiter_core.testing.clock import FakeClock
from limiter_core.testing.model_comparison import ModelComparison

__all__ = ("StoreMachine",)

_indexes = st.integers(0, 99)
_calls = calls()


def _has_calls(machine: StoreMachine) -> bool:
    return bool(machine.requests)


def _keep_policies(machine: StoreMachine) -> bool:
    return all(isinstance(each.store, PolicyStore) for each in machine.comparisons)


def _may_call(machine: StoreMachine) -> bool:
    # More would say nothing new; and a snapshot shows no more than the first hundred waiters.
    return len(machine.requests) < 16


class _UnfollowedClock(FakeClock):
    """Calls no follower when it is advanced: only the steps of a run notice what has ended."""

    def on_advance(self, follow: Callable[[], object]) -> None:
        """Do nothing."""


class StoreMachine(ComparedRun, RuleBasedStateMachine):
    """Runs random operations of callers, operators and time on stores and on a model::

        class MyStoreMachine(StoreMachine):
            def make_stores(self, clock):
                return [MyStore(clock=clock).sync_face()]

        TestMyStore = MyStoreMachine.TestCase

    After each step the answers, notifications and snapshots of the stores must be those that the
    model allows, and the same in all; no more than the limit is in use, no head of a queue waits
    that would fit, tokens rise. In the end everything is released, and nothing may be left.

    A run is of one of three kinds:

    - "one key": calls for one key each; a step that uses the key notices what has ended there.
    - "swept": calls for several keys; each passing of time is followed by a sweep, since the rules
      do not say whether a step notices what has ended on keys that it uses only for a waiter.
    - "anything": both at once. There the stores are not compared with the model: only the
      invariants are checked, and whether the stores agree.

    Attributes:
        stores_agree: whether the stores choose alike where the rules leave a choice. Set it to
            False for those that do not; each is compared with the model all the same.
        patience: real seconds in which a store has to notify its listeners, for one that does it
            from another thread.
    """

    patience = 0.0
    _handled_before: BaseException | None = None

    def make_stores(self, clock: FakeClock) -> Sequence[SyncStore]:
        """Return the stores to be driven, fresh, on this clock: their sync faces."""
        raise NotImplementedError

    def make_clock(self) -> FakeClock:
        """Return the clock of a run; override it for a store whose time is kept elsewhere."""
        return _UnfollowedClock()

    @initialize(
        kind=st.sampled_from(("one key", "swept", "anything")),
        keys=st.integers(1, len(KEYS)),
        resolutions=st.lists(st.sampled_from(ConflictResolution), min_size=1, unique=True),
        first=st.lists(_calls, max_size=8),
    )
    def begin(
        self, kind: str, keys: int, resolutions: list[ConflictResolution], first: list[Request]
    ) -> None:
        """Make the stores, and choose the kind of this run."""
        # Code around the run may be handling an exception of its own.
        self._handled_before = sys.exc_info()[1]
        self.clock = self.make_clock()
        self.kind = kind
        self.keys = KEYS[:keys]
        self.resolutions = resolutions
        self.requests = []
        self.count = 0
        self.comparisons = [
            ModelComparison(
                store, self.clock, patience=self.patience, follows_model=kind != "anything"
            )
            for store in self.make_stores(self.clock)
        ]
        self._call(first)

    # -- callers -----------------------------------------------------------------------------------

    @precondition(_may_call)
    @rule(requests=st.lists(_calls, min_size=1, max_size=4))
    def call(self, requests: list[Request]) -> None:
        """New calls ask."""
        self._call(requests)

    @precondition(_may_call)
    @rule(key=_indexes, costs=st.lists(st.sampled_from((1, 1, 2)), min_size=1, max_size=5))
    def call_one_key(self, key: int, costs: list[int]) -> None:
        """Several calls ask for the same key, and wait in arrival order."""
        for cost in costs:
            demand = Demand(self._key(key), 2, cost)
            self._add_call(Request("", (demand,), 30.1, claim=3.3))

    @precondition(_has_calls)
    @rule(
        indexes=st.lists(_indexes, min_size=1, max_size=3),
        claimant=st.sampled_from(("worker-1", "worker-1", "worker-2")),
    )
    def ask_again(self, indexes: list[int], claimant: str) -> None:
        """Waiters look again, claim their slots, or ask once more for a reply that was lost.

        A call that is notified of a loss while it asks is over, whatever the answer: as a limiter
        does, the run releases it.
        """
        for index in indexes:
            if request := self._pick(index):
                self._ask(request._replace(claimant=claimant))
                if any(comparison.lost_while_asking for comparison in self.comparisons):
                    self.requests.remove(request)
                    self._release(request)

    @precondition(_has_calls)
    @rule(indexes=st.lists(_indexes, min_size=1, max_size=3))
    def release(self, indexes: list[int]) -> None:
        """Bodies end, or waiters give up."""
        for index in indexes:
            if request := self._pick(index):
                self.requests.remove(request)
                self._release(request)

    @precondition(_has_calls)
    @rule(indexes=st.lists(_indexes, max_size=4))
    def renew(self, indexes: list[int]) -> None:
        """A process renews some of its leases and tickets, and one that does not exist."""
        ids = {request.id for index in indexes if (request := self._pick(index))}
        requests = [request for request in self.requests if request.id in ids]
        for comparison in self.comparisons:
            comparison.renew([*(request.id for request in requests), "nobody"])
        self._compare_keys(None)

    # -- operators ---------------------------------------------------------------------------------

    @precondition(_has_calls)
    @rule(index=_indexes)
    def evict(self, index: int) -> None:
        """An operator evicts a holder."""
        if request := self._pick(index):
            self._run_operation(
                f"evict({request.id!r})",
                request,
                lambda store: store.evict(request.id),
                lambda model, now: model.evict(request.id, now),
            )

    @precondition(_has_calls)
    @rule(index=_indexes)
    def evict_waiter(self, index: int) -> None:
        """An operator evicts a waiter."""
        if request := self._pick(index):
            self._run_operation(
                f"evict_waiter({request.id!r})",
                request,
                lambda store: store.evict_waiter(request.id),
                lambda model, now: model.evict_waiter(request.id, now),
            )

    @rule(index=_indexes, limit=st.sampled_from((None, None, 0, 1, 2, 3, 4)))
    def set_limit(self, index: int, limit: int | None) -> None:
        """An operator overrides the limit, or returns to what is declared."""
        key = self._key(index)
        self._run_operation(
            f"set_limit({key!r}, {limit})",
            key,
            lambda store: store.reset_limit(key) if limit is None else store.set_limit(key, limit),
            lambda model, now: model.set_limit(key, limit, now),
        )

    @rule(index=_indexes, paused=st.sampled_from((False, False, True)))
    def set_paused(self, index: int, paused: bool) -> None:
        """An operator pauses a key, or resumes it."""
        key = self._key(index)
        self._run_operation(
            f"pause({key!r})" if paused else f"resume({key!r})",
            key,
            lambda store: store.pause(key) if paused else store.resume(key),
            lambda model, now: model.set_paused(key, paused, now),
        )

    @precondition(_keep_policies)
    @rule(
        name=st.sampled_from(NAMES),
        value=st.sampled_from(("reset", "resume", "pause", "0", "1", "3", "50%", "200%")),
        lasts=st.sampled_from((None, None, 3.1, 9.1)),
    )
    def change_policy(self, name: str, value: str, lasts: float | None) -> None:
        """An operator sets, resets, pauses or resumes the limits of a name."""
        change = Change("set", name=name, new=value, lasts=lasts)
        if value in ("reset", "resume"):
            change = Change("reset" if value == "reset" else "resume", name=name)
        elif value == "pause":
            change = Change("pause", name=name, new=PAUSED, lasts=lasts)
        self._change_policy(change)

    @rule(index=_indexes)
    def inspect(self, index: int) -> None:
        """A process inspects a key."""
        self._compare_keys(self._key(index))

    # -- time --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.502, 2.002, 4.002, 7.002, 12.002)))
    def pass_time(self, seconds: float) -> None:
        """Time passes. Nothing ends exactly then: whether the last moment counts is left open."""
        self.clock.advance(seconds)
        if self.kind == "swept":
            self.sweep()

    @rule()
    def sweep(self) -> None:
        """A process sweeps."""
        self._run_operation(
            "sweep()", None, lambda store: store.sweep(), lambda model, now: model.sweep(now)
        )

    @rule(presence=st.sampled_from(PRESENCES), leaving=st.sampled_from((False, False, True)))
    def work(self, presence: Presence, leaving: bool) -> None:
        """A worker sweeps, with its presence; or it leaves."""
        presence = presence._replace(leaving=leaving)
        self._run_operation(
            f"sweep({presence})",
            None,
            lambda store: store.sweep(presence),
            lambda model, now: model.sweep(now, presence),
        )

    @rule(times=st.integers(1, 4), presence=st.sampled_from(PRESENCES))
    def ignore_offers(self, times: int, presence: Presence) -> None:
        """A worker is present, and does not claim the slots that its jobs are offered."""
        for _ in range(times):
            self.work(presence, leaving=False)
            self.clock.advance(4.002)
            self.sweep()

    def teardown(self) -> None:
        """Everything ends, and nothing is left."""
        if sys.exc_info()[1] is not self._handled_before:
            return  # the run failed already
        for comparison in self.comparisons:
            store = comparison.store
            for number in range(1, self.count + 1):
                store.release(f"r{number}")
            for key in KEYS:
                store.reset_limit(key)
                store.resume(key)
            if isinstance(store, PolicyStore):
                for name in NAMES:
                    store.change_policy(Change("reset", name=name))
                    store.change_policy(Change("resume", name=name))
                assert not store.policies()
            self.clock.advance(2 * LISTENED_LEASE)
            store.sweep()
            left = sorted(store.keys())
            assert not left, f"left behind (S14): {left}"
            for key in KEYS:
                comparison.check_invariants(snapshot := store.inspect(key))
                assert (snapshot.in_use, snapshot.waiting, snapshot.limit) == (0, 0, 0)
