"""All ways to revoke: tasks that wait end at once, and do not run after a restart either."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult

from limiter_celery import ConcurrencyLimit

from ._worker_processes import MakeWorkers, Sent, WorkerProcesses


def stamped(shop: WorkerProcesses, user: str, seconds: float = 0.0) -> Sent:
    stamps: dict[str, Any] = {"stamped_headers": ["tenant", "user"], "tenant": ["a", user]}
    return shop.send("by_user", user, seconds, user=user, **stamps)


def by_id(shop: WorkerProcesses, waiting: list[Sent]) -> None:
    for each in waiting:
        each.revoke()


def by_ids(shop: WorkerProcesses, waiting: list[Sent]) -> None:
    shop.app.control.revoke([each.id for each in waiting])


def by_result(shop: WorkerProcesses, waiting: list[Sent]) -> None:
    for each in waiting:
        AsyncResult(each.id, app=shop.app).revoke()


def by_group(shop: WorkerProcesses, waiting: list[Sent]) -> None:
    results = [AsyncResult(each.id, app=shop.app) for each in waiting]
    GroupResult("group", results, app=shop.app).revoke()


def by_terminate(shop: WorkerProcesses, waiting: list[Sent]) -> None:
    shop.app.control.terminate([each.id for each in waiting], signal="KILL")


def by_stamp(shop: WorkerProcesses, waiting: list[Sent]) -> None:
    (user,) = {each.user for each in waiting}  # type: ignore[attr-defined]
    shop.app.control.revoke_by_stamped_headers({"tenant": [user]})


def by_stamp_and_terminate(shop: WorkerProcesses, waiting: list[Sent]) -> None:
    (user,) = {each.user for each in waiting}  # type: ignore[attr-defined]
    shop.app.control.revoke_by_stamped_headers({"user": user}, terminate=True, signal="KILL")


def until_revoked(shop: WorkerProcesses, *tasks: Sent) -> None:
    shop.until(lambda: all(each.state == states.REVOKED for each in tasks), "they are revoked")


@pytest.mark.parametrize(
    "revoke",
    [by_id, by_ids, by_result, by_group, by_terminate, by_stamp, by_stamp_and_terminate],
)
def test_tasks_that_wait_end_at_once(shop: WorkerProcesses, user: str, revoke: Any) -> None:
    with hold(shop, user):
        waiting = [stamped(shop, user) for _ in range(3)]
        other = shop.send("by_user", user)
        for each in waiting:
            each.user = user  # type: ignore[attr-defined]
        shop.until(lambda: shop.limiter.inspect(f"user={user}").waiting == 4, "all wait")
        revoke(shop, waiting)
        until_revoked(shop, *waiting)
        shop.until(lambda: shop.limiter.inspect(f"user={user}").waiting == 1, "one waits on")
    shop.until_ended(other)
    assert not any(shop.began(each) for each in waiting)


@contextmanager
def hold(shop: WorkerProcesses, user: str) -> Iterator[None]:
    """Hold the slot of a user."""
    limit = ConcurrencyLimit("user", max_concurrent=1)
    with shop.limiter.hold(limit, {"user": user}):
        yield


@pytest.mark.parametrize("faults", [None, "lose_learning"])
@pytest.mark.parametrize("revoke", [by_id, by_stamp])
def test_a_revoke_that_only_another_worker_received_outlives_it(
    make_workers: MakeWorkers, revoke: Any, faults: str | None
) -> None:
    """The worker that parked the task and the one that received the revoke have both ended.

    Also if the store was away when the one asked for it that now runs tasks.
    """
    shop = make_workers(concurrency=1)
    with hold(shop, "eve"):
        parked_it = shop.start()
        task, other = stamped(shop, "eve"), shop.send("by_user", "eve")
        task.user = "eve"  # type: ignore[attr-defined]
        shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 2, "both wait")
        parked_it.kill()
        received_it = shop.start()
        revoke(shop, [task])
        shop.until(lambda: shop.limiter.inspect("celery:shop:revoked").in_use > 0, "it is noted")
        received_it.kill()
        shop.start(faults=faults)
    shop.until_ended(other)
    until_revoked(shop, task)
    assert not shop.began(task)


def test_revokes_that_a_worker_kept_in_a_file(make_workers: MakeWorkers, tmp_path: Any) -> None:
    """Celery's `--statedb`: a worker that starts with the file knows what was revoked."""
    shop = make_workers(concurrency=1, options=["--statedb", str(tmp_path / "state")])
    with hold(shop, "eve"):
        worker = shop.start()
        task, other = shop.send("by_user", "eve"), shop.send("by_user", "eve")
        shop.until(lambda: shop.limiter.inspect("user=eve").waiting == 2, "both wait")
        task.revoke()
        until_revoked(shop, task)
        worker.signal(signal.SIGTERM)
        worker.wait()
        shop.start()
    shop.until_ended(other)
    assert not shop.began(task)


def test_purging_the_queues_leaves_those_that_wait(shop: WorkerProcesses, user: str) -> None:
    """They are in the store, and in no queue."""
    with hold(shop, user):
        task = shop.send("by_user", user)
        shop.until(lambda: shop.limiter.inspect(f"user={user}").waiting == 1, "it waits")
        shop.app.control.purge()
    shop.until_ended(task)
