"""SAQ's jobs under limits: admitted before an attempt is counted, parked in SAQ's own queue."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from subprocess import Popen
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from saq.job import Status
from saq.queue.redis import RedisQueue

from limiter_core.errors import StoreUnavailable
from limiter_core.requests import Loss
from limiter_saq import LIMIT_BY, ConcurrencyLimit, ConflictResolution
from tests.redis._servers import PATIENCE, Server

from .conftest import SaqSetup, until

ONE = ConcurrencyLimit("user", max_concurrent=1)


def parked(setup: SaqSetup) -> int:
    return setup.server.admin.zcount("saq:default:incomplete", 1, "inf")


def ended(server: Server) -> set[str]:
    lines = server.admin.lrange("log", 0, -1)
    return {line.split()[1] for line in lines if line.startswith("end")}


async def test_one_at_a_time_and_all_of_them(setup: SaqSetup) -> None:
    queue = setup.queue(ONE)
    for number in range(40):
        await queue.enqueue("job", user=1, name=number)
    setup.work(queue)
    await until("all jobs ran", lambda: len(setup.ran) == 40)
    assert setup.most == 1
    assert sorted(setup.ran) == list(range(40))
    await until("nothing is left", lambda: not setup.left())


async def test_a_waiting_job_holds_no_worker_and_spends_no_attempt(setup: SaqSetup) -> None:
    setup.gate.clear()
    queue = setup.queue(ONE)
    setup.work(queue, concurrency=2)
    waiting = [await queue.enqueue("job", user=1, name=number) for number in range(10)]
    free = await queue.enqueue("job", user=2, name="free")
    await until("another user's job runs", lambda: "free" in setup.running)
    assert len(setup.running) == 2
    setup.gate.set()
    await until("all jobs ran", lambda: len(setup.ran) == 11)
    for job in (*waiting, free):
        assert job is not None
        await job.refresh(5.0)
        assert (job.status, job.attempts) == (Status.COMPLETE, 1)


async def test_retries_are_saqs_own(setup: SaqSetup) -> None:
    """A retry is another attempt: it does not meet the slot of the one before."""
    queue = setup.queue(ONE)
    jobs = [await queue.enqueue("job", user=1, name=n, fails=2, retries=3) for n in range(3)]
    setup.work(queue)
    await until("each ran three times", lambda: len(setup.ran) == 9)
    for job in jobs:
        assert job is not None
        await job.refresh(5.0)
        assert (job.status, job.attempts) == (Status.COMPLETE, 3)
    assert setup.most == 1


async def test_several_limits_all_or_none(setup: SaqSetup) -> None:
    everyone = ConcurrencyLimit(LIMIT_BY.constant("crm"), max_concurrent=2)
    queue = setup.queue([ONE, everyone])
    for number in range(20):
        await queue.enqueue("job", user=number % 4, name=number)
    setup.work(queue, concurrency=10)
    await until("all jobs ran", lambda: len(setup.ran) == 20)
    assert setup.most == 2


async def test_a_refused_job_is_aborted(setup: SaqSetup) -> None:
    setup.gate.clear()
    queue = setup.queue(ConcurrencyLimit("user", 1, on_conflict=ConflictResolution.CANCEL))
    setup.work(queue)
    await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: setup.running)
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    await second.refresh(10.0)
    assert second.status is Status.ABORTED
    assert "user=1" in (second.error or "")


async def test_a_job_that_waits_can_be_aborted(setup: SaqSetup) -> None:
    """Its ticket goes with it: the next one is served."""
    setup.gate.clear()
    queue = setup.queue(ONE)
    setup.work(queue)
    await queue.enqueue("job", user=1, name=0)
    await until("the first runs", lambda: setup.running)
    second, third = [await queue.enqueue("job", user=1, name=n) for n in (1, 2)]
    assert second is not None
    assert third is not None
    await until("both wait", lambda: parked(setup) == 2)
    await second.refresh()
    await queue.abort(second, "no longer needed")
    await second.refresh(5.0)
    assert second.status is Status.ABORTED
    setup.gate.set()
    await third.refresh(10.0)
    assert setup.ran == [0, 2]
    await until("nothing is left", lambda: not setup.left())


async def test_the_latest_takes_the_slot(setup: SaqSetup) -> None:
    """CANCEL_RUNNING: the job that runs is aborted in SAQ's way."""
    setup.gate.clear()
    queue = setup.queue(ConcurrencyLimit("user", 1, on_conflict=ConflictResolution.CANCEL_RUNNING))
    setup.work(queue)
    first = await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: setup.running == ["first"])
    await queue.enqueue("job", user=1, name="second")
    await until("the second runs", lambda: setup.running == ["second"])
    assert first is not None
    await first.refresh()
    assert first.status is Status.ABORTED
    assert first.error == f"lost the lease on 'user=1': {Loss.PREEMPTED.value}"


async def test_a_strategy_that_fails_fails_the_job(setup: SaqSetup) -> None:
    def broken(_: Any) -> str:
        raise ZeroDivisionError("no tenant")

    queue = setup.queue(ConcurrencyLimit(LIMIT_BY.fn(broken)))
    setup.work(queue)
    job = await queue.enqueue("job", user=1)
    assert job is not None
    await job.refresh(10.0)
    assert job.status is Status.FAILED
    assert "no tenant" in (job.error or "")


async def test_defaults_count_where_the_function_is_known(setup: SaqSetup) -> None:
    async def job(ctx: Any, *, user: int = 0, name: Any = None) -> None: ...

    job.__qualname__ = "job"
    queue = setup.queue(ONE)
    queue.__init__(queue.redis, limits={job: ONE})  # type: ignore[misc]
    setup.work(queue)
    for number in range(5):
        await queue.enqueue("job", name=number)
    await until("all jobs ran", lambda: len(setup.ran) == 5)
    assert setup.most == 1


async def test_a_killed_worker_is_replaced(
    server: Server, worker_process: Callable[[], Popen[bytes]], setup: SaqSetup
) -> None:
    """Its slot is free when its lease ends; the waiter is woken by the other worker's sweep."""
    queue = setup.queue(ONE)
    server.admin.set("shut", 1)
    one, other = worker_process(), worker_process()
    for number in range(6):
        await queue.enqueue("job", user=1, name=number)
    await until("a job runs", lambda: server.admin.llen("log") == 1)
    # (What a worker had taken and not parked yet comes back by SAQ's own sweep, in a minute.)
    await until("the others wait", lambda: parked(setup) == 5)
    _, running_name, pid = server.admin.lindex("log", 0).split()
    killed = one if one.pid == int(pid) else other
    killed.kill()
    killed.wait(PATIENCE)
    server.admin.delete("shut")
    others = {str(number) for number in range(6)} - {running_name}
    await until("all others ran", lambda: others <= ended(server))
    running = 0
    for line in server.admin.lrange("log", 1, -1):
        running += 1 if line.startswith("begin") else -1
        assert running <= 1


async def test_an_outage_of_the_store_keeps_the_jobs(setup: SaqSetup) -> None:
    queue = setup.queue(ONE, limiter="redis://127.0.0.1:1/0")
    setup.work(queue)
    await queue.enqueue("job", user=1, name="kept")
    await until("it is parked", lambda: parked(setup) == 1)
    assert not setup.ran


def test_saqs_hooks_are_what_they_were() -> None:
    """They are private: a new SAQ must fail here before it fails in production."""
    signatures = {
        "_finish": "(self, job: 'Job', status: 'Status', *, result: 't.Any' = None, "
        "error: 'str | None' = None) -> 'None'",
        "_retry": "(self, job: 'Job', error: 'str | None') -> 'None'",
        "abort": "(self, job: 'Job', error: 'str', ttl: 'float' = 5) -> 'None'",
        "dequeue": "(self, timeout: 'float' = 0.0, poll_interval: 'float' = 0.0) -> 'Job | None'",
        "sweep": "(self, lock: 'int' = 60, abort: 'float' = 5.0) -> 'list[str]'",
    }
    for name, signature in signatures.items():
        assert str(inspect.signature(getattr(RedisQueue, name))) == signature
    assert {"_incomplete", "_queued", "_active"} <= set(vars(RedisQueue(_NoRedis())))
    assert "_cleanup_script(" in inspect.getsource(RedisQueue.sweep)


class _NoRedis:
    """What a queue asks of its client when it is made."""

    def pubsub(self) -> None: ...


# -- what ends otherwise than SAQ notes it --------------------------------------------------------


async def test_a_key_that_is_enqueued_again_at_once_does_not_meet_its_last_run(
    setup: SaqSetup,
) -> None:
    """SAQ reports that a job ended before its slot is released."""
    queue = setup.queue(ONE)
    setup.work(queue)
    gate = queue._open()[0]
    loop = asyncio.get_running_loop()
    release = gate.store.async_face().release

    async def slow(*arguments: Any) -> bool:
        await asyncio.sleep(0.2)
        return await release(*arguments)

    gate._face.release = slow  # type: ignore[method-assign]
    began = loop.time()
    for number in range(3):
        while await queue.enqueue("job", key="nightly", user=1, name=number) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await until("all ran", lambda: setup.ran == [0, 1, 2])
    assert loop.time() - began < 10.0  # not a lease each


async def test_a_hiccup_of_the_queue_fails_no_job(setup: SaqSetup) -> None:
    setup.gate.clear()
    queue = setup.queue(ONE)
    setup.work(queue)
    await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: setup.running)
    evaluate, failures = queue.redis.eval, [RedisConnectionError("reset by peer")]

    async def eval_(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return await evaluate(*arguments)

    queue.redis.eval = eval_
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    await until("the second is parked", lambda: parked(setup) == 1)
    setup.gate.set()
    await second.refresh(10.0)
    assert second.status is Status.COMPLETE


async def test_a_job_aborted_at_the_gate_is_ended(setup: SaqSetup) -> None:
    """It is neither queued nor running then: SAQ leaves its end to the worker that has it."""
    setup.gate.clear()
    queue = setup.queue(ONE)
    setup.work(queue)
    await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: setup.running)
    gate = queue._open()[0]
    at_gate, go_on, admit = asyncio.Event(), asyncio.Event(), gate.admit

    async def slow(*arguments: Any, **options: Any) -> Any:
        outcome = await admit(*arguments, **options)
        at_gate.set()
        await go_on.wait()
        return outcome

    gate.admit = slow  # type: ignore[method-assign]
    second = await queue.enqueue("job", user=1, name="second")
    assert second is not None
    await at_gate.wait()
    await queue.abort(second, "no longer needed")
    go_on.set()
    await second.refresh(5.0)
    assert (second.status, second.error) == (Status.ABORTED, "no longer needed")
    assert 0 < setup.server.admin.ttl(second.id) <= second.ttl
    setup.gate.set()
    await until("nothing is left", lambda: not setup.left())
    assert setup.ran == ["first"]


async def test_a_worker_cut_short_before_the_body_keeps_no_slot(setup: SaqSetup) -> None:
    """SAQ forgets such a job without a word to the queue; its own sweep finds it."""
    queue = setup.queue(ONE)
    cut = [True]

    async def before(_: Any) -> None:
        if cut:
            cut.pop()
            raise asyncio.CancelledError

    worker = setup.work(queue)
    worker.before_process = [before]
    await queue.enqueue("job", user=1, name="cut")
    await until("it was cut short", lambda: not cut)
    await queue.enqueue("job", user=1, name="other")
    await until("another one runs", lambda: "other" in setup.ran)


async def test_a_lost_lease_has_the_job_run_again(setup: SaqSetup) -> None:
    """Nobody wanted it to end: it is no abort."""
    setup.gate.clear()
    queue = setup.queue(ONE)
    setup.work(queue)
    job = await queue.enqueue("job", user=1, name="kept")
    assert job is not None
    await until("it runs", lambda: setup.running)
    ((_, lease),) = queue._leases.values()
    lease._call.lease_lost(Loss.EXPIRED)
    await until("it was stopped", lambda: queue.retried == 1)
    setup.gate.set()
    await job.refresh(10.0)
    assert (job.status, job.attempts) == (Status.COMPLETE, 2)
    assert setup.ran == ["kept"]


async def test_a_retry_has_the_whole_timeout_to_wait(setup: SaqSetup) -> None:
    queue = setup.queue(ConcurrencyLimit("user", max_concurrent=1, timeout=3.0))
    job = await queue.enqueue("job", user=1, name="again", fails=1, retries=2)
    assert job is not None
    job.queued -= 60_000  # it ran for a minute
    setup.server.admin.set(job.id, queue.serialize(job))
    setup.work(queue)
    await until("its first attempt ended", lambda: queue.retried == 1)
    await job.refresh(10.0)
    assert job.status is Status.COMPLETE
    # And behind another one:
    setup.gate.clear()
    await queue.enqueue("job", user=1, name="other")
    await until("the other runs", lambda: setup.running == ["other"])
    late = queue.copy(job)
    late.key, late.attempts, late.status, late.completed = "late", 1, Status.QUEUED, 0
    late.retries = 3
    await queue.retry(late, "as SAQ does")
    await until("it waits", lambda: parked(setup) == 1)
    setup.gate.set()
    await late.refresh(10.0)
    assert late.status is Status.COMPLETE


async def test_two_deliveries_of_a_job_in_one_process_have_a_slot_each(setup: SaqSetup) -> None:
    """SAQ's sweep gives a job that is stuck to a worker again, be it the same."""
    setup.gate.clear()
    queue = setup.queue(ConcurrencyLimit("user", max_concurrent=2))
    setup.work(queue)
    job = await queue.enqueue("job", user=1, name="stuck", retries=5)
    assert job is not None
    await until("it runs", lambda: setup.running)
    swept = await queue.job(job.key)
    assert swept is not None
    await queue.retry(swept, "swept")
    await until("it runs twice", lambda: len(setup.running) == 2)
    setup.gate.set()
    await until("nothing is left", lambda: not setup.left())


async def test_a_store_that_fails_at_the_second_look_changes_nothing(setup: SaqSetup) -> None:
    """The job is parked already: it may have been woken meanwhile, and run elsewhere."""
    setup.gate.clear()
    queue = setup.queue(ONE)
    setup.work(queue)
    await queue.enqueue("job", user=1, name="first")
    await until("the first runs", lambda: setup.running)

    async def away(_: Any) -> bool:
        raise StoreUnavailable("gone")

    queue._open()[0].handed_over = away  # type: ignore[method-assign]
    await queue.enqueue("job", user=1, name="second")
    await until("the second is parked", lambda: parked(setup) == 1)
    await asyncio.sleep(0.1)
    ((_, at),) = setup.server.admin.zrangebyscore(
        "saq:default:incomplete", 1, "inf", withscores=True
    )
    assert at - time.time() > 60
    setup.gate.set()
    await until("both ran", lambda: len(setup.ran) == 2)
