"""What a lost slot does to a task: preempted or evicted, short or long, in each kind of pool."""

from __future__ import annotations

import pytest
from celery import states

from ._worker_processes import LONG, MakeWorkers, Sent, WorkerProcesses


def begin(shop: WorkerProcesses, task: str, user: str, seconds: float) -> Sent:
    sent = shop.send(task, user, seconds)
    shop.until_began(sent)
    # It starts to with its first slot, and is not notified of what happened before.
    shop.until(lambda: shop.broker.pubsub_channels("*:process:*"), "it listens to the store")
    return sent


def evict(shop: WorkerProcesses, user: str) -> None:
    shop.until(lambda: shop.limiter.inspect(f"user={user}").holders, "it holds its slot")
    (holder,) = shop.limiter.inspect(f"user={user}").holders
    assert shop.limiter.evict(holder.id)


@pytest.mark.parametrize("seconds", [0.8, 30.0])
def test_a_newer_task_has_the_older_terminated_at_once(
    shop: WorkerProcesses, user: str, seconds: float
) -> None:
    if not shop.given["preempting"]:
        pytest.skip("threads cannot be stopped, so such a worker refuses CANCEL_RUNNING")
    older = begin(shop, "cancel_running", user, seconds)
    newer = shop.send("cancel_running", user)
    shop.until_ended(newer)
    shop.until(lambda: older.state == states.REVOKED, "the older is revoked")
    assert not shop.log("end", older.id)
    assert len(shop.log("begin", older.id)) == 1


@pytest.mark.parametrize("seconds", [0.8, 30.0])
def test_an_evicted_task_is_terminated(shop: WorkerProcesses, user: str, seconds: float) -> None:
    if not shop.given["preempting"]:
        pytest.skip("threads cannot be stopped: see below")
    evicted = begin(shop, "by_user", user, seconds)
    evict(shop, user)
    shop.until(lambda: evicted.state == states.REVOKED, "it is revoked")
    after = shop.send("by_user", user)
    shop.until_ended(after)
    assert not shop.log("end", evicted.id)


@pytest.mark.parametrize("pool", ["eventlet", pytest.param("gevent", marks=pytest.mark.slow)])
def test_in_a_greenlet_an_evicted_task_is_stopped(make_workers: MakeWorkers, pool: str) -> None:
    """A thread of the system is notified; the greenlets of the main thread have to act."""
    shop = make_workers(pool=pool, concurrency=2, preempting=True)
    shop.start()
    evicted = begin(shop, "by_user", "eve", LONG)
    evict(shop, "eve")
    shop.until(lambda: evicted.state == states.REVOKED, "it is revoked")
    older = begin(shop, "cancel_running", "eve", LONG)
    newer = shop.send("cancel_running", "eve")
    shop.until_ended(newer)
    shop.until(lambda: older.state == states.REVOKED, "the older is revoked")
    # Also a grant that no end of a task caused.
    shop.limiter.pause("user=eve")
    waits = shop.send("by_user", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    shop.limiter.resume("user=eve")
    shop.until_ended(waits)
    assert [each["id"] for each in shop.log("end")] == [newer.id, waits.id]


def test_in_a_thread_an_evicted_task_goes_on_and_there_is_a_warning(
    make_workers: MakeWorkers,
) -> None:
    shop = make_workers(pool="threads", concurrency=2)
    worker = shop.start()
    evicted = begin(shop, "by_user", "eve", LONG)
    evict(shop, "eve")
    shop.until(
        lambda: "lost its slot of 'user=eve': it was evicted" in worker.output(), "it is warned of"
    )
    after = shop.send("by_user", "eve")
    shop.until_ended(after)
    assert not shop.log("end", evicted.id)
    shop.let_end(evicted)
    assert evicted.get() == evicted.id
    assert len(shop.log("begin", evicted.id)) == 1
