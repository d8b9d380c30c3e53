"""Tasks run one after the other, in each kind of pool."""

from __future__ import annotations

import pytest

from ._worker_processes import LONG, MakeWorkers

POOLS = ("prefork", "threads", "gevent", "eventlet", "solo")


@pytest.mark.parametrize("pool", POOLS)
def test_one_at_a_time_in_order_and_the_others_hold_nothing(
    make_workers: MakeWorkers, pool: str
) -> None:
    shop = make_workers(pool=pool, concurrency=4, base_of_all=True)
    shop.start()
    # The order is that in which tasks arrive: so the first one takes the slot, and keeps it until
    # all others wait. (With solo, its body keeps the worker from receiving them.)
    first = shop.send("by_user", 1, LONG)
    shop.until_began(first)
    results = [first, *(shop.send("by_user", 1, 0.05) for _ in range(9))]
    waiting = 0 if pool == "solo" else 9
    shop.until(lambda: shop.limiter.inspect("user=1").waiting == waiting, "the others wait")
    shop.let_end(first)
    shop.until_ended(*results)
    ids = [each.id for each in results]
    assert [ids.index(each["id"]) for each in shop.log("begin")] == list(range(10))
    assert shop.most_at_once() == 1
    assert [each.get() for each in results] == [each.id for each in results]
    tokens = [each["token"] for each in shop.log("begin")]
    assert tokens == sorted(set(tokens))
    shop.until_ended(shop.send("free"))
