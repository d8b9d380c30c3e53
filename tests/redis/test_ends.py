"""Ends: of an interpreter, of its executors, and of event loops that were made by hand."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, StoreError, SyncLimiter
from limiter_redis import RedisStore

from ._servers import PATIENCE, Process, Server
from ._tools import until, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("k"), 1)

HEAD = """
import asyncio, atexit, sys, threading, time
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, StoreError, SyncLimiter

url = sys.argv[1]
one = ConcurrencyLimit(LIMIT_BY.constant("k"), 1)

def hold():
    try:
        with SyncLimiter(url) as limiter, limiter.hold(one, timeout=5):
            print("held")
    except StoreError as error:
        assert any(said in str(error) for said in ("no thread can begin", "is ending")), error
        print("refused")

async def hold_async():
    try:
        async with Limiter(url) as limiter:
            async with limiter.hold(one, timeout=5):
                print("held")
    except StoreError as error:
        assert any(said in str(error) for said in ("no thread can begin", "is ending")), error
        print("refused")

def after_main(work):
    threading.main_thread().join()
    work()
"""
ENDS = {
    "an exit hook": "atexit.register(hold)",
    "an exit hook, in a loop": "atexit.register(lambda: asyncio.run(hold_async()))",
    "a thread behind the main one": "threading.Thread(target=after_main, args=[hold]).start()",
    "a thread behind the main one, in a loop": (
        "threading.Thread(target=after_main, args=[lambda: asyncio.run(hold_async())]).start()"
    ),
}


@pytest.mark.parametrize("imported", ["", "import limiter_redis\n"], ids=["", "imported"])
@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_is_ending(end: str, imported: str, server: Server) -> None:
    """A first hold works, or says why not; closing works without any executor."""
    run = subprocess.run(
        [sys.executable, "-c", f"{HEAD}{imported}{ENDS[end]}", server.url],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (run.stdout.strip() in ("held", "refused"), run.stderr) == (True, "")


MANY_STORES = """
import os, signal, sys, time
from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
from limiter_redis import RedisStore

one = ConcurrencyLimit(LIMIT_BY.constant("k"), 1)
stores = [RedisStore(sys.argv[1], namespace=f"of-{number}") for number in range(12)]
leases = [SyncLimiter(store).acquire(one) for store in stores]
os.kill(int(sys.argv[2]), signal.SIGSTOP)
for store, lease in zip(stores, leases):
    store.session.abandon(lease.id, "k")
print(time.monotonic(), flush=True)
"""


def test_a_program_that_ends_has_all_its_stores_release_at_once(own_server: Process) -> None:
    """Where a server hangs, the end takes as long with many stores as with one: two seconds."""
    pid = own_server.pid
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MANY_STORES, own_server.url, str(pid)],
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    )
    took = time.monotonic() - float(run.stdout)
    own_server.signal(signal.SIGCONT)
    assert took < 15.0  # one after the other they take 24


@pytest.mark.parametrize("other_layout", [False, True], ids=["granted", "refused by the store"])
def test_a_closed_store_has_no_thread(server: Server, other_layout: bool) -> None:
    before = {*threading.enumerate()}
    if other_layout:
        server.admin.set("{limiter}:layout", "0 of another release", ex=100)
    store = RedisStore(server.url)
    with suppress(StoreError):
        SyncLimiter(store).acquire(ONE).release()
    assert {*threading.enumerate()} - before
    store.close()
    # A connection that was being opened is closed as soon as it is open.
    left = {*threading.enumerate()} - before
    assert {thread.name for thread in left} <= {"limiter-connect"}
    until_now(lambda: not {*threading.enumerate()} - before, "no thread is left")


async def test_closing_needs_no_executor(server: Server) -> None:
    """It may be gone, or busy for long."""
    limiter = Limiter(server.url)
    async with limiter.hold(ONE):
        pass
    await asyncio.get_running_loop().shutdown_default_executor()
    await limiter.aclose()


async def test_closing_waits_for_nobody_in_the_executor(server: Server) -> None:
    go_on = threading.Event()
    busy = [asyncio.get_running_loop().run_in_executor(None, go_on.wait, 30) for _ in range(64)]
    async with Limiter(server.url) as limiter, limiter.hold(ONE):
        pass
    go_on.set()
    await asyncio.gather(*busy)


@pytest.mark.parametrize("kind", [Limiter, SyncLimiter])
@pytest.mark.parametrize("name", ["limiter-lease-renewer", "limiter-server"])
async def test_where_a_thread_cannot_begin_a_call_says_so(
    kind: Any, name: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves nothing behind: the next call, when threads can begin, works."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    store = RedisStore(server.url)
    limiter = kind(store)

    async def take() -> Any:
        lease = limiter.acquire(ONE)
        return await lease if kind is Limiter else lease

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StoreError, match="no thread can begin: can't start new thread"):
            await take()
        assert not store.session.tracker.entries
        await store.aclose()
    lease = await take()
    released = lease.release()
    if kind is Limiter:
        await released
    await store.aclose()


# -- loops -----------------------------------------------------------------------------------------


def in_a_loop_of_its_own(work: Callable[[], Any]) -> None:
    """As programs do that know no `asyncio.run`."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


def connections(server: Server) -> int:
    return int(server.admin.info("clients")["connected_clients"])


@pytest.fixture
def unclosed() -> Any:
    """What the collector found open, at the end of a test in which it did not come before."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResourceWarning)
        warnings.showwarning = lambda message, *_: found.append(str(message))
        yield found
        gc.collect()
    gc.enable()
    assert found == []


async def hold_for_ever(limiter: Limiter, holding: asyncio.Event) -> None:
    async with limiter.hold(ONE):
        holding.set()
        await asyncio.get_running_loop().create_future()


def test_a_slot_is_free_whose_holder_was_in_a_loop_that_was_closed(server: Server) -> None:
    """By hand, and its task was not cancelled: that will never go on, and is collected."""
    store = RedisStore(server.url)
    other = SyncLimiter(store)

    async def begin() -> None:
        holding = asyncio.Event()
        task = asyncio.create_task(hold_for_ever(Limiter(store), holding))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        await holding.wait()

    in_a_loop_of_its_own(begin)
    assert other.inspect("k").in_use == 1

    def is_free() -> bool:
        gc.collect()
        return other.inspect("k").in_use == 0

    until_now(is_free, "it is free before its lease could end, and is not renewed", patience=15.0)
    assert not store.session.tracker.entries
    store.close()


def test_loops_made_by_hand_leave_no_connections(server: Server, unclosed: Any) -> None:
    limiter = Limiter(server.url)

    async def work() -> None:
        async with limiter.hold(ONE):
            assert [key async for key in limiter.keys()] == ["k"]  # a connection for commands

    in_a_loop_of_its_own(work)
    before = connections(server)
    for _ in range(20):
        in_a_loop_of_its_own(work)
    until_now(lambda: connections(server) <= before, "the last one's are closed, too")
    limiter._engine.store.close()


def test_connections_end_soon_after_their_loops(server: Server, unclosed: Any) -> None:
    """Of many threads with a loop each, though nobody calls any more."""
    limiter = Limiter(server.url)

    async def work() -> None:
        async with limiter.hold(ONE):
            pass

    before = connections(server)
    threads = [threading.Thread(target=in_a_loop_of_its_own, args=[work]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    renewer = 2
    until_now(lambda: connections(server) <= before + renewer, "all loops' are closed", patience=5)
    limiter._engine.store.close()


async def test_a_loop_that_goes_on_keeps_its_connection(server: Server) -> None:
    """Another one's end is none of its business."""
    limiter = Limiter(server.url)
    async with limiter.hold(ONE):
        await asyncio.to_thread(in_a_loop_of_its_own, limiter.keys().__anext__)
        transport = limiter._engine.store.session.async_transport()
        await until(
            lambda: len(limiter._engine.store.session._async_transports) == 1,
            "the other is forgotten",
        )
    async with limiter.hold(ONE):
        assert limiter._engine.store.session.async_transport() is transport
    await limiter.aclose()
