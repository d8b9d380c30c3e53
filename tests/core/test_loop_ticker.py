"""Calls that wait for long are looked at by one timer of their event loop."""

from __future__ import annotations

import anyio
import pytest
import trio
import trio.testing

from limiter_core import LIMIT_BY, ConcurrencyLimit, Lease, Limiter, WaitTimeout

from ._tools import until

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), 1)


async def test_a_call_that_waits_for_long_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    limiter = Limiter(warn_after=1.05)
    async with limiter.hold(ONE), anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.acquire, ONE)
        await until(lambda: "a call waits for 'one'" in caplog.text, "it is warned of")
        tasks.cancel_scope.cancel()


def test_calls_that_wait_in_trio_have_one_timer_and_it_ends_with_the_run() -> None:
    limiter = Limiter()

    async def main() -> None:
        async with limiter.hold(ONE):
            before = trio.lowlevel.current_statistics().tasks_living
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(limiter.acquire, ONE)
                await trio.testing.wait_all_tasks_blocked()
                assert trio.lowlevel.current_statistics().tasks_living == before + 20 + 1
                nursery.cancel_scope.cancel()

    for _ in range(2):
        trio.run(main)


def test_a_call_may_wait_when_no_timer_can_begin_any_more() -> None:
    """When trio's run is about to end."""
    limiter = Limiter()
    refused: list[str] = []

    async def wait_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                with pytest.raises(WaitTimeout) as caught:
                    await limiter.acquire(ONE, timeout=0.05)
                refused.append(str(caught.value))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(wait_at_the_end)
        await trio.testing.wait_all_tasks_blocked()
        leases.append(await limiter.acquire(ONE))

    leases: list[Lease] = []
    trio.run(main)
    assert len(refused) == 1
    trio.run(leases[0].release)
