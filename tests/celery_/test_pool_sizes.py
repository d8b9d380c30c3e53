"""A pool whose children are replaced, added and removed while tasks wait, and a soft shutdown."""

from __future__ import annotations

import itertools
import signal
import statistics

import pytest

from ._worker_processes import LONG, MakeWorkers, Sent, WorkerProcesses

ENDLESS = 600.0
"""Seconds of a lease and of a claim that end in no test: a slot that is free was given back."""


def begin_waiting(
    shop: WorkerProcesses, count: int, seconds: float = 0.0, task: str = "by_user"
) -> tuple[Sent, list[Sent]]:
    """Send a task that runs until it is told to end, and others that wait for its slot."""
    first = shop.send(task, "eve", LONG)
    shop.until_began(first)
    rest = [shop.send(task, "eve", seconds) for _ in range(count)]
    if shop.given["pool"] == "prefork":  # with threads, those that have no thread ask for no slot
        shop.until(lambda: shop.limiter.inspect("user=eve").waiting == count, "they wait")
    return first, rest


def assert_each_ran_once(shop: WorkerProcesses, *tasks: Sent) -> None:
    shop.until_ended(*tasks)
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")
    assert [each["id"] for each in shop.log("begin")] == [each.id for each in tasks]
    assert shop.most_at_once() == 1


def test_children_that_run_one_task_each(make_workers: MakeWorkers) -> None:
    """A task is given to a child that is about to end; Celery itself looks after five seconds."""
    shop = make_workers(
        lease=ENDLESS, limiter={"claim": ENDLESS}, options=["--max-tasks-per-child=1"]
    )
    shop.start()
    first, rest = begin_waiting(shop, 4)
    shop.let_end(first)
    assert_each_ran_once(shop, first, *rest)
    spans = sorted(shop.spans())
    pauses = [begin - end for (_, end), (begin, _) in itertools.pairwise(spans)]
    assert statistics.median(pauses) < 3.0, pauses


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_pool_that_grows_and_shrinks_while_tasks_wait(
    make_workers: MakeWorkers, pool: str
) -> None:
    shop = make_workers(pool=pool, lease=ENDLESS, limiter={"claim": ENDLESS})
    shop.start()
    for command in ("pool_grow", "pool_shrink"):
        first, rest = begin_waiting(shop, 4 if pool == "prefork" else 1)
        shop.ask("w0", command, n=1)
        shop.let_end(first)
        shop.until_ended(first, *rest)
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")
    assert shop.most_at_once() == 1


@pytest.mark.slow
def test_an_autoscaled_pool(make_workers: MakeWorkers) -> None:
    shop = make_workers(
        concurrency=2,
        lease=ENDLESS,
        limiter={"claim": ENDLESS},
        options=["--autoscale=4,2"],
    )
    shop.start()
    first, rest = begin_waiting(shop, 4, 0.3)
    busy = [shop.send("free", 0.5) for _ in range(12)]
    shop.let_end(first)
    shop.until_ended(first, *rest, *busy)
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")


@pytest.mark.parametrize("task", ["by_user", pytest.param("late", marks=pytest.mark.slow)])
def test_a_soft_shutdown_hands_on_to_another_worker(make_workers: MakeWorkers, task: str) -> None:
    """Celery's main process sleeps meanwhile: a body that ends releases its slot after that."""
    shop = make_workers(
        lease=ENDLESS,
        limiter={"claim": ENDLESS},
        conf={"worker_soft_shutdown_timeout": 2.0},
    )
    old = shop.start()
    first, rest = begin_waiting(shop, 3, task=task)
    shop.start()
    old.signal(signal.SIGQUIT)
    shop.until(lambda: "Initiating Soft Shutdown" in old.output(), "the old one is to end")
    shop.let_end(first)
    old.wait()
    assert_each_ran_once(shop, first, *rest)


@pytest.mark.slow
def test_tasks_wait_though_their_worker_takes_no_more_of_their_queue(
    make_workers: MakeWorkers,
) -> None:
    shop = make_workers(lease=ENDLESS, limiter={"claim": 5.0})
    shop.start()
    first, rest = begin_waiting(shop, 3)
    assert "no longer" in shop.ask("w0", "cancel_consumer", queue="celery")["ok"]
    shop.let_end(first)
    shop.until_ended(first)
    shop.start()
    assert_each_ran_once(shop, first, *rest)
