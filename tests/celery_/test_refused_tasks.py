"""Tasks that wait and are not to run are reported, whichever process is killed meanwhile."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from limiter_core import ConcurrencyLimit

from ._worker_processes import MakeWorkers, Sent, WorkerProcesses

FAST = {"visibility_timeout": 3, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}

EVE = {"user": "eve"}

A_MINUTE = 90.0
"""That is how long it takes if a worker is killed while it reports; more on a busy machine."""


def end_waiting(shop: WorkerProcesses, how: str) -> tuple[Sent, str]:
    """Have a task wait, and its waiting end; return it, and the reason to be reported."""
    sent: dict[str, tuple[str, dict[str, Any], str]] = {
        "expires": ("by_user", {"expires": 1.5}, "expired"),
        "timeout": ("impatient", {}, "timed out waiting for 'user=eve': 1 of 1 slots in use"),
        "revoke": ("by_user", {}, "revoked"),
        "evict": ("by_user", {}, "an operator ended the waiting of this call for 'user=eve'"),
        "supersede": ("keep_latest", {}, "a newer call on 'user=eve' took the place of this one"),
    }
    name, options, reason = sent[how]
    task = shop.send(name, "eve", **options)
    if how in ("revoke", "evict", "supersede"):
        shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    if how == "revoke":
        task.revoke()
    elif how == "evict":
        (waiter,) = shop.limiter.inspect("user=eve").waiters
        assert shop.limiter.evict_waiter(waiter.id)
    elif how == "supersede":
        shop.send(name, "eve")
    return task, reason


CASES = [
    *itertools.product(("expires", "timeout", "revoke", "evict", "supersede"), ("ended",)),
    *itertools.product(("expires", "timeout", "revoke"), ("withdrawn",)),
    *itertools.product(("expires", "supersede"), ("reporting", "reported")),
]
SOON = {("expires", "ended"), ("timeout", "ended"), ("revoke", "withdrawn")}
"""What is tried each time, since it is quick."""


@pytest.mark.parametrize(
    ("how", "point"),
    [pytest.param(*case, marks=() if case in SOON else pytest.mark.slow) for case in CASES],
)
def test_a_worker_is_killed_that_ends_the_waiting_of_a_task(
    make_workers: MakeWorkers, how: str, point: str
) -> None:
    """Another one reports it, and it does not run."""
    shop = make_workers(transport=FAST, limiter={"claim": 2.0})
    lease = shop.limiter.acquire(ConcurrencyLimit("user"), EVE)
    broken = shop.start(faults=point)
    task, reason = end_waiting(shop, how)
    assert broken.wait() == -signal.SIGKILL
    shop.start()
    shop.until(task.ready, "it is reported", A_MINUTE)
    assert task.state == "REVOKED"
    with pytest.raises(TaskRevokedError) as error:
        task.get()
    assert str(error.value) == reason
    lease.release()
    shop.until(lambda: not shop.refusals(), "the store has nothing to tell", A_MINUTE)
    others = shop.send("by_user", "eve")
    shop.until_ended(others)
    assert not shop.began(task)
    # It may be reported twice, as the same.
    assert set(shop.revoked()) == {(task.id, how == "expires")}
    assert shop.limiter.inspect("user=eve").waiting == 0
