"""Messages of protocol 1, `task_protocol = 1`: the name and the id of a task are in their body."""

from __future__ import annotations

import collections
import json

import pytest

from ._worker_processes import LONG, MakeWorkers, WorkerProcesses


@pytest.fixture
def shop(make_workers: MakeWorkers) -> WorkerProcesses:
    return make_workers(conf={"task_protocol": 1}, limiter={"claim": 2.0})


def test_the_messages_of_these_tests_are_of_protocol_1(shop: WorkerProcesses) -> None:
    shop.send("by_user", "eve")
    message = json.loads(str(shop.broker.lindex("celery", 0)))
    assert "task" not in message["headers"]


@pytest.mark.parametrize("task", ["by_user", "late"])
def test_tasks_wait_and_run_in_order(shop: WorkerProcesses, task: str) -> None:
    shop.start()
    tasks = [shop.send(task, "eve", 0.05) for _ in range(6)]
    shop.until_ended(*tasks)
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")
    assert [each["id"] for each in shop.log("begin")] == [each.id for each in tasks]
    assert shop.most_at_once() == 1
    assert {each.state for each in tasks} == {"SUCCESS"}


def test_a_retry_waits_for_its_turn_and_has_the_headers_of_its_task(shop: WorkerProcesses) -> None:
    shop.start()
    holder = shop.send("by_user", "eve", LONG)
    shop.until_began(holder)
    tasks = [shop.send("tells", "eve", 0.0, True, headers={"tenant": "a"}) for _ in range(2)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 2, "both wait")
    shop.let_end(holder)
    shop.until(lambda: all(len(shop.log("end", each.id)) == 2 for each in tasks), "they ran again")
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")
    assert shop.most_at_once() == 1
    for each in tasks:
        assert [note["try"] for note in shop.log("begin", each.id)] == [0, 1]
        for headers in (note["headers"] for note in shop.log("begin", each.id)):
            assert headers["tenant"] == "a"
            assert not [name for name in headers if name.startswith("limiter")]


def test_a_countdown_is_over_when_a_task_waits(shop: WorkerProcesses) -> None:
    shop.start()
    holder = shop.send("by_user", "eve", LONG)
    shop.until_began(holder)
    tasks = [shop.send(each, "eve", countdown=0.3) for each in ("by_user", "late")]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 2, "both wait")
    shop.let_end(holder)
    shop.until_ended(*tasks)


def test_what_ends_the_waiting(shop: WorkerProcesses) -> None:
    shop.start()
    holder = shop.send("by_user", "eve", LONG)
    shop.until_began(holder)
    expired = shop.send("by_user", "eve", expires=0.5)
    revoked = shop.send("by_user", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting >= 1, "one waits")
    shop.until_ready(expired)
    revoked.revoke()
    shop.until_ready(revoked)
    shop.let_end(holder)
    shop.until_ended(holder)
    shop.until(lambda: len(shop.revoked()) >= 2, "both are reported")
    assert sorted(shop.revoked()) == sorted([(expired.id, True), (revoked.id, False)])
    assert not shop.began(expired)
    assert not shop.began(revoked)


@pytest.mark.parametrize("form", ["unlimited", "other_key"])
def test_tasks_wait_while_their_limits_change(shop: WorkerProcesses, form: str) -> None:
    old = shop.start()
    first = shop.send("changing", "eve", LONG)
    shop.until_began(first)
    rest = [shop.send("changing", "eve") for _ in range(3)]
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 3, "they wait")
    other = shop.send("by_user", "eve")
    shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 4, "the other one waits")
    shop.until(lambda: shop.broker.hlen("unacked") == 0, "the tickets alone have the messages")
    old.kill()
    shop.limiter.evict(shop.limiter.inspect("user=eve").holders[0].id)
    shop.start(changing=form)
    shop.until_ready(*rest, other)
    for key in ("user=eve", "new/user=eve"):
        shop.until(lambda key=key: shop.limiter.inspect(key).in_use == 0, f"{key} is free")
        assert shop.limiter.inspect(key).waiting == 0
    begins = collections.Counter(each["id"] for each in shop.log("begin"))
    assert begins == {each.id: 1 for each in (first, *rest, other)}
