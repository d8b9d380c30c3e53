"""On every outcome of a task its slot is given back, once, and the next task begins."""

from __future__ import annotations

import pytest

from ._worker_processes import LONG, Sent, WorkerProcesses

# Celery before 5.7 sends chords with a method that redis-py has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.mark.parametrize(
    ("task", "states"),
    [
        ("fails", {"FAILURE"}),
        ("ignores", {"PENDING", "STARTED"}),
        ("rejects", {"FAILURE", "PENDING"}),  # Celery before 5.7 reports no rejected task
    ],
)
def test_a_body_that_raises(shop: WorkerProcesses, user: str, task: str, states: set[str]) -> None:
    first, _ = shop.follow(task, user)
    assert first.state in states
    assert len(shop.log("begin", first.id)) == 1


def test_retries_spend_what_they_always_did(shop: WorkerProcesses, user: str) -> None:
    tasks = [shop.send("retries", user) for _ in range(3)]
    assert [each.get() for each in tasks] == ["third time lucky"] * 3
    for task in tasks:
        assert [each["try"] for each in shop.log("begin", task.id)] == [0, 1, 2]


def test_a_rejected_task_that_is_requeued_runs_again(shop: WorkerProcesses, user: str) -> None:
    task = shop.send("rejects", user, True)
    assert task.get() == "run again"
    assert len(shop.log("begin", task.id)) == 2


def test_a_rejected_task_that_had_to_wait_runs_again(shop: WorkerProcesses, user: str) -> None:
    holder = shop.send("by_user", user, 0.5)
    shop.until_began(holder)
    task = shop.send("rejects", user, True)
    assert task.get() == "run again"
    assert len(shop.log("begin", task.id)) == 2


def test_a_task_sent_again_under_its_old_id_runs_again(shop: WorkerProcesses, user: str) -> None:
    for round_ in range(1, 3):
        for task in ("by_user", "late"):
            holder = shop.send("by_user", user, 0.3)
            shop.until_began(holder)
            again = shop.send(task, user, task_id=f"{task}-{user}")
            shop.until(
                lambda again=again, times=round_: len(shop.log("end", again.id)) == times,
                f"it ran {round_} times",
            )
            shop.until(lambda: shop.limiter.inspect(f"user={user}").in_use == 0, "it is over")


def test_chains_groups_and_chords_come_to_their_end(shop: WorkerProcesses, user: str) -> None:
    by_user, gather = shop.task("by_user"), shop.task("gather")
    members = [by_user.si(user, 0.02) for _ in range(6)]
    result = Sent(shop.app, (shop.group(members) | gather.s()).apply_async().id)
    assert len(result.get()) == 6
    result = Sent(shop.app, (by_user.si(user) | by_user.si(user) | by_user.si(user)).delay().id)
    assert result.get() == result.id


def test_a_chord_with_a_revoked_member_that_waits_does_not_hang(
    shop: WorkerProcesses, user: str
) -> None:
    holder = shop.send("by_user", user, LONG)
    shop.until_began(holder)
    members = [shop.task("by_user").si(user).set(task_id=f"{user}-{n}") for n in range(3)]
    result = Sent(shop.app, (shop.group(members) | shop.task("gather").s()).apply_async().id)
    shop.until(lambda: shop.limiter.inspect(f"user={user}").waiting == 3, "three wait")
    Sent(shop.app, f"{user}-1").revoke()
    shop.until(lambda: shop.limiter.inspect(f"user={user}").waiting == 2, "two wait")
    shop.let_end(holder)
    with pytest.raises(Exception, match="revoked"):
        result.get()


def test_several_limits_are_taken_all_or_none(shop: WorkerProcesses, user: str) -> None:
    tasks = [shop.send("several", f"{user}{n % 3}", 0.1) for n in range(9)]
    shop.until_ended(*tasks)
    ids = {each.id for each in tasks}
    spans = [(b, e) for b, e, task in shop.spans_by_id() if task in ids]
    assert shop.most(spans) == 2


def test_a_countdown_is_over_before_the_place_in_line_counts(
    shop: WorkerProcesses, user: str
) -> None:
    later = shop.send("by_user", user, 0.5, countdown=1.5)
    soon = [shop.send("by_user", user, 0.5) for _ in range(3)]
    shop.until_ended(later, *soon)
    mine = {each.id: name for name, each in zip("0123", (*soon, later), strict=True)}
    order = [mine[each["id"]] for each in shop.log("begin") if each["id"] in mine]
    assert "".join(order) in ("0123", "0132", "0312")  # by then one waits, or none
    assert order[0] == "0"
