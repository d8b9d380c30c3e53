"""Replies that are lost, of the store or of the backend, though the request was carried out."""

from __future__ import annotations

import time

import pytest

from ._worker_processes import LONG, MakeWorkers


@pytest.mark.parametrize("task", ["by_user", "late"])
def test_a_task_whose_place_in_line_it_did_not_hear_of_runs_once(
    make_workers: MakeWorkers, task: str
) -> None:
    """Its ticket waits, and so does its message: the one that comes second is a copy."""
    shop = make_workers(faults="lose_ask")
    shop.start()
    first = shop.send("by_user", "eve", 0.4)
    shop.until_began(first)
    second = shop.send(task, "eve", 0.05)
    shop.until_ended(first, second)
    time.sleep(2.0)  # for the copy
    assert len(shop.log("begin", second.id)) == 1
    shop.until(lambda: shop.limiter.inspect("user=eve").in_use == 0, "the slot is free")


def test_a_woken_task_that_met_an_outage_is_not_lost(make_workers: MakeWorkers) -> None:
    """The slot that it could not give back is not that of another delivery."""
    shop = make_workers(faults="lose_look", lease=3.0)
    shop.start()
    first = shop.send("late", "eve", 0.4)
    shop.until_began(first)
    second = shop.send("late", "eve", 0.05)
    shop.until_ended(first, second)
    assert len(shop.log("begin", second.id)) == 1


def test_the_end_of_a_task_is_reported_once_it_can_be(
    make_workers: MakeWorkers,
) -> None:
    """It has no message and no ticket any more: the store keeps it until it is reported."""
    shop = make_workers(faults="lose_end")
    shop.start()
    holder = shop.send("by_user", "eve", 2.0)
    shop.until_began(holder)
    expired = shop.send("by_user", "eve", expires=0.3)
    shop.until_ready(expired)
    assert expired.state == "REVOKED"
    shop.until_ended(holder)


@pytest.mark.parametrize("faults", ["lose_eviction", "lose_withdrawal"])
def test_the_end_of_a_task_is_reported_once_though_a_reply_was_lost(
    make_workers: MakeWorkers, faults: str
) -> None:
    shop = make_workers(faults=faults)
    shop.start()
    holder = shop.send("by_user", "eve", LONG)
    shop.until_began(holder)
    expired = shop.send("by_user", "eve", expires=0.3)
    shop.until_ready(expired)
    assert expired.state == "REVOKED"
    assert shop.limiter.inspect("user=eve").waiting == 0
    shop.let_end(holder)
    shop.until_ended(holder)
    shop.until(lambda: not shop.refusals(), "all was reported")
    assert shop.revoked() == [(expired.id, True)]
