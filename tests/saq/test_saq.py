"""SAQ's jobs under limits: admitted before an attempt is counted, parked in SAQ's own queue."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from subprocess import Popen
from typing import Any

import pytest
from saq.job import Status
from saq.queue.redis import RedisQueue

from limiter_core.requests import Loss
from limiter_saq import LIMIT_BY, ConcurrencyLimit, ConflictResolution
from tests.redis._servers import Server

from .conftest import Shop, until

ONE = ConcurrencyLimit("user", max_concurrent=1)


def parked(shop: Shop) -> int:
    return shop.server.admin.zcount("saq:default:incomplete", 1, "inf")


def ended(server: Server) -> set[str]:
    lines = server.admin.lrange("log", 0, -1)
    return {line.split()[1] for line in lines if line.startswith("end")}


async def test_one_at_a_time_and_all_of_them(shop: Shop) -> None:
    queue = shop.queue(ONE)
    for number in range(40):
        await queue.enqueue("job", user=1, name=number)
    shop.work(queue)
    await until("all jobs ran", lambda: len(shop.ran) == 40)
    assert shop.most == 1
    assert sorted(shop.ran) == list(range(40))
    await until("nothing is left", lambda: not shop.left())


async def test_who_waits_holds_no_worker_and_spends_no_attempt(shop: Shop) -> None:
    shop.gate.clear()
    queue = shop.queue(ONE)
    shop.work(queue, concurrency=2)
    waiting = [await queue.enqueue("job", user=1, name=number) for number in range(10)]
    free = await queue.enqueue("job", user=2, name="free")
    await until("another user's job runs", lambda: "free" in shop.running)
    assert len(shop.running) == 2
    shop.gate.set()
    await until("all jobs ran", lambda: len(shop.ran) == 11)
    for job in (*waiting, free):
        assert job is not None
        await job.refresh(5.0)
        assert (job.status, job.attempts) == (Status.COMPLETE, 1)


async def test_retries_are_saqs_own(shop: Shop) -> None:
    """A retry is another attempt: it does not meet the slot of the one before."""
    queue = shop.queue(ONE)
    jobs = [await queue.enqueue("job", user=1, name=n, fails=2, retries=3) for n in range(3)]
    shop.work(queue)
    await until("each ran three times", lambda: len(shop.ran) == 9)
    for job in jobs:
        assert job is not None
        await job.refresh(5.0)
        assert (job.status, job.attempts) == (Status.COMPLETE, 3)
    assert shop.most == 1


async def test_several_limits_all_or_none(shop: Shop) -> None:
    everyone = ConcurrencyLimit(LIMIT_BY.constant("crm"), max_concurrent=2)
    queue = shop.queue([ONE, everyone])
    for number in range(20):
        await queue.enqueue("job", user=number % 4, name=number)
    shop.work(queue, concurrency=10)
    await until("all jobs ran", lambda: len(shop.ran) == 20)
    assert shop.most == 2


async def test_a_refused_job_is_aborted(shop: Shop) -> None:
    shop.gate.clear()
    queue = shop.queue(ConcurrencyLimit("user", 1, on_conflict=ConflictResolution.CANCEL))
    shop.work(queue)
    await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: shop.running)
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    await second.refresh(10.0)
    assert second.status is Status.ABORTED
    assert "user=1" in (second.error or "")


async def test_a_job_that_waits_can_be_aborted(shop: Shop) -> None:
    """Its ticket goes with it: the next one is served."""
    shop.gate.clear()
    queue = shop.queue(ONE)
    shop.work(queue)
    first, second, third = [await queue.enqueue("job", user=1, name=n) for n in range(3)]
    assert first is not None
    assert second is not None
    assert third is not None
    await until("both wait", lambda: parked(shop) == 2)
    await second.refresh()
    await queue.abort(second, "no longer needed")
    await second.refresh(5.0)
    assert second.status is Status.ABORTED
    shop.gate.set()
    await third.refresh(10.0)
    assert shop.ran == [0, 2]
    await until("nothing is left", lambda: not shop.left())


async def test_the_latest_takes_the_slot(shop: Shop) -> None:
    """CANCEL_RUNNING: the job that runs is aborted in SAQ's way."""
    shop.gate.clear()
    queue = shop.queue(ConcurrencyLimit("user", 1, on_conflict=ConflictResolution.CANCEL_RUNNING))
    shop.work(queue)
    first = await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: shop.running == ["first"])
    await queue.enqueue("job", user=1, name="second")
    await until("the second runs", lambda: shop.running == ["second"])
    assert first is not None
    await first.refresh()
    assert first.status is Status.ABORTED
    assert first.error == Loss.PREEMPTED.value


async def test_a_strategy_that_fails_fails_the_job(shop: Shop) -> None:
    def broken(_: Any) -> str:
        raise ZeroDivisionError("no tenant")

    queue = shop.queue(ConcurrencyLimit(LIMIT_BY.fn(broken)))
    shop.work(queue)
    job = await queue.enqueue("job", user=1)
    assert job is not None
    await job.refresh(10.0)
    assert job.status is Status.FAILED
    assert "no tenant" in (job.error or "")


async def test_defaults_count_where_the_function_is_known(shop: Shop) -> None:
    async def job(ctx: Any, *, user: int = 0, name: Any = None) -> None: ...

    job.__qualname__ = "job"
    queue = shop.queue(ONE)
    queue.__init__(queue.redis, limits={job: ONE})  # type: ignore[misc]
    shop.work(queue)
    for number in range(5):
        await queue.enqueue("job", name=number)
    await until("all jobs ran", lambda: len(shop.ran) == 5)
    assert shop.most == 1


async def test_a_killed_worker_is_replaced(
    server: Server, worker_process: Callable[[], Popen[bytes]], shop: Shop
) -> None:
    """Its slot is free when its lease ends; who waited is woken by the other worker's sweep."""
    queue = shop.queue(ONE)
    server.admin.set("shut", 1)
    one, other = worker_process(), worker_process()
    for number in range(6):
        await queue.enqueue("job", user=1, name=number)
    await until("a job runs", lambda: server.admin.llen("log") == 1)
    # (What a worker had taken and not parked yet comes back by SAQ's own sweep, in a minute.)
    await until("the others wait", lambda: parked(shop) == 5)
    _, running_name, pid = server.admin.lindex("log", 0).split()
    killed = one if one.pid == int(pid) else other
    killed.kill()
    killed.wait()
    server.admin.delete("shut")
    others = {str(number) for number in range(6)} - {running_name}
    await until("all others ran", lambda: others <= ended(server))
    running = 0
    for line in server.admin.lrange("log", 1, -1):
        running += 1 if line.startswith("begin") else -1
        assert running <= 1


async def test_an_outage_of_the_store_keeps_the_jobs(shop: Shop) -> None:
    queue = shop.queue(ONE, limiter="redis://127.0.0.1:1/0")
    shop.work(queue)
    await queue.enqueue("job", user=1, name="kept")
    await until("it is parked", lambda: parked(shop) == 1)
    assert not shop.ran


def test_saqs_hooks_are_what_they_were() -> None:
    """They are private: a new SAQ must fail here before it fails in production."""
    signatures = {
        "_finish": "(self, job: 'Job', status: 'Status', *, result: 't.Any' = None, "
        "error: 'str | None' = None) -> 'None'",
        "_retry": "(self, job: 'Job', error: 'str | None') -> 'None'",
        "abort": "(self, job: 'Job', error: 'str', ttl: 'float' = 5) -> 'None'",
        "dequeue": "(self, timeout: 'float' = 0.0, poll_interval: 'float' = 0.0) -> 'Job | None'",
    }
    for name, signature in signatures.items():
        assert str(inspect.signature(getattr(RedisQueue, name))) == signature
    assert {"_incomplete", "_queued", "_active"} <= set(vars(RedisQueue(_NoRedis())))


class _NoRedis:
    """What a queue asks of its client when it is made."""

    def pubsub(self) -> None: ...


@pytest.mark.parametrize("limits", [ONE, [ONE]])
async def test_a_worker_that_stops_leaves_no_slot_taken(shop: Shop, limits: Any) -> None:
    shop.gate.clear()
    queue = shop.queue(limits)
    worker = shop.work(queue)
    for number in range(20):
        await queue.enqueue("job", user=1, name=number)
    await until("one runs and the others wait", lambda: shop.running and parked(shop) == 19)
    await worker.stop()
    await queue.disconnect()
    shop.gate.set()
    other = shop.queue(limits)
    shop.work(other)
    # What the stopping worker had taken and not begun SAQ brings back by its own sweep.
    await other.redis.delete("saq:default:sweep")
    await other.sweep()
    await until("all jobs ran", lambda: len(set(shop.ran)) == 20)
    assert shop.most == 1
