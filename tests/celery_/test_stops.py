"""Bodies that are stopped from outside: time limits, signals, the end of their worker."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ._worker_processes import LONG, MakeWorkers, Sent, WorkerProcesses

ENDLESS = 600.0
"""Seconds of a lease and of a claim that end in no test: a slot that is free was given back."""


@pytest.fixture
def prefork(make_workers: MakeWorkers) -> WorkerProcesses:
    """A worker with children."""
    shop = make_workers(concurrency=3, lease=ENDLESS, limiter={"claim": ENDLESS})
    shop.start()
    return shop


def gap(shop: WorkerProcesses, second: Sent, since: float) -> float:
    """Return how long it took until the second body began."""
    return float(shop.log("begin", second.id)[0]["at"]) - since


@pytest.mark.parametrize("task", ["soft", "hard", "dies"])
def test_time_limits_and_killed_children(prefork: WorkerProcesses, task: str) -> None:
    first, _ = prefork.follow(task, "eve")
    prefork.until_ready(first)
    assert first.state == "FAILURE"


def test_a_child_whose_death_is_not_reported(make_workers: MakeWorkers) -> None:
    """Its pipe closed before the system reported its death: so the worker looks by itself."""
    shop = make_workers(concurrency=3, lease=ENDLESS, limiter={"claim": ENDLESS})
    shop.start(faults="unreported_deaths")
    first, _ = shop.follow("dies", "eve")
    shop.until_ready(first)
    assert first.state == "FAILURE"


@pytest.mark.parametrize("name", ["TERM", "KILL", "USR1"])
def test_a_running_task_that_is_terminated(prefork: WorkerProcesses, name: str) -> None:
    first = prefork.send("by_user", "eve", 30.0)
    prefork.until_began(first)
    second = prefork.send("by_user", "eve")
    prefork.until(lambda: prefork.limiter.inspect("user=eve").waiting == 1, "the next waits")
    first.revoke(terminate=True, signal=f"SIG{name}")
    prefork.until_ended(second)
    prefork.until_ready(first)
    prefork.until(lambda: prefork.limiter.inspect("user=eve").in_use == 0, "the slot is free")


def test_a_task_that_is_rejected_since_its_child_was_killed_runs_again(
    prefork: WorkerProcesses,
) -> None:
    first = prefork.send("late_requeued", "eve", LONG)
    prefork.until_began(first)
    second = prefork.send("late_requeued", "eve", 0.1)
    prefork.until(lambda: prefork.limiter.inspect("user=eve").waiting == 1, "the next waits")
    os.kill(prefork.log("begin", first.id)[0]["pid"], signal.SIGKILL)
    prefork.until(lambda: len(prefork.log("begin", first.id)) == 2, "the first runs again")
    prefork.let_end(first)
    prefork.until_ended(first, second)
    assert [len(prefork.log("begin", each.id)) for each in (first, second)] == [2, 1]
    assert prefork.most_at_once() == 1
    # The same for one that waited, and was granted.
    holder = prefork.send("by_user", "eve", 0.5)
    prefork.until_began(holder)
    third = prefork.send("late_requeued", "eve", LONG)
    prefork.until_began(third)
    os.kill(prefork.log("begin", third.id)[0]["pid"], signal.SIGKILL)
    prefork.let_end(third)
    prefork.until_ended(third)
    assert len(prefork.log("begin", third.id)) == 2


def test_a_child_that_will_not_end_keeps_its_slot(prefork: WorkerProcesses) -> None:
    first = prefork.send("stubborn", "eve", 1.5)
    prefork.until_began(first)
    second = prefork.send("by_user", "eve")
    first.revoke(terminate=True)
    prefork.until_ended(second)
    assert prefork.most_at_once() == 1


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_a_warm_shutdown_hands_on_to_another_worker(make_workers: MakeWorkers, pool: str) -> None:
    shop = make_workers(pool=pool, lease=ENDLESS, limiter={"claim": ENDLESS})
    old = shop.start()
    first = shop.send("by_user", "eve", LONG)
    shop.until_began(first)
    rest = [shop.send("by_user", "eve", 0.1) for _ in range(3)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 3, "three wait")
    shop.start()
    old.signal(signal.SIGTERM)
    shop.until(lambda: "Warm shutdown" in old.output(), "the old one takes no more tasks")
    shop.let_end(first)
    shop.until_ended(first, *rest)
    assert old.wait() == 0
    assert [each["id"] for each in shop.log("begin")] == [each.id for each in (first, *rest)]
    assert shop.most_at_once() == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["by_user", "late"])
def test_a_cold_shutdown_hands_on_to_another_worker(make_workers: MakeWorkers, task: str) -> None:
    shop = make_workers(transport={"visibility_timeout": 5}, limiter={"claim": 5.0})
    old = shop.start()
    first = shop.send(task, "eve", 3.0)
    shop.until_began(first)
    second = shop.send("by_user", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "the next waits")
    old.signal(signal.SIGQUIT)
    old.wait()
    killed_at = time.time()
    shop.start()
    shop.until_ended(second)
    assert gap(shop, second, killed_at) < 15.0
    if task == "late":  # its message was not acknowledged: another worker runs it again
        shop.until_ended(first)
        assert len(shop.log("begin", first.id)) == 2
    else:  # Celery's own promise: a task that is acknowledged early runs once at most
        assert len(shop.log("begin", first.id)) == 1
    assert shop.most_at_once() == 1
