"""A new release of the program, in which a task has other limits, comes while tasks wait."""

from __future__ import annotations

import json
import signal

import pytest
import redis

from limiter_core import ConcurrencyLimit
from limiter_core.lease import SyncLease
from limiter_redis import RedisStore

from ._worker_processes import LONG, MakeWorkers, Sent, WorkerProcesses

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("form", "runs", "dies"),
    [
        ("unlimited", 1, False),
        ("other_key", 1, False),  # the worker that ends passes them on by the broker
        ("other_key", 1, True),  # the new one starts them itself
        pytest.param("gone", 0, True, marks=pytest.mark.slow),
    ],
)
def test_tasks_wait_while_their_limits_change(
    make_workers: MakeWorkers, form: str, runs: int, dies: bool
) -> None:
    """Each runs once, and the old keys are free: they were offered again and again, and ran again.

    A task that the new release does not have fails, as in Celery.
    """
    shop = make_workers(limiter={"claim": 4.0})
    old = shop.start()
    first = shop.send("changing", "eve", LONG)
    shop.until_began(first)
    rest = [shop.send("changing", "eve") for _ in range(3)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 3, "they wait")
    other = shop.send("by_user", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 4, "the other one waits")
    if dies:
        old.kill()
        shop.limiter.evict(shop.limiter.inspect("user=eve").holders[0].id)
        shop.start(changing=form)
    else:
        shop.start(changing=form)
        old.signal(signal.SIGTERM)
        shop.let_end(first)
    shop.until_ready(*rest, other)
    for key in ("user=eve", "new/user=eve"):
        shop.until(lambda key=key: shop.limiter.inspect(key).in_use == 0, f"{key} is free")
        assert shop.limiter.inspect(key).waiting == 0
    assert [len(shop.log("begin", each.id)) for each in rest] == [runs] * 3
    assert {each.state for each in rest} == {"SUCCESS" if runs else "FAILURE"}
    assert len(shop.log("begin", other.id)) == 1


def wait_in_line(shop: WorkerProcesses, form: str = "limited") -> tuple[SyncLease, Sent]:
    """Have a task wait that a worker parked, which is gone by then."""
    lease = shop.limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
    old = shop.start(changing=form)
    task = shop.send("changing", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    shop.until(lambda: shop.broker.hlen("unacked") == 0, "the ticket alone has its message")
    old.kill()
    return lease, task


def evict(shop: WorkerProcesses) -> None:
    """Have the task that waits refused; the workers are notified."""
    store = RedisStore(shop.given["url"] + "/2")
    (waiter,) = store.sync_face().inspect("user=eve").waiters
    assert store.sync_face().evict_waiter(waiter.id)
    store.close()


def until_no_refusal_is_left(shop: WorkerProcesses) -> None:
    store = redis.Redis.from_url(shop.given["url"] + "/2")
    shop.until(lambda: not store.exists("{limiter}:refusals"), "no worker is notified of it")
    store.close()


def assert_revoked(shop: WorkerProcesses, task: Sent) -> None:
    """Assert that a task is REVOKED, never runs, and leaves nothing behind."""
    shop.until_ready(task)
    assert task.state == "REVOKED"
    shop.until(lambda: shop.broker.hlen("unacked") == 0, "its message is acknowledged")
    until_no_refusal_is_left(shop)
    free = shop.send("free")
    shop.until_ended(free)
    assert not shop.began(task)
    assert shop.limiter.inspect("user=eve").waiting == 0
    assert shop.revoked() == [(task.id, False)]


@pytest.mark.parametrize("form", ["unlimited", "other_key"])
@pytest.mark.parametrize("why", ["evicted", "superseded"])
def test_a_task_that_is_refused_does_not_run_where_its_limits_are_other_ones(
    make_workers: MakeWorkers, form: str, why: str
) -> None:
    shop = make_workers()
    lease, task = wait_in_line(shop, "latest")
    shop.start(changing=form)
    if why == "evicted":
        evict(shop)
        lease.release()
    else:
        later = shop.send("keep_latest", "eve")
        shop.until_ready(task)
        lease.release()
        shop.until_ended(later)
    assert_revoked(shop, task)


@pytest.mark.parametrize("form", ["unlimited", "limited", "other_key"])
def test_a_refused_task_is_reported_by_a_worker_that_has_it(
    make_workers: MakeWorkers, form: str
) -> None:
    """The worker that is notified does not have the task: it publishes the message for others."""
    shop = make_workers()
    lease, task = wait_in_line(shop)
    notified = shop.start(changing="gone", options=["-Q", "others"])
    evict(shop)
    shop.until(lambda: shop.broker.llen("celery.granted") == 1, "its message is published")
    until_no_refusal_is_left(shop)
    notified.kill()
    lease.release()
    shop.start(changing=form)
    assert_revoked(shop, task)


def redelivered(message: str) -> str:
    """Return a message as the Redis transport has it that a worker took, and did not end."""
    read = json.loads(message)
    read["headers"]["redelivered"] = read["properties"]["delivery_info"]["redelivered"] = True
    return json.dumps(read)


def offers(shop: WorkerProcesses, number: int) -> list[str]:
    """Return the messages of a task that is offered its slot again and again; they are gone."""
    lease, _ = wait_in_line(shop)
    wakes = shop.start(options=["-Q", "others"])
    lease.release()
    granted = "celery.granted"
    shop.until(lambda: shop.broker.llen(granted) >= number, "it was offered its slot so often")
    wakes.kill()
    messages: list[str] = shop.broker.lrange(granted, -number, -1)
    shop.broker.delete(granted)
    return messages


def until_idle(shop: WorkerProcesses) -> None:
    """Wait until the last worker has run all that it takes from its queues."""
    worker = f"w{len(shop.workers) - 1}"
    free = shop.send("free")
    shop.until_ended(free)
    shop.until(lambda: not shop.broker.exists("celery.granted", "unacked"), "all are acknowledged")
    # A body may begin a moment after that.
    shop.until(lambda: shop.ask(worker, "active") == [], "no body runs")


@pytest.mark.parametrize("again", [True, False])
def test_one_of_the_messages_of_a_task_that_has_no_limits_any_more_runs(
    make_workers: MakeWorkers, again: bool
) -> None:
    """Also if a worker took all of them, and died."""
    shop = make_workers(limiter={"claim": 1.0})
    messages = offers(shop, 2)
    shop.broker.lpush("celery.granted", *(map(redelivered, messages) if again else messages))
    shop.start(changing="unlimited")
    until_idle(shop)
    assert len(shop.log("begin")) == 2, "one of them, and the other task"


def test_a_message_that_is_there_twice_runs_once(make_workers: MakeWorkers) -> None:
    """A broker may have it twice if it did not say that it got it: it is sent to it again."""
    shop = make_workers(limiter={"claim": 30.0})
    (message,) = offers(shop, 1)
    shop.broker.lpush("celery.granted", message, message)
    shop.start(changing="unlimited")
    until_idle(shop)
    assert len(shop.log("begin")) == 2, "one of them, and the other task"


def granted_once(shop: WorkerProcesses) -> tuple[str, str]:
    """Return the only message of a task that was granted its slot, and the task's id."""
    (message,) = offers(shop, 1)
    task_id: str = json.loads(message)["headers"]["id"]
    # Without it, no worker that comes is notified of the grant, and publishes another message.
    store = RedisStore(shop.given["url"] + "/2")
    assert store.sync_face().withdraw(f"{task_id}:0:0", ["user=eve"])
    store.close()
    return message, task_id


def test_a_message_whose_worker_died_while_it_ran_runs_again(make_workers: MakeWorkers) -> None:
    shop = make_workers(limiter={"claim": 30.0})
    message, task_id = granted_once(shop)
    shop.broker.lpush("celery.granted", message)
    shop.start(changing="unlimited")
    until_idle(shop)
    shop.broker.lpush("celery.granted", redelivered(message))
    until_idle(shop)
    assert len(shop.log("begin", task_id)) == 2


def test_a_message_that_a_worker_without_limits_did_not_begin_runs_where_there_are_limits(
    make_workers: MakeWorkers,
) -> None:
    """That worker ended before it had a free process for it."""
    shop = make_workers(limiter={"claim": 30.0}, concurrency=1)
    message, task_id = granted_once(shop)
    unlimited = shop.start(changing="unlimited")
    other = shop.send("free", LONG)
    shop.until_began(other)
    shop.broker.lpush("celery.granted", message)
    shop.until(lambda: f"{task_id}] received" in unlimited.output(), "the message is taken")
    unlimited.kill()
    shop.broker.delete("unacked", "unacked_index")
    shop.broker.lpush("celery.granted", redelivered(message))
    shop.start()
    until_idle(shop)
    assert len(shop.log("begin", task_id)) == 1
    shop.broker.lpush("celery.granted", redelivered(message))
    until_idle(shop)
    assert len(shop.log("begin", task_id)) == 1, "a copy that comes late does not run"


def test_a_task_whose_worker_without_limits_is_killed_runs_again_where_there_are_limits(
    make_workers: MakeWorkers,
) -> None:
    """Its message is acknowledged at its end. It may have to wait for its slot once more."""
    shop = make_workers(limiter={"claim": 30.0}, conf={"task_acks_late": True})
    message, task_id = granted_once(shop)
    shop.broker.lpush("celery.granted", message)
    unlimited = shop.start(changing="unlimited")
    until_idle(shop)
    unlimited.kill()
    lease = shop.limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
    shop.broker.lpush("celery.granted", redelivered(message))  # as if it was killed before the end
    shop.start()
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    lease.release()
    shop.until(lambda: len(shop.log("end", task_id)) == 2, "it ran again")
    until_idle(shop)
    assert len(shop.log("begin", task_id)) == 2


@pytest.mark.parametrize("end", ["ran", "refused"])
def test_a_message_of_a_task_that_has_ended_does_not_run(
    make_workers: MakeWorkers, end: str
) -> None:
    """Also if a worker took it before, and died; and whatever limits the task has by now."""
    shop = make_workers(limiter={"claim": 1.0})
    first, second = offers(shop, 2)
    if end == "ran":
        shop.broker.lpush("celery.granted", first)
    else:
        lease = shop.limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
        evict(shop)
        lease.release()
    limited = shop.start()
    until_idle(shop)
    if end == "refused":
        shop.until(shop.revoked, "it is REVOKED")
    limited.kill()
    shop.broker.lpush("celery.granted", redelivered(second))
    shop.start(changing="unlimited")
    until_idle(shop)
    assert len(shop.log("begin")) == (3 if end == "ran" else 2)


def test_a_task_without_limits_leaves_the_line_by_each_of_its_messages(
    make_workers: MakeWorkers,
) -> None:
    """A worker dies when it has taken the one that runs, before it has dropped the ticket."""
    shop = make_workers(limiter={"claim": 1.0})
    first, second = offers(shop, 2)
    shop.broker.lpush("celery.granted", first)
    broken = shop.start(ready=False, changing="unlimited", faults="left")
    assert broken.wait() == -signal.SIGKILL
    shop.broker.delete("unacked", "unacked_index", "celery.granted")
    ran = len(shop.log("begin"))
    shop.broker.lpush("celery.granted", second)
    shop.start(changing="unlimited")
    until_idle(shop)
    assert len(shop.log("begin")) == ran + 1, "the other task"
    key = shop.limiter.inspect("user=eve")
    assert (key.in_use, key.waiting, key.dormant) == (0, 0, ())


def test_a_task_whose_slot_another_delivery_claims_meanwhile_does_not_begin_on_its_new_key(
    make_workers: MakeWorkers,
) -> None:
    """Between the look at its old key and its leaving there."""
    shop = make_workers(limiter={"claim": 30.0})
    (message,) = offers(shop, 1)
    shop.start(changing="other_key", faults="claim_before_withdrawal")
    shop.broker.lpush("celery.granted", message)
    until_idle(shop)
    assert len(shop.log("begin")) == 1, "the other task"
    assert [each.claimed for each in shop.limiter.inspect("user=eve").holders] == [True]
    new = shop.limiter.inspect("new/user=eve")
    assert (new.in_use, new.waiting) == (0, 0)


@pytest.mark.parametrize("form", ["limited", "other_key"])
def test_a_task_that_was_refused_after_its_grant_does_not_run(
    make_workers: MakeWorkers, form: str
) -> None:
    """Its message meets the refusal, on the key that it waited on; no worker was notified of it."""
    shop = make_workers(limiter={"claim": 1.0})
    (message,) = offers(shop, 1)
    lease = shop.limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
    evict(shop)
    lease.release()
    shop.broker.lpush("celery.granted", message)
    shop.start(changing=form)
    until_idle(shop)
    shop.until(shop.revoked, "it is REVOKED")
    until_no_refusal_is_left(shop)
    assert len(shop.log("begin")) == 1, "the other task"
    assert {each for each, _ in shop.revoked()} == {json.loads(message)["headers"]["id"]}
    for key in ("user=eve", "new/user=eve"):
        assert (shop.limiter.inspect(key).in_use, shop.limiter.inspect(key).waiting) == (0, 0)
