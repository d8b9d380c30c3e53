"""A store that cannot be reached: retries, `StoreUnavailable`, and calls admitted without it."""

from __future__ import annotations

import gc
import logging
import time

import anyio
import pytest

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Limiter,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
    WaitTimeout,
)
from limiter_core.events import Event, StoreFailed

from ._stores import RemoteStore
from ._tools import PATIENCE, Thread, until, until_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("key"))


@pytest.fixture
def remote() -> RemoteStore:
    return RemoteStore(steps=1, hints_only=True)


async def test_a_call_waits_through_an_outage(remote):
    limiter = Limiter(remote)
    remote.down = True
    tokens: list[int] = []

    async def call() -> None:
        async with limiter.hold(ONE) as lease:
            tokens.append(lease.fencing_token)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await until(lambda: remote.asked >= 3, "the store is asked again and again")
        remote.down = False
    assert len(tokens) == 1
    assert list(remote.inner.keys()) == []


def test_a_thread_waits_through_an_outage(remote):
    remote.down = True
    thread = Thread(lambda: SyncLimiter(remote).run(ONE, lambda: "ran"))
    until_now(lambda: remote.asked >= 3, "the store is asked again and again")
    remote.down = False
    assert thread.result() == "ran"
    assert list(remote.inner.keys()) == []


async def test_the_timeout_ends_the_retries_with_the_drivers_error_as_cause(remote):
    remote.down = True
    started_at = time.monotonic()
    for call in (
        lambda: Limiter(remote).acquire(ONE, timeout=0.1),
        lambda: anyio.to_thread.run_sync(lambda: SyncLimiter(remote).acquire(ONE, timeout=0.1)),
    ):
        remote.asked = 0
        with pytest.raises(StoreUnavailable) as failure:
            await call()
        assert isinstance(failure.value.__cause__, OSError)
        assert remote.asked >= 2
    assert 0.2 <= time.monotonic() - started_at < PATIENCE


async def test_a_store_that_went_away_while_the_call_waited(remote):
    limiter = Limiter(remote)
    lease = await Limiter(remote).acquire(ONE)
    failures: list[BaseException] = []

    async def waiter() -> None:
        try:
            await limiter.acquire(ONE, timeout=0.1)
        except (StoreUnavailable, WaitTimeout) as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter)
        await until(lambda: remote.inner.inspect("key").waiting == 1, "one waits")
        remote.down = True
    remote.down = False
    await lease.release()
    assert [type(failure) for failure in failures] == [StoreUnavailable]


@pytest.mark.parametrize("timeout", [0, None])
async def test_a_call_that_does_not_wait_fails_at_once(remote, timeout):
    remote.down = True
    limiter, threads = Limiter(remote), SyncLimiter(remote)
    with pytest.raises(StoreUnavailable):
        await (limiter.try_acquire(ONE) if timeout is None else limiter.acquire(ONE, timeout=0))
    with pytest.raises(StoreUnavailable):
        threads.try_acquire(ONE) if timeout is None else threads.acquire(ONE, timeout=0)
    assert remote.asked == 2


async def test_admit_lets_calls_run_without_a_slot_and_counts_them(remote, caplog):
    limiter = Limiter(remote, on_store_error="admit")
    threads = SyncLimiter(remote, on_store_error="admit")
    remote.down = True
    async with limiter.hold(ONE) as lease, limiter.hold(ONE):
        assert lease.fencing_token == 0
        assert lease.expires_in() > 0
        assert not lease.lost
        lease.check()
    assert await limiter.try_acquire(ONE) is not None
    with threads.hold(ONE) as lease:
        assert lease.fencing_token == 0
    assert (limiter.admitted_without_store, threads.admitted_without_store) == (3, 1)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "calls run without a slot until the store can be used" in warnings[0].message
    assert "no answer" in warnings[0].message
    assert len(warnings) == 5
    assert all("admitted a call without a slot" in each.message for each in warnings[1:])
    assert "no answer" in warnings[1].message


async def test_a_call_admitted_without_a_slot_has_none_to_lose(remote):
    """Its `max_hold` bounds how long a slot is kept, and it keeps none."""
    limit = ConcurrencyLimit(LIMIT_BY.constant("key"), max_hold=0.05)
    remote.down = True
    async with Limiter(remote, on_store_error="admit").hold(limit) as lease:
        await anyio.sleep(0.3)  # several times as long: nothing is to happen
        assert not lease.lost
        lease.check()
    with SyncLimiter(remote, on_store_error="admit").hold(limit) as sync_lease:
        assert not sync_lease.lost


async def test_admit_limits_as_usual_while_the_store_is_there(remote):
    limiter = Limiter(remote, on_store_error="admit")
    async with limiter.hold(ONE):
        assert await limiter.try_acquire(ONE) is None
    assert limiter.admitted_without_store == 0


async def test_a_call_that_was_admitted_without_a_slot_is_no_self_deadlock(remote):
    limiter = Limiter(remote, on_store_error="admit")
    remote.down = True
    async with limiter.hold(ONE):
        remote.down = False
        async with Limiter(remote).hold(ONE):
            with pytest.raises(WaitTimeout):
                await limiter.acquire(ONE, timeout=0.01)


async def test_a_call_inside_of_a_hold_of_its_key_waits_through_an_outage(remote):
    """The store is asked in a way that disturbs nobody first; an outage then is one like others."""
    limiter = Limiter(remote)
    two = ConcurrencyLimit(LIMIT_BY.constant("key"), 2)
    inner: list[int] = []

    async def end_outage() -> None:
        await until(lambda: remote.asked >= 4, "the store is asked again and again")
        remote.down = False

    async with limiter.hold(two), anyio.create_task_group() as tasks:
        remote.down = True
        tasks.start_soon(end_outage)
        async with limiter.hold(two) as lease:
            inner.append(lease.fencing_token)
    assert len(inner) == 1
    assert list(remote.inner.keys()) == []


def test_a_call_inside_of_a_hold_of_its_key_waits_through_an_outage_in_a_thread(remote):
    limiter = SyncLimiter(remote)
    two = ConcurrencyLimit(LIMIT_BY.constant("key"), 2)

    def nested() -> str:
        with limiter.hold(two):
            remote.down = True
            return limiter.run(two, lambda: "ran")

    thread = Thread(nested)
    until_now(lambda: remote.asked >= 4, "the store is asked again and again")
    remote.down = False
    assert thread.result() == "ran"
    assert list(remote.inner.keys()) == []


async def test_a_release_that_fails_does_not_fail_the_body(remote, caplog):
    async with Limiter(remote).hold(ONE):
        remote.down = True
    remote.down = True
    with pytest.raises(LookupError, match="the body's own"):
        await _fails(remote)
    assert caplog.text.count("could not release ('key',), its lease ends by itself") == 2


async def _fails(remote: RemoteStore) -> None:
    remote.down = False
    async with Limiter(remote).hold(ConcurrencyLimit(LIMIT_BY.constant("key"), max_concurrent=9)):
        remote.down = True
        raise LookupError("the body's own")


def test_a_release_that_fails_does_not_fail_a_thread(remote, caplog):
    with SyncLimiter(remote).hold(ONE):
        remote.down = True
    assert "could not release" in caplog.text


async def test_an_operator_is_told_that_the_store_is_away(remote):
    remote.down = True
    limiter = Limiter(remote)
    for call in (limiter.inspect(ONE), limiter.pause("key"), limiter.evict("id")):
        with pytest.raises(StoreUnavailable):
            await call
    with pytest.raises(StoreUnavailable):
        SyncLimiter(remote).set_limit("key", 1)


class BrokenStore(RemoteStore):
    """Answers with an error, which is not the same as no answer."""

    def check(self) -> None:
        raise StoreError("WRONGTYPE")


@pytest.mark.parametrize("on_store_error", ["raise", "admit"])
async def test_a_store_that_answers_with_an_error_is_not_asked_again(on_store_error):
    broken = BrokenStore()
    limiter = Limiter(broken, on_store_error=on_store_error)
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await limiter.acquire(ONE)
    with pytest.raises(StoreError, match="WRONGTYPE"):
        SyncLimiter(broken, on_store_error=on_store_error).acquire(ONE)
    assert limiter.admitted_without_store == 0


class NamelessStore(RemoteStore):
    """Named by its address, which another one may have once it is collected."""

    def __repr__(self) -> str:
        return "<NamelessStore object at 0x7f0000000000>"


def outages_seen(store: RemoteStore) -> int:
    """Have a call admitted without its store; return how many observers are sent that it failed."""
    seen: list[Event] = []
    store.down = True
    limiter = SyncLimiter(store, on_store_error="admit", observe=seen.append)
    limiter.acquire(ONE).release()
    return sum(isinstance(event, StoreFailed) for event in seen)


def test_a_store_at_the_address_of_one_that_failed_has_an_outage_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The records that pytest keeps refer to errors, and these to all that called.
    monkeypatch.setattr(logging.getLogger("limiter"), "disabled", True)
    assert outages_seen(NamelessStore()) == 1
    gc.collect()
    assert outages_seen(NamelessStore()) == 1
