"""Workers with more tasks than processes."""

from __future__ import annotations

import time

import pytest

from ._worker_processes import LONG, MakeWorkers


@pytest.mark.parametrize("claim", [30.0, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", ["late", pytest.param("by_user", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_a_task_that_was_woken_while_the_pool_is_busy_runs_once(
    make_workers: MakeWorkers, pool: str, task: str, claim: float
) -> None:
    shop = make_workers(pool=pool, concurrency=2, limiter={"claim": claim})
    shop.start()
    holder = shop.send(task, "eve", LONG)
    shop.until_began(holder)
    waiters = [shop.send(task, "eve", 0.1) for _ in range(3)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 3, "three wait")
    free = [shop.send("free", 1.5) for _ in range(4)]
    shop.let_end(holder)
    shop.until_ended(holder, *waiters, *free)
    limited = [each for each in shop.log("begin") if each.get("user") == "eve"]
    ids = [each["id"] for each in limited]
    assert sorted(ids) == sorted(each.id for each in (holder, *waiters))
    assert shop.most([(b, e) for b, e, i in shop.spans_by_id() if i in ids]) == 1
    if claim > 1.0:  # else a slot is passed on meanwhile, and the next in line overtakes
        assert ids == [each.id for each in (holder, *waiters)]


def test_a_busy_worker_passes_on_what_it_cannot_begin(make_workers: MakeWorkers) -> None:
    shop = make_workers(concurrency=1, limiter={"claim": 1.0})
    shop.start()
    lease = shop.limiter.acquire(shop.task("late").limits[0], {"user": "eve"})
    waiter = shop.send("late", "eve", 0.1)
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    busy = shop.send("free", LONG)
    shop.until_began(busy)
    lease.release()
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 1, "its turn has come")
    shop.start()  # a worker that is free
    shop.until_ended(waiter)
    assert not shop.log("end", busy.id)
    assert len(shop.log("begin", waiter.id)) == 1


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_a_slot_that_is_lost_before_the_task_began_is_asked_for_again(
    make_workers: MakeWorkers, pool: str
) -> None:
    """Its body never ran: it is not terminated, as one would be that runs without its slot."""
    shop = make_workers(pool=pool, concurrency=1, lease=1.0)
    shop.start()
    lease = shop.limiter.acquire(shop.task("late").limits[0], {"user": "eve"})
    waiter = shop.send("late", "eve", 0.1)
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    busy = shop.send("free", LONG)
    shop.until_began(busy)
    lease.release()
    shop.until(
        lambda: any(each.claimed for each in shop.limiter.inspect("user=eve").holders),
        "it has its slot, and waits for a process",
    )
    shop.limiter.evict(shop.limiter.inspect("user=eve").holders[0].id)
    shop.until(lambda: "lost its slot" in shop.workers[0].output(), "the worker was notified")
    assert not shop.log("end", busy.id)
    shop.let_end(busy)
    shop.until_ended(waiter)
    shop.until_ready(waiter)
    assert waiter.state == "SUCCESS"
    assert len(shop.log("begin", waiter.id)) == 1


def test_a_thread_is_asked_for_before_a_slot(make_workers: MakeWorkers) -> None:
    """A task that waits for a thread holds no slot that another worker could use."""
    shop = make_workers(pool="threads", concurrency=1)
    shop.start()
    busy = shop.send("free", LONG)
    shop.until_began(busy)
    here = shop.send("by_user", "eve", 0.1)
    shop.until(lambda: shop.broker.llen("celery") == 0, "the busy worker has it")
    assert shop.limiter.inspect("user=eve").in_use == 0
    shop.start()
    more = [shop.send("by_user", "eve", 0.1) for _ in range(8)]  # of which the other gets some
    shop.until(lambda: any(map(shop.began, more)), "another worker has the slot")
    assert not shop.log("end", busy.id)
    assert not shop.began(here)


def test_a_backlog_of_other_tasks_does_not_delay_the_next(make_workers: MakeWorkers) -> None:
    shop = make_workers(concurrency=2)
    shop.start()
    lease = shop.limiter.acquire(shop.task("by_user").limits[0], {"user": "eve"})
    tasks = [shop.send("by_user", "eve", 0.1) for _ in range(5)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 5, "five wait")
    backlog = [shop.send("free", 0.1) for _ in range(100)]
    shop.until(lambda: shop.began(backlog[0]), "the backlog has begun")
    lease.release()
    shop.until_ended(*tasks)
    ended = {each["id"] for each in shop.log("end")}
    assert len(ended & {each.id for each in backlog}) < 80


def test_a_broker_that_goes_by_the_order_of_queues_does_not_hold_the_next_up(
    make_workers: MakeWorkers,
) -> None:
    """As Celery's guide recommends for priorities with Redis. (`late` goes through the broker.)"""
    in_order = {"queue_order_strategy": "priority"}
    shop = make_workers(concurrency=1, transport=in_order, limiter={"claim": 60.0})
    shop.start()
    lease = shop.limiter.acquire(shop.task("late").limits[0], {"user": "eve"})
    waits = shop.send("late", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    backlog = [shop.send("free", 0.05) for _ in range(100)]
    shop.until(lambda: shop.began(backlog[0]), "the backlog has begun")
    lease.release()
    shop.until_ended(waits)
    assert len(shop.log("end")) < 80


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_a_thousand_that_wait_and_one_that_need_not(make_workers: MakeWorkers, pool: str) -> None:
    shop = make_workers(pool=pool, concurrency=2)
    lease = shop.limiter.acquire(shop.task("by_user").limits[0], {"user": "eve"})
    for _ in range(1000):
        shop.send("by_user", "eve")
    shop.start()
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1000, "all wait", 120.0)
    shop.until_some_begins_at_once()  # though no slot has become free
    assert shop.broker.hlen("unacked") <= 1
    lease.release()


@pytest.mark.parametrize(
    "pool",
    ["gevent", *(pytest.param(each, marks=pytest.mark.slow) for each in ("prefork", "threads"))],
)
def test_a_long_body_keeps_its_slot(make_workers: MakeWorkers, pool: str) -> None:
    """It computes, without a pause in which another greenlet could renew its lease."""
    # It computes for two leases. The thread that renews gets its turn beside it several times in
    # each; of a lease of one second, a busy machine may take all of them.
    shop = make_workers(pool=pool, lease=2.0)
    shop.start()
    first = shop.send("busy", "eve", 4.0)
    shop.until_began(first)
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 1, "it took its slot")
    token = shop.limiter.inspect("user=eve").holders[0].fencing_token
    while not shop.log("end", first.id):
        now = shop.limiter.inspect("user=eve").holders
        assert [each.fencing_token for each in now] == [token] or shop.log("end", first.id)
        time.sleep(0.05)
    second = shop.send("busy", "eve", 0.1)
    shop.until_ended(second)


@pytest.mark.slow
def test_a_woken_body_in_green_threads_keeps_its_slot(make_workers: MakeWorkers) -> None:
    shop = make_workers(pool="gevent", lease=1.0)
    shop.start()
    first = shop.send("by_user", "eve", 0.5)
    shop.until_began(first)
    second = shop.send("busy", "eve", 3.0)
    third = shop.send("by_user", "eve", 0.1)
    shop.until_ended(first, second, third)
    assert shop.most_at_once() == 1
    assert "lost its slot" not in shop.workers[0].output()


def test_a_slot_that_no_worker_freed_is_given_once(
    make_workers: MakeWorkers,
) -> None:
    """All workers are notified of it: the process that frees it is no worker."""
    shop = make_workers(limiter={"claim": 20.0})
    shop.start()
    shop.start()
    users = [f"eve{n}" for n in range(8)]
    for user in users:
        shop.limiter.pause(f"user={user}")
    tasks = [shop.send("by_user", user, 0.3) for user in users]
    shop.until(
        lambda: all(shop.limiter.inspect(f"user={user}").waiting for user in users), "all wait"
    )
    for user in users:
        shop.limiter.resume(f"user={user}")
    shop.until_ended(*tasks)
    time.sleep(1.0)  # for copies
    assert [len(shop.log("begin", each.id)) for each in tasks] == [1] * 8


def test_a_task_whose_turn_has_come_does_not_wait_for_its_rate_again(
    make_workers: MakeWorkers,
) -> None:
    """Behind the others it came too late for its slot, again and again, and none ran."""
    shop = make_workers(
        limiter={"claim": 0.5}, conf={"task_annotations": {"late": {"rate_limit": "60/m"}}}
    )
    shop.start()
    first = shop.send("late", "eve", LONG)
    shop.until_began(first)
    rest = [shop.send("late", "eve") for _ in range(6)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "the second waits")
    shop.let_end(first)
    shop.until_ended(first, *rest)
    assert [each["id"] for each in shop.log("begin")] == [each.id for each in (first, *rest)]
