"""Tasks that waited come back to the queue that they were taken from, however they got there."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from kombu import Exchange, Queue

from ._rabbitmq_server import RabbitMQServer
from ._worker_processes import LONG, MakeWorkers, Sent, WorkerProcesses

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(
    params=["redis", pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.slow])]
)
def make(request: pytest.FixtureRequest, make_workers: MakeWorkers) -> MakeWorkers:
    """Makes worker processes on either broker."""
    # Not an argument: tests that need none may run beside those that share it.
    on_redis = request.param == "redis"
    if on_redis:
        return make_workers
    return on_rabbit(make_workers, request.getfixturevalue("rabbit_server"))


@pytest.fixture
def make_on_rabbit(make_workers: MakeWorkers, rabbit_server: RabbitMQServer | None) -> MakeWorkers:
    """Makes worker processes on RabbitMQ, for what Redis does not have."""
    return on_rabbit(make_workers, rabbit_server)


def on_rabbit(make_workers: MakeWorkers, rabbit: RabbitMQServer | None) -> MakeWorkers:
    if rabbit is None:
        pytest.skip("there is no rabbitmq-server")
    return lambda **given: make_workers(broker=rabbit.url, **given)


@pytest.fixture
def own() -> str:
    """A name that no other test's queues and exchanges have."""
    return uuid.uuid4().hex[:8]


def queue(own: str, kind: str, *keys: str, name: str = "feeds", **more: Any) -> dict[str, Any]:
    """Describe a queue; see workers/app.py."""
    return {
        "name": f"{name}-{own}",
        "exchange": f"{kind}-{own}",
        "kind": kind,
        "keys": list(keys),
        **more,
    }


def until_waiting(shop: WorkerProcesses, number: int, user: str = "eve") -> None:
    shop.until(
        lambda: shop.limiter.inspect(f"user={user}").waiting == number, f"{number} tasks wait"
    )


def begin_waiting(
    shop: WorkerProcesses, to: Queue, *, waiting: int = 2, **options: Any
) -> list[Sent]:
    """Send tasks to a queue of which one runs and the others wait, with other work behind them."""
    sent = [shop.send("by_user", "eve", 1.0, queue=to, **options)]
    shop.until_began(sent[0])
    sent += [shop.send("by_user", "eve", queue=to, **options) for _ in range(waiting)]
    until_waiting(shop, waiting)
    return sent


def assert_in_turn(shop: WorkerProcesses, sent: list[Sent], behind: list[Sent]) -> None:
    """Assert that tasks ran as soon as they could, and not after what was sent later."""
    shop.until_ended(*sent)
    assert shop.most_at_once() == 2, "one of the user, and one of the rest"
    begun = [each["id"] for each in shop.log("begin")]
    assert begun.index(sent[-1].id) < len(behind), "it did not wait for all the rest"
    assert all(begun.count(each.id) == 1 for each in sent)


def test_a_pattern_of_redis(make_workers: MakeWorkers, own: str) -> None:
    run_behind_a_pattern(make_workers, own)


@pytest.mark.rabbitmq
def test_a_pattern_of_rabbitmq(make_on_rabbit: MakeWorkers, own: str) -> None:
    run_behind_a_pattern(make_on_rabbit, own)


def run_behind_a_pattern(make: MakeWorkers, own: str) -> None:
    """Run tasks of a queue that is bound by a pattern."""
    shop = make(queues=[queue(own, "topic", "feed.#")])
    shop.start()
    to = Queue(f"feeds-{own}", Exchange(f"topic-{own}", type="topic"), routing_key="feed.#")
    sent = begin_waiting(shop, to, routing_key="feed.import")
    behind = [shop.send("free", 0.3, queue=to, routing_key="feed.other") for _ in range(20)]
    assert_in_turn(shop, sent, behind)


def test_a_queue_of_several_bindings(make: MakeWorkers, own: str) -> None:
    shop = make(queues=[queue(own, "direct", "import", "export")])
    shop.start()
    to = Queue(f"feeds-{own}", Exchange(f"direct-{own}", type="direct"), routing_key="export")
    sent = begin_waiting(shop, to, routing_key="export")
    behind = [shop.send("free", 0.3, queue=to, routing_key="export") for _ in range(20)]
    assert_in_turn(shop, sent, behind)


@pytest.mark.rabbitmq
def test_a_queue_that_is_bound_by_headers(make_on_rabbit: MakeWorkers, own: str) -> None:
    arguments = {"x-match": "all", "kind": "feed"}
    described = queue(own, "headers", "", binding_arguments=arguments)
    shop = make_on_rabbit(queues=[described])
    shop.start()
    to = Queue(
        f"feeds-{own}", Exchange(f"headers-{own}", type="headers"), binding_arguments=arguments
    )
    sent = begin_waiting(shop, to, headers={"kind": "feed"})
    behind = [shop.send("free", 0.3, queue=to, headers={"kind": "feed"}) for _ in range(20)]
    assert_in_turn(shop, sent, behind)


@pytest.mark.rabbitmq
def test_tasks_that_the_broker_delayed(make_on_rabbit: MakeWorkers, own: str) -> None:
    """With quorum queues, the broker delays a task, and changes its routing key."""
    quorum = {"queue_arguments": {"x-queue-type": "quorum"}}
    shop = make_on_rabbit(queues=[queue(own, "topic", "feed", **quorum)])
    shop.start()
    to = shop.app.amqp.queues[f"feeds-{own}"]
    first = shop.send("by_user", "eve", 3.0, queue=to)
    shop.until_began(first)
    late = [shop.send("by_user", "eve", queue=to, countdown=1) for _ in range(2)]
    until_waiting(shop, 2)
    behind = [shop.send("free", 0.3, queue=to) for _ in range(30)]
    assert_in_turn(shop, [first, *late], behind)


@pytest.mark.rabbitmq
def test_a_task_that_is_passed_on_again_and_again_is_not_lost(
    make_on_rabbit: MakeWorkers, own: str
) -> None:
    """Its turn has come, and its worker is busy: a quorum queue drops what it gets back often."""
    quorum = {"x-queue-type": "quorum", "x-delivery-limit": 1}
    described = queue(own, "topic", "feed", queue_arguments=quorum)
    shop = make_on_rabbit(queues=[described], concurrency=1, limiter={"claim": 0.5})
    shop.start()
    to = shop.app.amqp.queues[f"feeds-{own}"]
    with shop.limiter.hold(shop.task("late").limits[0], {"user": "eve"}):
        waits = shop.send("late", "eve", queue=to)
        until_waiting(shop, 1)
        busy = shop.send("free", LONG, queue=to)
        shop.until_began(busy)
    received = f"Task late[{waits.id}] received"
    shop.until(
        lambda: shop.workers[0].output().count(received) >= 4, "it was passed on three times"
    )
    shop.let_end(busy)
    shop.until_ended(waits)
    assert len(shop.log("begin", waits.id)) == 1


@pytest.mark.rabbitmq
def test_each_queue_of_a_fanout_runs_its_copy(make_on_rabbit: MakeWorkers, own: str) -> None:
    """(With Redis, a worker takes a message from one of them only.)"""
    described = [queue(own, "fanout", "", name=name) for name in ("one", "other")]
    shop = make_on_rabbit(queues=described, concurrency=4)
    shop.start()
    sent = shop.send("by_user", "eve", 0.3, queue=shop.app.amqp.queues[f"one-{own}"])
    shop.until(lambda: len(shop.log("end", sent.id)) == 2, "both copies ran")
    assert shop.most_at_once() == 1
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")


def listening(shop: WorkerProcesses) -> int:
    """Return how many connections listen for a pattern: two of each worker."""
    return sum(each["psub"] != "0" for each in shop.broker.client_list())


def broadcast(shop: WorkerProcesses, name: str, *task: Any) -> Sent:
    """Send a task to all workers."""
    to = shop.app.amqp.queues[name]
    if "broker" not in shop.given:  # Redis: a worker that does not listen yet misses it
        shop.until(lambda: listening(shop) >= 2 * len(shop.workers), "all workers listen")
    return shop.send(*task, queue=to, declare=[to.exchange])


def test_each_worker_runs_a_broadcast(make: MakeWorkers, own: str) -> None:
    shop = make(queues=[queue(own, "broadcast", "")])
    shop.start()
    shop.start()
    sent = broadcast(shop, f"feeds-{own}", "by_user", "eve", 0.5)
    shop.until(lambda: len(shop.log("end", sent.id)) == 2, "both workers ran it")
    assert shop.most_at_once() == 1
    # A child of each.
    assert len({each["pid"] for each in shop.log("end")}) == 2


def test_a_broadcast_that_waits_ends_with_its_worker(make: MakeWorkers, own: str) -> None:
    """Its queue is that worker's own: no other worker may run it, and others get the slot."""
    described = [queue(own, "direct", "feeds"), queue(own, "broadcast", "", name="news")]
    shop = make(queues=described, limiter={"claim": 0.5}, lease=3.0)
    killed, _ = shop.start(), shop.start()
    to = shop.app.amqp.queues[f"feeds-{own}"]
    first = shop.send("by_user", "eve", 3.0, queue=to)
    shop.until_began(first)
    news = broadcast(shop, f"news-{own}", "by_user", "eve")
    until_waiting(shop, 2)
    killed.kill()
    shop.until(lambda: len(shop.log("end", news.id)) >= 1, "the other worker ran it")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 0, "no task waits")
    last = shop.send("by_user", "eve", queue=to)
    shop.until_ended(last)
    assert len(shop.log("end", news.id)) == 1


def consumed(shop: WorkerProcesses) -> list[str]:
    """Return the names of the queues from which the worker takes tasks."""
    return [each["name"] for each in shop.ask("w0", "active_queues")]


def test_a_queue_that_is_consumed_from_later(make: MakeWorkers, own: str) -> None:
    """A remote control command adds it: tasks of it that waited come first there, too."""
    shop = make(queues=[queue(own, "direct", "feeds")])
    shop.start()
    name = f"more-{own}"
    assert "ok" in shop.ask("w0", "add_consumer", queue=name)
    to = Queue(name, Exchange(name), routing_key=name)
    sent = begin_waiting(shop, to)
    behind = [shop.send("free", 0.3, queue=to) for _ in range(20)]
    assert_in_turn(shop, sent, behind)
    assert "ok" in shop.ask("w0", "cancel_consumer", queue=name)
    shop.until(lambda: consumed(shop) == [f"feeds-{own}.granted", f"feeds-{own}"], "no more of it")


def test_a_task_that_waited_sees_what_was_sent(make: MakeWorkers, own: str) -> None:
    """Its destination and all that the sender gave; a retry uses them, and is a new attempt."""
    shop = make(queues=[queue(own, "topic", "feed.#")])
    shop.start()
    to = Queue(f"feeds-{own}", Exchange(f"topic-{own}", type="topic"), routing_key="feed.#")
    said = {
        "queue": to,
        "routing_key": "feed.import",
        "headers": {"tenant": "a"},
        "expiration": 600,
        "priority": 3,
        "reply_to": "answers",
        "correlation_id": "c-1",
    }
    first = shop.send("tells", "eve", 1.0, **said)
    shop.until_began(first)
    second = shop.send("tells", "eve", 0.0, True, **said)
    until_waiting(shop, 1)
    shop.until(lambda: len(shop.log("end", second.id)) == 2, "it ran, and once more")
    straight, waited, again = [each for each in shop.log("begin") if "said" in each]
    assert waited["said"] == straight["said"]
    assert straight["said"]["delivery_info"]["routing_key"] == "feed.import"
    assert straight["said"]["properties"]["expiration"] == "600000"
    assert waited["headers"] == straight["headers"]
    assert again["said"]["delivery_info"]["routing_key"] == "feed.import"
    assert again["headers"] == straight["headers"]
