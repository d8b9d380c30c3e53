"""Beginning and end: URLs, sharing, closing, a second event loop, a fork."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import anyio
import anyio.lowlevel
import pytest
import trio

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    Limiter,
    LimiterError,
    SyncLimiter,
)
from limiter_core._store_outages import _here
from limiter_core.errors import StoreUnavailable
from limiter_core.outage import _shared, outage_of_calls
from limiter_core.registry import open_store
from limiter_memory import MemoryStore

from ._tools import Thread, fork, keys_in_use, until_waiting_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))
BOTH = pytest.mark.parametrize("kind", [Limiter, SyncLimiter])


def test_memory_is_a_store_of_ones_own():
    with SyncLimiter("memory://").hold(ONE), SyncLimiter("memory://").hold(ONE):
        pass
    with SyncLimiter().hold(ONE), SyncLimiter().hold(ONE):
        pass


async def test_a_named_memory_is_one_for_all_that_name_it():
    async with Limiter("memory://shared").hold(ONE):
        assert SyncLimiter("memory://shared").try_acquire(ONE) is None
        with SyncLimiter("memory://other").hold(ONE):
            pass
    assert open_store("memory://shared") is open_store("memory://shared")


@BOTH
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://host", r"no store knows the URL scheme 'nosuch'.*installed are: .*memory"),
        ("memory", 'a store is named by a URL such as "memory://"'),
        ("", 'a store is named by a URL such as "memory://"'),
        ("memory://a/b", "no path and no options"),
        ("memory://a?b=c", "no path and no options"),
        ("memory://user@a", "no path and no options"),
        ("://", "no store knows the URL scheme ''"),
    ],
)
def test_a_url_that_names_no_store_is_refused(kind, url, message):
    with pytest.raises(ConfigurationError, match=message):
        kind(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nosuch://user:hunter2@host/0", "nosuch://***@host/0"),
        ("user:hunter2@host", "***@host"),
        ("redis:/user:hunter2@host", "***@host"),
        ("nosuch://host/0?password=hunter2&db=1", "nosuch://host/0?password=***&db=1"),
        ("nosuch://host#password=hunter2", "nosuch://host#password=***"),
        ("memory://user:hunter2@host", "memory://***@host"),
        ("memory://a?password=hunter2", "memory://a?password=***"),
    ],
)
def test_the_error_about_a_url_keeps_its_password_to_itself(url, shown):
    with pytest.raises(ConfigurationError) as refusal:
        Limiter(url)
    assert "hunter2" not in str(refusal.value)
    assert shown in str(refusal.value)


@BOTH
@pytest.mark.parametrize("store", [None, 5, object(), {}, b"memory://", MemoryStore])
def test_what_is_no_store_is_refused(kind, store):
    with pytest.raises(ConfigurationError, match="needs a store or its URL"):
        kind(store)


@BOTH
@pytest.mark.parametrize("wrong", ["open", None, True, []])
def test_on_store_error_is_one_of_two_words(kind, wrong):
    with pytest.raises(ConfigurationError, match='"raise" or "admit"'):
        kind(on_store_error=wrong)


async def test_a_closed_limiter_refuses_every_call(store):
    limiter = Limiter(store)
    await limiter.aclose()
    await limiter.aclose()
    calls = [
        lambda: limiter.acquire(ONE),
        lambda: limiter.try_acquire(ONE),
        lambda: limiter.hold(ONE).__aenter__(),
        lambda: limiter.run(ONE, anyio.sleep, 0),
        limiter.limited(ONE)(anyio.sleep_forever),
        lambda: limiter.inspect("key"),
        lambda: limiter.set_limit("key", 1),
        lambda: limiter.reset_limit("key"),
        lambda: limiter.pause("key"),
        lambda: limiter.resume("key"),
        lambda: limiter.evict("id"),
        lambda: keys_in_use(limiter),
        limiter.__aenter__,
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="this limiter is closed"):
            await call()


def test_a_closed_sync_limiter_refuses_every_call(store):
    limiter = SyncLimiter(store)
    limiter.close()
    limiter.close()
    calls = [
        lambda: limiter.acquire(ONE),
        lambda: limiter.try_acquire(ONE),
        lambda: limiter.hold(ONE).__enter__(),
        lambda: limiter.run(ONE, print),
        limiter.limited(ONE)(lambda: None),
        lambda: limiter.inspect("key"),
        lambda: limiter.set_limit("key", 1),
        lambda: limiter.reset_limit("key"),
        lambda: limiter.pause("key"),
        lambda: limiter.resume("key"),
        lambda: limiter.evict("id"),
        lambda: list(limiter.keys()),
        limiter.__enter__,
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="this limiter is closed"):
            call()


async def test_calls_that_run_when_the_limiter_closes_can_finish(store):
    limiter = Limiter(store)
    async with limiter.hold(ONE):
        await limiter.aclose()
    threads = SyncLimiter(store)
    with threads.hold(ONE):
        threads.close()


async def test_a_store_that_was_given_stays_open(store):
    async with Limiter(store):
        pass
    async with Limiter(store).hold(ONE):
        pass


@pytest.mark.parametrize("run", [asyncio.run, trio.run, anyio.run])
def test_row_31_one_limiter_serves_one_event_loop_after_another(store, run):
    limiter = Limiter(store)

    async def contend() -> list[int]:
        tokens: list[int] = []

        async def call() -> None:
            async with limiter.hold(ONE) as lease:
                await anyio.lowlevel.checkpoint()
                tokens.append(lease.fencing_token)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)
        return tokens

    def main() -> list[int]:
        return run(contend) if run is not asyncio.run else run(contend())

    first, second = main(), main()
    assert len(first) == len(second) == 5
    assert max(first) < min(second)


def test_row_31_a_lease_outlives_its_event_loop_and_can_be_released_in_the_next(store):
    limiter = Limiter(store)
    lease = asyncio.run(limiter.acquire(ONE))
    assert asyncio.run(limiter.try_acquire(ONE)) is None
    asyncio.run(lease.release())
    assert list(store.keys()) == []


def test_row_31_waiters_of_a_loop_that_was_closed_under_them_are_passed_over(store, threads):
    limiter = Limiter(store)
    loop = asyncio.new_event_loop()
    lease = threads.acquire(ONE)
    ghosts = [loop.create_task(limiter.acquire(ONE)) for _ in range(500)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert store.inspect("key").waiting == 500
    for ghost in ghosts:  # nobody will ever look at them
        ghost._log_destroy_pending = False
    patient = Thread(lambda: threads.run(ONE, lambda: "ran"))
    until_waiting_now(store, "key", 501)
    lease.release()
    assert patient.result() == "ran"


def in_child(work) -> object:
    """Do some work in a forked child, and return what it returned."""
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer, "the child died"
    return json.loads(answer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
class TestRow30Fork:
    """The child inherits no lease; the parent's are not touched."""

    def test_the_childs_store_starts_empty_and_works(self, store, threads):
        def work() -> list[object]:
            before = list(threads.keys())
            with threads.hold(ONE) as lease:
                return [before, list(threads.keys()), lease.id]

        with threads.hold(ONE) as lease:
            before, during, child_id = in_child(work)
            assert (before, during) == ([], ["key"])
            assert child_id.partition("-")[0] != lease.id.partition("-")[0]
            assert not lease.lost
            assert store.inspect("key").in_use == 1

    def test_releasing_an_inherited_lease_in_the_child_frees_nobodys_slot(self, threads):
        lease = threads.acquire(ONE)

        def work() -> int:
            own = threads.try_acquire(ONE)
            assert own is not None
            lease.release()
            return threads.inspect("key").in_use

        assert in_child(work) == 1
        assert threads.inspect("key").in_use == 1
        lease.release()

    def test_the_child_may_use_a_lock_that_a_parents_thread_held(self, store, threads):
        store._lock.acquire()
        try:
            assert in_child(lambda: threads.run(ONE, lambda: "ran")) == "ran"
        finally:
            store._lock.release()

    def test_the_child_may_note_an_outage_while_a_parents_thread_did(self):
        """Each lock of it may be held at the fork."""
        outage = outage_of_calls("fork://", admits=False)

        def work() -> bool:
            outage.began(StoreUnavailable("it is away"))
            outage.over()
            return outage_of_calls("fork://", admits=False) is outage

        with outage._lock, _shared.lock, _here.lock:
            assert in_child(work)

    def test_what_the_parent_held_is_no_self_deadlock_in_the_child(self, threads):
        def work() -> str:
            lease = Thread(threads.acquire, ONE).result()
            try:
                threads.acquire(ONE, timeout=0.001)
            except LimiterError as refusal:
                return type(refusal).__name__
            finally:
                lease.release()
            return "granted"

        with threads.hold(ONE):
            assert in_child(work) == "WaitTimeout"

    def test_the_operators_overrides_go_with_the_child(self, threads):
        threads.set_limit("key", 2)
        assert in_child(lambda: threads.inspect("key").override) == 2
        threads.reset_limit("key")


def test_a_store_serves_a_limiter_in_a_fresh_interpreter():
    code = "from limiter_core import *; print([*SyncLimiter().keys()])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_memory_store_has_both_faces():
    store = MemoryStore()
    assert store.capabilities.sync
    assert store.capabilities.asynchronous
    assert not store.capabilities.suspends
