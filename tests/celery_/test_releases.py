"""A new release of the program, in which a task has other limits, comes while tasks wait."""

from __future__ import annotations

import signal

import pytest

from ._worker_processes import LONG, MakeWorkers

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
