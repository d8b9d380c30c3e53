"""A call that is over leaves nothing to the garbage collector, neither itself nor its task."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, StoreUnavailable, SyncLimiter
from limiter_core._call import Call
from limiter_memory import MemoryStore

from ._stores import RemoteStore

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


def calls() -> list[Any]:
    # By the type: to ask some objects for their class runs code of others.
    return [each for each in gc.get_objects() if issubclass(type(each), Call)]


@pytest.fixture(params=[False, True], ids=["", "observed"])
def left_over(request: pytest.FixtureRequest) -> Iterator[Callable[[], list[Any]]]:
    """Return the calls that only the collector would free."""
    remove = limiter_core.observe(lambda _: None) if request.param else lambda: None
    gc.collect()
    gc.disable()
    try:
        before = {id(each) for each in calls()}

        def found() -> list[Any]:
            return [each for each in calls() if id(each) not in before]

        yield found
    finally:
        gc.enable()
        remove()


async def hold(limiter: Limiter) -> None:
    async with limiter.hold(ONE, {}):
        await asyncio.sleep(0)


async def wait_and_hold(limiter: Limiter) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(hold(limiter))


async def acquire_and_release(limiter: Limiter) -> None:
    lease = await limiter.acquire(ONE, {})
    await lease.release()


@pytest.mark.parametrize("what", [hold, wait_and_hold, acquire_and_release])
def test_of_a_task(
    what: Callable[[Limiter], Awaitable[None]], left_over: Callable[[], list[Any]]
) -> None:
    async def main() -> None:
        limiter = Limiter(MemoryStore())
        await asyncio.create_task(what(limiter))
        await asyncio.sleep(0)
        assert left_over() == []

    asyncio.run(main())


class _AwayOnce(RemoteStore):
    """A store that is away for the first operation, and for that alone."""

    was_away = False

    def check(self) -> None:
        if not self.was_away:
            self.was_away = True
            try:
                raise OSError("connection refused")
            except OSError as error:
                raise StoreUnavailable("away") from error


def test_of_a_task_whose_call_met_an_outage(
    left_over: Callable[[], list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """The error refers to the call by its traceback: the call keeps it no longer than it must."""
    caplog.set_level(logging.CRITICAL, "limiter")  # pytest keeps what is logged, and so the error

    async def main() -> None:
        limiter = Limiter(_AwayOnce())
        task = asyncio.create_task(hold(limiter))
        its = weakref.ref(task)
        await task
        del task
        await asyncio.sleep(0)
        assert its() is None
        assert left_over() == []

    asyncio.run(main())


def test_of_a_thread(left_over: Callable[[], list[Any]]) -> None:
    limiter = SyncLimiter(MemoryStore())
    with limiter.hold(ONE, {}):
        pass
    limiter.acquire(ONE, {}).release()
    assert left_over() == []


def test_of_a_thread_whose_call_met_an_outage(
    left_over: Callable[[], list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "limiter")
    limiter = SyncLimiter(_AwayOnce())
    with limiter.hold(ONE, {}):
        pass
    assert left_over() == []


def test_an_outage_takes_no_frames_from_the_exception_that_the_caller_handles() -> None:
    """It is the context of the error that is kept meanwhile."""
    own, of_task = ValueError(), ValueError()
    try:
        raise own
    except ValueError:
        with SyncLimiter(_AwayOnce()).hold(ONE, {}):
            pass
    assert own.__traceback__ is not None

    async def main() -> None:
        try:
            raise of_task
        except ValueError:
            await hold(Limiter(_AwayOnce()))

    asyncio.run(main())
    assert of_task.__traceback__ is not None
