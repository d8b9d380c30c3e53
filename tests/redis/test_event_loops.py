"""One store in several event loops, threads and processes, and at the end of a program."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core.testing import OverlapRecorder
from limiter_redis import RedisStore
from tests.core._tools import fork

from ._servers import Process, Server
from ._tools import until_now, until_waiting

KEY = "scope/key"
ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


def test_a_second_event_loop(server: Server) -> None:
    """Row 31: two `asyncio.run` with one limiter, which nobody closed in between."""
    store = RedisStore(server.url)
    limiter = Limiter(store)

    async def use() -> None:
        async with limiter.hold(ONE):
            with pytest.raises(WaitTimeout):
                await asyncio.create_task(limiter.acquire(ONE, timeout=0.5))
        assert [key async for key in limiter.keys()] == []

    for _ in range(3):
        asyncio.run(use())
    assert len(store.session._async_transports) <= 1
    store.close()


@pytest.mark.parametrize("turns", range(4))
def test_streams_that_are_open_when_the_loop_ends(
    server: Server, turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    """`asyncio.run` closes them and the connection in one turn; the slots are free at once.

    Also if they clean up for some turns of the loop, while the connection is being closed.
    """
    store = RedisStore(server.url)
    limiter = Limiter(store)
    streams: list[AsyncIterator[int]] = []

    @limiter.limited(ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=5))
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)

    async def main() -> None:
        for _ in range(3):
            streams.append(numbers())
            assert await anext(streams[-1]) == 0

    with SyncLimiter(server.url) as look:
        for _ in range(10):  # the order of what is closed varies
            asyncio.run(main())
            assert look.inspect("one").in_use == 0
    assert not caplog.records
    store.close()


def test_an_interrupt_while_the_loop_ends(own_server: Process) -> None:
    """Ctrl-C, as the loop waits for a server that does not answer; what is left says nothing."""
    store = RedisStore(own_server.url)
    limiter = Limiter(store)
    streams: list[AsyncIterator[int]] = []

    def interrupt(turns: int) -> None:
        if not turns:
            raise KeyboardInterrupt
        asyncio.get_running_loop().call_soon(interrupt, turns - 1)

    @limiter.limited(ONE)
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
        finally:
            interrupt(turns=10)

    async def main() -> None:
        streams.append(numbers())
        assert await anext(streams[-1]) == 0
        frozen.enter_context(own_server.frozen())

    with ExitStack() as frozen:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        gc.collect()  # a generator that cannot be closed would say so
    with SyncLimiter(own_server.url) as look:
        until_now(lambda: look.inspect("one").in_use == 0, "the slot is released")
    store.close()


def test_event_loops_of_several_threads(server: Server) -> None:
    """S6: all loops of a process share the slots, and receive messages by one renewer."""
    before = set(threading.enumerate())  # the renewer of a store that was closed may still end
    store = RedisStore(server.url)
    limiter = Limiter(store)
    recorder = OverlapRecorder()

    async def use() -> None:
        async def call() -> None:
            async with limiter.hold(ONE):
                with recorder.holding("one", limit=1):
                    await asyncio.sleep(0)

        await asyncio.gather(*(call() for _ in range(25)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: asyncio.run(use()), range(8)))
    recorder.assert_within("one", 1)
    made = set(threading.enumerate()) - before
    assert sum(thread.name == "limiter-lease-renewer" for thread in made) == 1
    store.close()


def test_a_waiter_whose_event_loop_ended_is_withdrawn(server: Server) -> None:
    """S15; row 31: `asyncio.run` cancels it, and its ticket is given back before the loop ends."""
    store = RedisStore(server.url)
    limiter = Limiter(store)
    holder = SyncLimiter(store).acquire(ONE)

    async def leave_a_waiter() -> None:
        task = asyncio.create_task(limiter.acquire(ONE))
        await until_waiting(Limiter(store), ONE, 1)
        assert not task.done()

    asyncio.run(leave_a_waiter())
    assert SyncLimiter(store).inspect(ONE).waiting == 0
    holder.release()
    store.close()


def test_a_holder_whose_event_loop_ended_gives_back(server: Server) -> None:
    """S15; row 31: a task that is still in its body when `asyncio.run` ends."""
    store = RedisStore(server.url)
    limiter = Limiter(store)

    async def leave_a_holder() -> None:
        began = asyncio.Event()

        async def hold() -> None:
            async with limiter.hold(ONE):
                began.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await began.wait()
        assert not task.done()

    asyncio.run(leave_a_holder())
    assert SyncLimiter(store).inspect(ONE).in_use == 0
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_neither_renews_nor_releases(server: Server) -> None:
    """Row 30: it has connections of its own, and none of its parent's leases."""
    store = RedisStore(server.url)
    limiter = SyncLimiter(store)
    lease = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=2))
    until_now(lambda: store.session.renewer.listening, "the renewer runs")
    read, write = os.pipe()
    child = fork()
    if child == 0:
        try:
            held = len(store.session.tracker.entries)
            renewers = sum(each.name == "limiter-lease-renewer" for each in threading.enumerate())
            taken = limiter.try_acquire(ONE) is not None
            other = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("two")))
            own = other.fencing_token > lease.fencing_token
            lease.release()  # of the parent: not the child's to give back
            os.write(write, repr((held, renewers, taken, own)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == repr((0, 0, False, True))
    assert not lease.lost
    lease.release()
    assert limiter.inspect(ONE).in_use == 0
    store.close()


PROGRAMS = {
    "threads": """
        from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
        limiter = SyncLimiter(sys.argv[1])
        with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant("one"))):
            pass
    """,
    "threads-still-holding": """
        from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
        limiter = SyncLimiter(sys.argv[1])
        lease = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=2))
    """,
    "asyncio": """
        import asyncio
        from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
        limiter = Limiter(sys.argv[1])
        async def main():
            async with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant("one"))):
                pass
            print([key async for key in limiter.keys()])
        asyncio.run(main())
    """,
    "asyncio-still-holding": """
        import asyncio
        from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
        limiter = Limiter(sys.argv[1])
        async def main():
            return await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant("one"), lease=2))
        lease = asyncio.run(main())
    """,
    "asyncio-interrupted": """
        import asyncio
        from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
        limiter = Limiter(sys.argv[1])
        limit = ConcurrencyLimit(LIMIT_BY.constant("one"))
        async def wait():
            async with limiter.hold(limit):
                await asyncio.Event().wait()
        async def main():
            async with asyncio.timeout(0.3):
                await asyncio.gather(*(wait() for _ in range(50)))
        try:
            asyncio.run(main())
        except TimeoutError:
            pass
    """,
    "asyncio-all-cancelled": """
        import asyncio
        from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
        limit = ConcurrencyLimit(LIMIT_BY.constant("one"))
        async def hold(limiter):
            async with limiter.hold(limit):
                pass
        async def main():
            for turns in range(12):
                limiter = Limiter(sys.argv[1])
                holding = asyncio.create_task(hold(limiter))
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await asyncio.wait([holding])
                await limiter.aclose()
        asyncio.run(main())
    """,
    "never-used": """
        from limiter_core import Limiter, SyncLimiter
        Limiter(sys.argv[1]), SyncLimiter(sys.argv[1])
    """,
}


# What asyncio's debug mode says of a busy machine is no fault of the program.
QUIET = """\
import logging, sys
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing "))
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_ends_cleanly(program: str, server: Server) -> None:
    """No warning, no traceback, no thread that keeps it alive; also if it never closes anything."""
    text = QUIET + textwrap.dedent(PROGRAMS[program])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", text, server.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if not program.endswith("holding"):
        limiter = SyncLimiter(server.url)
        assert list(limiter.keys()) == []
        limiter.close()


@pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="needs trio")
def test_trio_is_told_what_to_do_instead(server: Server) -> None:
    """redis-py knows asyncio only."""
    import trio

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="SyncLimiter"):
            async with Limiter(server.url) as limiter, limiter.hold(ONE):
                pass

    trio.run(main)
