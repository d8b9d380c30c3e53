"""RabbitMQ as broker, where it is installed."""

from __future__ import annotations

import signal
import time

import pytest

from limiter_core import ConcurrencyLimit
from limiter_redis import RedisStore

from ._rabbitmq_server import RabbitMQServer
from ._worker_processes import LONG, MakeWorkers

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]


@pytest.fixture
def rabbit(rabbit_server: RabbitMQServer | None) -> RabbitMQServer:
    """The broker, empty."""
    if rabbit_server is None:
        pytest.skip("there is no rabbitmq-server")
    rabbit_server.empty()
    return rabbit_server


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_tasks_wait_and_run_in_order(
    make_workers: MakeWorkers, rabbit: RabbitMQServer, pool: str
) -> None:
    shop = make_workers(broker=rabbit.url, pool=pool, concurrency=2)
    shop.start()
    tasks = [shop.send(task, "eve", 0.05) for task in ("by_user", "late") * 5]
    shop.until_ended(*tasks)
    assert shop.most_at_once() == 1
    begun = [each["id"] for each in shop.log("begin")]
    assert sorted(begun) == sorted(each.id for each in tasks)


def test_a_worker_that_is_killed_loses_no_task(
    make_workers: MakeWorkers, rabbit: RabbitMQServer
) -> None:
    """RabbitMQ delivers again at once; so the first copies meet a lease that still lives."""
    shop = make_workers(broker=rabbit.url, lease=2.0, limiter={"claim": 2.0})
    old = shop.start()
    first = shop.send("late", "eve", LONG)
    shop.until_began(first)
    rest = [shop.send("late", "eve", 0.1) for _ in range(4)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 4, "four wait")
    old.kill()
    shop.let_end(first)
    shop.start()
    shop.until_ended(*rest)
    shop.until(lambda: len(shop.log("begin", first.id)) == 2, "the first runs again")
    assert all(len(shop.log("begin", each.id)) == 1 for each in rest)


@pytest.mark.slow
def test_the_connection_breaks_while_a_task_runs(
    make_workers: MakeWorkers, rabbit: RabbitMQServer
) -> None:
    """Its message comes a second time, meets the lease, and is dropped when the body is over."""
    shop = make_workers(broker=rabbit.url, concurrency=2, lease=3.0)
    worker = shop.start()
    first = shop.send("late", "eve", 4.0)
    shop.until_began(first)
    worker.signal(signal.SIGUSR2)  # has it close its connection
    shop.until(lambda: "Connection to broker lost" in worker.output(), "the connection broke")
    second = shop.send("by_user", "eve", 0.1)
    shop.until_ended(first, second)
    time.sleep(3.0)  # for the copy
    assert len(shop.log("begin", first.id)) == 1
    assert shop.most_at_once() == 1


QUEUES = {
    "classic": {},
    "quorum": {"x-queue-type": "quorum"},
    "with priorities": {"x-max-priority": 10},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUEUES)
def test_all_connections_are_closed_while_tasks_wait(
    make_workers: MakeWorkers, rabbit: RabbitMQServer, kind: str
) -> None:
    """Of both workers; some tasks wait for the slot, others for their countdown."""
    name = kind.replace(" ", "-")
    queue = {"name": name, "exchange": name, "kind": "direct", "keys": [name]}
    shop = make_workers(
        broker=rabbit.url,
        queues=[{**queue, "queue_arguments": QUEUES[kind]}],
        lease=4.0,
        limiter={"claim": 2.0},
    )
    shop.start()
    shop.start()
    first = shop.send("late", "eve", LONG, queue=name)
    shop.until_began(first)
    given: list[dict[str, int]] = [{}, {"countdown": 3}, {"priority": 5}, {"priority": 1}, {}]
    rest = [
        shop.send(task, "eve", 0.1, queue=name, **options)
        for task in ("by_user", "late")
        for options in given
    ]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting >= 6, "those without countdown")
    rabbit.close_connections()
    for worker in shop.workers:
        shop.until(lambda w=worker: "broker lost" in w.output(), "it lost its connection")
    shop.let_end(first)
    shop.until_ended(first, *rest)
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")
    begun = [each["id"] for each in shop.log("begin")]
    assert sorted(begun) == sorted(each.id for each in (first, *rest))
    assert shop.most_at_once() == 1


@pytest.mark.parametrize("form", ["unlimited", "other_key"])
def test_tasks_wait_while_their_limits_change(
    make_workers: MakeWorkers, rabbit: RabbitMQServer, form: str
) -> None:
    """Each comes by the broker, with the key on which it was granted."""
    shop = make_workers(broker=rabbit.url, limiter={"claim": 4.0})
    old = shop.start()
    first = shop.send("changing", "eve", LONG)
    shop.until_began(first)
    rest = [shop.send("changing", "eve") for _ in range(3)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 3, "they wait")
    shop.start(changing=form)
    old.signal(signal.SIGTERM)
    shop.let_end(first)
    shop.until_ended(*rest)
    for key in ("user=eve", "new/user=eve"):
        shop.until(lambda key=key: shop.limiter.inspect(key).in_use == 0, f"{key} is free")
        assert shop.limiter.inspect(key).waiting == 0
    assert [len(shop.log("begin", each.id)) for each in rest] == [1] * 3


@pytest.mark.parametrize("form", ["unlimited", "limited"])
def test_a_refused_task_is_reported_by_a_worker_that_has_it(
    make_workers: MakeWorkers, rabbit: RabbitMQServer, form: str
) -> None:
    """The worker that is notified does not have the task: it publishes the message for others."""
    shop = make_workers(broker=rabbit.url)
    old = shop.start()
    lease = shop.limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
    task = shop.send("changing", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    old.signal(signal.SIGTERM)
    assert old.wait() == 0
    notified = shop.start(changing="gone", options=["-Q", "others"])
    store = RedisStore(shop.given["url"] + "/2")
    (waiter,) = store.sync_face().inspect("user=eve").waiters
    assert store.sync_face().evict_waiter(waiter.id)
    store.close()
    shop.until(lambda: rabbit.count("celery.granted") == 1, "its message is published")
    notified.kill()
    lease.release()
    shop.start(changing=form)
    shop.until_ready(task)
    assert task.state == "REVOKED"
    assert not shop.began(task)
    shop.until(lambda: rabbit.count("celery.granted") == 0, "its message is acknowledged")


def test_one_of_the_messages_of_a_task_that_has_no_limits_any_more_runs(
    make_workers: MakeWorkers, rabbit: RabbitMQServer
) -> None:
    shop = make_workers(broker=rabbit.url, limiter={"claim": 1.0})
    lease = shop.limiter.acquire(ConcurrencyLimit("user"), {"user": "eve"})
    old = shop.start()
    task = shop.send("changing", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    old.signal(signal.SIGTERM)
    assert old.wait() == 0
    wakes = shop.start(options=["-Q", "others"])
    lease.release()
    shop.until(lambda: rabbit.count("celery.granted") >= 2, "it was offered its slot twice")
    wakes.kill()
    worker = shop.start(changing="unlimited")
    shop.until_ended(task)
    free = shop.send("free")
    shop.until_ended(free)
    shop.until(lambda: rabbit.count("celery.granted") == 0, "all are taken")
    shop.until(lambda: shop.ask("w2", "active") == [], "no body runs")
    assert len(shop.log("begin", task.id)) == 1
    assert worker.process.poll() is None
    assert "AttributeError" not in worker.output()
