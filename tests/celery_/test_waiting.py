"""Tasks that wait: what they hold, how their waiting ends, and which ones may not wait."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from celery.exceptions import TaskRevokedError

from limiter_redis import RedisStore

from ._worker_processes import LONG, WorkerProcesses


def waiting(shop: WorkerProcesses, user: str) -> int:
    """Return how many tasks wait for the user."""
    return shop.limiter.inspect(f"user={user}").waiting


def occupy(shop: WorkerProcesses, user: str, task: str = "by_user", *more: Any) -> Any:
    """Have the user's slot taken, until the test lets the task end."""
    holder = shop.send(task, user, *more, LONG)
    shop.until_began(holder)
    return holder


def test_waiting_tasks_hold_nothing_and_others_start_at_once(
    shop: WorkerProcesses, user: str
) -> None:
    holder = occupy(shop, user)
    waiters = [shop.send("by_user", user) for _ in range(30)]
    shop.until(lambda: waiting(shop, user) == 30, "30 tasks wait")
    shop.until(lambda: shop.broker.hlen("unacked") <= 1, "none is left unacknowledged")
    inspect = shop.app.control.inspect(["w0@test"], timeout=10, limit=1)
    assert [len(each) for each in inspect.reserved().values()] == [0]
    assert [len(each) for each in inspect.scheduled().values()] == [0]
    assert shop.broker.llen("celery") == 0
    assert {each.state for each in waiters} == {"PENDING"}
    shop.until_some_begins_at_once()
    assert not shop.log("end", holder.id)
    shop.let_end(holder)
    shop.until_ended(holder, *waiters)
    ids = [each["id"] for each in shop.log("begin") if each.get("user") == user]
    assert ids == [each.id for each in (holder, *waiters)]
    shop.until(lambda: shop.limiter.inspect(f"user={user}").in_use == 0, "the slot is free")


def test_a_revoked_task_leaves_at_once(shop: WorkerProcesses, user: str) -> None:
    holder = occupy(shop, user)
    first, second = shop.send("by_user", user), shop.send("by_user", user)
    shop.until(lambda: waiting(shop, user) == 2, "both wait")
    first.revoke()
    shop.until(lambda: waiting(shop, user) == 1, "the revoked one left")
    assert not shop.log("end", holder.id)
    shop.let_end(holder)
    shop.until_ended(second)
    shop.until_ready(first)
    assert first.state == "REVOKED"
    assert not shop.began(first)


def test_a_revoked_retry_leaves_at_once(shop: WorkerProcesses, user: str) -> None:
    task = shop.send("retries", user, LONG)
    shop.until_began(task)
    holder = shop.send("by_user", user, LONG)
    shop.until(lambda: waiting(shop, user) == 1, "another waits for the slot")
    shop.let_end(task)
    shop.until_began(holder)
    shop.until(lambda: waiting(shop, user) == 1, "the retry waits")
    task.revoke()
    shop.until(lambda: waiting(shop, user) == 0, "the retry left")
    assert not shop.log("end", holder.id)
    shop.let_end(holder)
    shop.until_ready(task)
    assert task.state == "REVOKED"
    assert len(shop.log("begin", task.id)) == 1


def test_expires_is_honoured_in_time(shop: WorkerProcesses, user: str) -> None:
    holder = occupy(shop, user)
    late = shop.send("by_user", user, expires=0.6)
    shop.until_ready(late)
    assert late.state == "REVOKED"
    assert not shop.log("end", holder.id)
    shop.let_end(holder)
    shop.until_ended(holder)
    assert waiting(shop, user) == 0
    assert not shop.began(late)


def test_the_limits_own_timeout_ends_the_waiting(shop: WorkerProcesses, user: str) -> None:
    holder = occupy(shop, user, "impatient")
    late = shop.send("impatient", user)
    shop.until_ready(late)
    assert late.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match="timed out waiting"):
        late.get()
    assert not shop.log("end", holder.id)
    shop.let_end(holder)
    shop.until_ended(holder)


def test_cancel_refuses_at_once(shop: WorkerProcesses, user: str) -> None:
    holder = occupy(shop, user, "cancel")
    refused = shop.send("cancel", user)
    with pytest.raises(TaskRevokedError, match="1 of 1 slots in use"):
        refused.get()
    assert not shop.log("end", holder.id)
    shop.let_end(holder)
    shop.until_ready(holder)
    assert holder.state == "SUCCESS"


def test_keep_latest_supersedes_the_one_that_waits(shop: WorkerProcesses, user: str) -> None:
    holder = occupy(shop, user, "keep_latest")
    older = shop.send("keep_latest", user)
    shop.until(lambda: waiting(shop, user) == 1, "one waits")
    latest = shop.send("keep_latest", user)
    shop.until_ready(older)
    assert older.state == "REVOKED"
    shop.let_end(holder)
    shop.until_ready(holder, latest)
    assert [holder.state, latest.state] == ["SUCCESS", "SUCCESS"]


def test_priorities(shop: WorkerProcesses, user: str) -> None:
    holder = occupy(shop, user, "priority", 0)
    shop.until_began(holder)
    waiters = [shop.send("priority", user, rank) for rank in (1, 5, 3, 5)]
    shop.until(lambda: waiting(shop, user) == 4, "four wait")
    shop.let_end(holder)
    shop.until_ended(*waiters)
    mine = {each.id for each in waiters}
    assert [each["rank"] for each in shop.log("begin") if each["id"] in mine] == [5, 5, 3, 1]


def test_the_latest_preempts_the_one_that_runs(shop: WorkerProcesses, user: str) -> None:
    if shop.given["pool"] == "threads":
        pytest.skip("threads cannot be stopped; see test_a_pool_of_threads_refuses_to_preempt")
    old = occupy(shop, user, "cancel_running")
    new = shop.send("cancel_running", user)
    shop.until_ended(new)
    shop.until_ready(old)
    assert old.state == "REVOKED"
    assert not shop.log("end", old.id)


def test_per_tenant_limits(shop: WorkerProcesses, user: str) -> None:
    tasks = [shop.send("tenant", user, 3, LONG) for _ in range(3)]
    shop.until(lambda: all(map(shop.began, tasks)), "all three run")
    assert not shop.log("end", tasks[0].id)
    shop.let_end(*tasks)
    shop.until_ended(*tasks)


def test_operators_pause_and_resume(shop: WorkerProcesses, user: str) -> None:
    shop.limiter.pause(f"user={user}")
    task = shop.send("by_user", user)
    shop.until(lambda: waiting(shop, user) == 1, "it waits")
    shop.limiter.resume(f"user={user}")
    shop.until_ended(task)


def test_a_strategy_that_fails_fails_its_task(shop: WorkerProcesses, user: str) -> None:
    wrong, broken = shop.send("wrong_key", user), shop.send("broken_number", user)
    with pytest.raises(Exception, match="leads nowhere: 'user' is a str"):
        wrong.get()
    with pytest.raises(Exception, match="the tenant's table is gone"):
        broken.get()
    assert [wrong.state, broken.state] == ["FAILURE", "FAILURE"]
    misfit = shop.send("by_user", user, 0.0, "too", "many")
    with pytest.raises(TypeError):
        misfit.get()


def test_a_refused_task_is_reported_though_the_notice_of_it_was_lost(
    shop: WorkerProcesses, user: str
) -> None:
    """Nobody else has its message any more."""
    holder = occupy(shop, user)
    refused = shop.send("by_user", user)
    shop.until(lambda: waiting(shop, user) == 1, "it waits")
    store = RedisStore(shop.given["url"] + "/2")
    store.session.tracker.notices.channel = "nobody is subscribed to it"
    (waiter,) = store.sync_face().inspect(f"user={user}").waiters
    assert store.sync_face().evict_waiter(waiter.id)
    shop.until(lambda: not store.session.tracker.notices.undelivered, "the notice is lost")
    store.close()
    shop.until_ready(refused)
    assert refused.state == "REVOKED"
    assert not shop.began(refused)
    store_of_workers = redis.Redis.from_url(shop.given["url"] + "/2")
    shop.until(lambda: not store_of_workers.exists("{limiter}:refusals"), "that is known")
    store_of_workers.close()
    shop.let_end(holder)
