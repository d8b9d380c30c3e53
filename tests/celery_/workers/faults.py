"""Points at which a worker of the tests kills itself and all its children, and lost replies."""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from celery.bootsteps import StartStopStep
from celery.concurrency.asynpool import AsynPool

from limiter_celery import _admission
from limiter_celery._celery import Request
from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._dispatcher import Dispatcher
from limiter_celery._granted_messages import GrantedMessages
from limiter_celery._parked_tasks import ParkedTasks
from limiter_celery._publisher import Publisher
from limiter_celery._refusals import Refusals
from limiter_celery._release_tracker import ReleaseTracker
from limiter_celery._revocations import Revocations
from limiter_core import StoreUnavailable
from limiter_core.jobs import SyncJobGate
from limiter_core.requests import Demand
from limiter_core.requests import Request as StoreRequest
from limiter_redis.sync_store import SyncRedisStore


def die() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)


def wrap(owner: Any, name: str, count: int, *, after: bool, only: Any = None) -> None:
    """Die at the n-th call: before it is carried out, or after."""
    function = getattr(owner, name)
    calls = 0

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if only is None or only(*args):
            calls += 1
        if calls == count and not after:
            die()
        result = function(*args, **kwargs)
        if calls == count and after:
            die()
        return result

    setattr(owner, name, wrapped)


POINTS = {
    # name: what is wrapped, and whether it dies after it
    "before_asking": (SyncJobGate, "admit", 3, False, None),
    "asked": (SyncJobGate, "admit", 3, True, None),
    "parked": (ParkedTasks, "add", 2, False, None),
    "acknowledged": (_admission, "_acknowledge", 3, True, None),
    "granted": (Dispatcher, "dispatch", 2, False, None),
    "sent": (Publisher, "_publish", 2, True, None),
    "delivered": (Dispatcher, "_deliver", 2, False, None),
    "admitted": (ReleaseTracker, "track", 2, True, None),
    "begun": (ReleaseTracker, "on_start", 2, False, None),
    "over": (ReleaseTracker, "_release", 2, False, None),
    "released": (ReleaseTracker, "_release", 2, True, None),
    "left": (GrantedMessages, "_drop", 1, False, None),
    "ended": (Dispatcher, "dispatch", 1, False, None),
    "reporting": (Refusals, "_report", 1, False, None),
    "reported": (Refusals, "_report", 1, True, None),
    "withdrawn": (SyncRedisStore, "withdraw", 1, True, None),
}


def lose_replies(
    owner: Any, name: str, lost: Callable[[int], bool], *, before: bool = False
) -> None:
    """Have the replies of some calls lost, which are carried out: the store went away.

    Or, if it went away `before`, not carried out.
    """
    function = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        is_lost = lost(next(calls))
        result = None if is_lost and before else function(*args, **kwargs)
        if is_lost:
            raise StoreUnavailable("its reply was lost")
        return result

    setattr(owner, name, wrapped)


def lose_ask() -> None:
    """The second request for a slot is carried out, and its reply lost."""
    lose_replies(SyncJobGate, "admit", lambda number: number == 2)


def lose_look() -> None:
    """The store goes away when a granted task has its slot, and while it is to be given back."""
    look, carry_out = CompletionMarkers.age, SyncRedisStore._carry_out

    def away(*_: Any) -> Any:
        raise StoreUnavailable("it went away")

    def away_once(*_: Any) -> Any:
        SyncRedisStore._carry_out = carry_out
        away()

    def go_away(*_: Any) -> Any:
        CompletionMarkers.age, SyncRedisStore._carry_out = look, away_once
        away()

    CompletionMarkers.age = go_away


def lose_end() -> None:
    """The backend is away when the first task is to be REVOKED."""
    tell = Request._announce_revoked
    calls = itertools.count(1)

    def announce(*args: Any) -> None:
        if next(calls) == 1:
            raise ConnectionError("the backend is away")
        tell(*args)

    Request._announce_revoked = announce  # type: ignore[method-assign]


def lose_learning() -> None:
    """The store is away when the worker asks what was revoked before it began."""
    lose_replies(Revocations, "load", lambda number: number == 1, before=True)


def lose_eviction() -> None:
    """The waiting of the first task that is not to run is ended, and the reply lost."""
    lose_replies(SyncRedisStore, "evict_waiter", lambda number: number == 1)


def lose_withdrawal() -> None:
    """The first task that was reported is withdrawn, and the reply lost."""
    lose_replies(SyncRedisStore, "withdraw", lambda number: number == 1)


def claim_before_withdrawal() -> None:
    """Another delivery claims a slot just before it is withdrawn from this one."""
    withdraw = SyncRedisStore.withdraw

    def claimed(self: SyncRedisStore, ticket: str, keys: Sequence[str] = ()) -> bool:
        SyncRedisStore.withdraw = withdraw
        demands = tuple(Demand(key, 1) for key in keys)
        self.acquire(StoreRequest(ticket, demands, payload=b"", claimant="another delivery"))
        return withdraw(self, ticket, keys)

    SyncRedisStore.withdraw = claimed


def unreported_deaths() -> None:
    """The pool of processes notices children that end only when it is told to look."""
    AsynPool._event_process_exit = lambda *_: None
    AsynPool.timers = {}


LOSSES = {
    "lose_ask": lose_ask,
    "lose_look": lose_look,
    "lose_end": lose_end,
    "lose_learning": lose_learning,
    "lose_eviction": lose_eviction,
    "lose_withdrawal": lose_withdrawal,
    "claim_before_withdrawal": claim_before_withdrawal,
    "unreported_deaths": unreported_deaths,
}


def break_at(point: str, given: dict[str, Any]) -> None:
    if point in LOSSES:
        LOSSES[point]()
        return
    owner, name, count, after, only = POINTS[point]
    wrap(owner, name, count, after=after, only=only)


def break_connection_on_signal(app: Any) -> None:
    """At SIGUSR2, have the connection to the broker break, as networks do."""

    class BreakableConnection(StartStopStep):
        requires = ("celery.worker.consumer.connection:Connection",)

        def start(self, consumer: Any) -> None:
            def break_it(*_: Any) -> None:
                consumer.connection.connection.transport.sock.shutdown(2)

            signal.signal(signal.SIGUSR2, break_it)

    app.steps["consumer"].add(BreakableConnection)
