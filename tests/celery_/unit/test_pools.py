"""What each kind of pool can do, and how its dead children are noticed."""

from __future__ import annotations

from typing import Any

import pytest
from celery.concurrency import gevent, prefork, solo, thread
from kombu.asynchronous import Hub

from limiter_celery._pools import DeadChildCheck, admits_in_pool, can_terminate


def test_pools() -> None:
    def made(kind: Any) -> Any:
        return object.__new__(kind)

    assert not admits_in_pool(made(prefork.TaskPool))
    assert not admits_in_pool(made(solo.TaskPool))
    assert admits_in_pool(made(thread.TaskPool))
    assert admits_in_pool(made(gevent.TaskPool))
    assert [can_terminate(made(each.TaskPool)) for each in (prefork, gevent, thread, solo)] == [
        True,
        True,
        False,
        False,
    ]
    assert thread.TaskPool.uses_semaphore is False
    assert prefork.TaskPool.uses_semaphore is True


class CountedPool(solo.TaskPool):
    """A pool that counts how often it is told to look for dead children."""

    looked = 0

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        self.looked += 1


def test_a_new_connection_leaves_no_timer_of_the_last() -> None:
    hub = Hub()
    check = DeadChildCheck(CountedPool(1), lambda: True)
    for _ in range(3):
        check.connect(hub)
    assert len([each for each in hub.timer.queue if not each.entry.canceled]) == 1
    hub.close()


@pytest.mark.parametrize("is_needed", [True, False])
def test_the_pool_is_told_to_look_only_while_a_task_holds_a_slot(is_needed: bool) -> None:
    hub, pool = Hub(), CountedPool(1)
    DeadChildCheck(pool, lambda: is_needed).connect(hub)
    (timer,) = hub.timer.queue
    timer.entry()
    assert pool.looked == is_needed
    hub.close()
