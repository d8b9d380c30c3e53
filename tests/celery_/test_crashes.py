"""Workers, brokers and stores that are killed: no task is lost, and the limit holds."""

from __future__ import annotations

import collections
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from limiter_core import ConcurrencyLimit
from tests.faults._broker_log import lost_messages
from tests.redis._servers import Process, server_program

from ._worker_processes import MakeWorkers

FAST = {"visibility_timeout": 3, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}

# Once its body may have begun, a task that is acknowledged early may be lost, and one that is
# acknowledged late may run twice: Celery promises no more.
MAY_BE_LOST = ("begun", "over", "admitted")
BEFORE_THE_FIRST_GRANT = ("before_asking", "asked", "parked", "acknowledged")
MAY_RUN_TWICE = ("begun", "over", "admitted")


@pytest.mark.parametrize("task", ["by_user", "late"])
@pytest.mark.parametrize(
    "point",
    [
        "before_asking",
        "asked",
        "parked",
        "acknowledged",
        "granted",
        "sent",
        "delivered",
        "admitted",
        "begun",
        "over",
        "released",
    ],
)
@pytest.mark.slow
def test_a_worker_that_is_killed(make_workers: MakeWorkers, task: str, point: str) -> None:
    if (task, point) in (("by_user", "sent"), ("late", "delivered")):
        pytest.skip("such a task does not come by this point")
    shop = make_workers(transport=FAST, lease=2.0, limiter={"claim": 2.0})
    lease = shop.limiter.acquire(ConcurrencyLimit("user", lease=2.0), {"user": "eve"})
    tasks = [shop.send(task, "eve", 0.1) for _ in range(6)]
    broken = shop.start(ready=False, faults=point)
    if point not in BEFORE_THE_FIRST_GRANT:
        shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 6, "all wait")
        lease.release()
    assert broken.wait() == -signal.SIGKILL
    lease.release()
    shop.start()
    begins: collections.Counter[str] = collections.Counter()

    def all_came_to_their_end() -> bool:
        begins.clear()
        begins.update(each["id"] for each in shop.log("begin"))
        ended = {each["id"] for each in shop.log("end")}
        missing = [each.id for each in tasks if each.id not in ended]
        if task == "by_user" and point in MAY_BE_LOST:
            return len(missing) <= 1 and all(begins[each] for each in missing)
        return not missing

    shop.until(all_came_to_their_end, "all tasks came to their end")
    time.sleep(2.0)  # for copies that would run once more
    all_came_to_their_end()
    twice = [each for each, times in begins.items() if times > 1]
    assert max(begins.values()) <= 2
    assert len(twice) <= (1 if point in MAY_RUN_TWICE else 0)
    assert shop.most_at_once() == 1
    assert shop.limiter.inspect("user=eve").waiting == 0


@pytest.mark.parametrize("point", ["granted"])
def test_a_worker_that_is_killed_loses_no_task(make_workers: MakeWorkers, point: str) -> None:
    test_a_worker_that_is_killed(make_workers, "by_user", point)


@pytest.mark.slow
def test_a_redelivery_of_a_task_that_runs_starts_no_second_body(
    make_workers: MakeWorkers,
) -> None:
    shop = make_workers(transport=FAST, limiter={"claim": 2.0})
    shop.start()
    shop.start()
    first = shop.send("late", "eve", 8.0)
    shop.until_began(first)
    waiter = shop.send("late", "eve", 0.1)
    shop.until_ended(first, waiter)
    time.sleep(2.0)  # for the copy that was delivered again meanwhile
    assert len(shop.log("begin", first.id)) == 1
    assert len(shop.log("begin", waiter.id)) == 1


@pytest.fixture
def durable() -> Iterator[Process]:
    """A server that keeps all its data when it is killed."""
    program = server_program()
    server = Process(program, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.close()


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_broker_and_store_are_killed_and_start_again(
    make_workers: MakeWorkers, durable: Process, url: str, pool: str
) -> None:
    shop = make_workers(
        url=url,  # where the bodies note what they do
        pool=pool,
        broker=durable.url,
        store=durable.url.removesuffix("/0") + "/2",
        transport=FAST,
        lease=5.0,
        limiter={"claim": 2.0},
    )
    worker = shop.start()
    tasks = [shop.send("by_user", "eve", 0.5) for _ in range(6)]
    shop.until_began(tasks[1])
    durable.kill()
    time.sleep(1.0)
    durable.start()
    shop.until_ended(*tasks)
    assert worker.process.poll() is None
    assert shop.most_at_once() == 1
    assert collections.Counter(each["id"] for each in shop.log("begin")).most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    "pool",
    ["prefork", *(pytest.param(each, marks=pytest.mark.slow) for each in ("threads", "gevent"))],
)
def test_the_store_alone_is_away(
    make_workers: MakeWorkers, durable: Process, url: str, pool: str
) -> None:
    shop = make_workers(
        url=url,
        pool=pool,
        store=durable.url,
        lease=20.0,
        limiter={"claim": 2.0},
    )
    worker = shop.start()
    first = shop.send("by_user", "eve", 0.1)
    shop.until_ended(first)
    durable.kill()
    tasks = [shop.send("by_user", f"eve{n % 2}", 0.1) for n in range(6)]
    free = shop.send("free")
    shop.until_ended(free)  # others go on
    shop.until(lambda: "jobs wait until it can" in worker.output(), "it logs the outage")
    assert len(shop.log("begin")) == 2
    durable.start()
    shop.until_ended(*tasks)
    shop.until(lambda: "the store is back" in worker.output(), "it logs that the store is back")
    # Once; but threads have connections of their own, and each finds the old one broken.
    assert worker.output().count("jobs wait until it can") <= (1 if pool == "prefork" else 4)
    assert worker.process.poll() is None
    begins = collections.Counter(each["id"] for each in shop.log("begin"))
    assert set(begins.values()) == {1}


@pytest.mark.parametrize("task", ["by_user", "late"])
def test_tasks_are_admitted_without_the_store_if_so_wished(
    make_workers: MakeWorkers, durable: Process, url: str, task: str
) -> None:
    durable.kill()
    shop = make_workers(url=url, store=durable.url, limiter={"on_store_error": "admit"})
    shop.start()
    tasks = [shop.send(task, "eve", 0.1) for _ in range(3)]
    shop.until_ended(*tasks)
    durable.start()


def test_the_connection_breaks_while_a_woken_task_waits_for_a_process(
    make_workers: MakeWorkers, durable: Process, url: str
) -> None:
    """Its slot is given back, or what the broker delivers to another worker would meet it."""
    shop = make_workers(url=url, broker=durable.url, transport=FAST, concurrency=1)
    worker = shop.start()
    lease = shop.limiter.acquire(shop.task("late").limits[0], {"user": "eve"})
    waiter = shop.send("late", "eve", 0.1)
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 1, "it waits")
    busy = shop.send("free", 20.0)
    shop.until_began(busy)
    lease.release()
    shop.until(
        lambda: any(each.claimed for each in shop.limiter.inspect("user=eve").holders),
        "it has its slot, and waits for a process",
    )
    shop.app.control.cancel_consumer("celery.granted", destination=["w0@test"])
    shop.until(lambda: "Canceling queue celery.granted" in worker.output(), "it stopped")
    durable.admin.client_kill_filter(_type="normal", skipme=True)
    shop.until(lambda: "Connection to broker lost" in worker.output(), "the connection broke")
    shop.start()
    shop.until_ended(waiter)
    assert not shop.log("end", busy.id)
    assert len(shop.log("begin", waiter.id)) == 1


class LostMessages:
    """The tasks whose messages the broker's driver lost, with limits and without.

    Args:
        folder: of a server that appends each write to its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen_at: dict[str, float] = {}

    def now(self) -> set[str]:
        """Return their ids. What seems lost for a moment only was in a worker's hands."""
        now = time.monotonic()
        self._seen_at = {
            each: self._seen_at.get(each, now) for each in lost_messages(self._folder, "id")
        }
        return {each for each, seen_at in self._seen_at.items() if now - seen_at > 2.0}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_workers_are_killed_again_and_again(
    make_workers: MakeWorkers, durable: Process, number: int
) -> None:
    url = durable.url.removesuffix("/0")
    shop = make_workers(url=url, transport=FAST, lease=2.0, number=number, limiter={"claim": 2.0})
    chance = random.Random(number)
    ids = {shop.send("late", "eve", 0.15).id for _ in range(60)}
    workers = [shop.start(), shop.start()]
    for _ in range(8):
        time.sleep(chance.uniform(0.2, 1.5))
        workers.pop(0).kill()
        workers.append(shop.start())
    lost = LostMessages(durable.folder)

    def all_ended() -> bool:
        """Whether all ended, but for the one of each kill that the broker's driver may lose."""
        missing = ids - {each["id"] for each in shop.log("end")}
        return len(missing) <= 8 and (not missing or missing <= lost.now())

    shop.until(all_ended, "all tasks ended", patience=90.0)
    assert shop.most_at_once() <= number
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "all slots are free")
    assert shop.limiter.inspect("user=eve").waiting == 0
    # Only tasks that a worker was running when it was killed run twice.
    begins = collections.Counter(each["id"] for each in shop.log("begin"))
    assert sum(begins.values()) <= 60 + 8 * number
