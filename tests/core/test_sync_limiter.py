"""The sync front door: hold, acquire, try_acquire, limited and run, in threads."""

from __future__ import annotations

import time

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, SyncLimiter, WaitTimeout

from ._tools import OverlapRecorder, Thread, until_waiting_now

BY_CUSTOMER = ConcurrencyLimit("customer_id", max_concurrent=1)
PAIR = ConcurrencyLimit(LIMIT_BY.constant("pair"), max_concurrent=2)


def test_hold_holds_a_slot_for_the_block(threads):
    with threads.hold(BY_CUSTOMER, {"customer_id": 42}) as lease:
        assert lease.keys == ("customer_id=42",)
        assert list(threads.keys()) == ["customer_id=42"]
        assert threads.try_acquire(BY_CUSTOMER, {"customer_id": 42}) is None
    assert list(threads.keys()) == []


def test_never_more_than_the_limit_and_all_get_through(threads):
    recorder = OverlapRecorder()

    def calls() -> None:
        for _ in range(20):
            with threads.hold(PAIR), recorder.inside("pair"):
                time.sleep(0)

    for thread in [Thread(calls) for _ in range(8)]:
        thread.result()
    assert recorder.entered == 160
    assert recorder.highest["pair"] <= 2


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), GeneratorExit()])
def test_a_body_that_raises_gives_its_slot_back(threads, error):
    with pytest.raises(type(error)), threads.hold(PAIR):
        raise error
    assert list(threads.keys()) == []


def test_a_hold_can_be_entered_once(threads):
    hold = threads.hold(PAIR)
    with hold:
        pass
    with pytest.raises(ConfigurationError, match="entered once"):
        hold.__enter__()


def test_acquire_waits_for_the_release(store, threads):
    lease = threads.acquire(BY_CUSTOMER, {"customer_id": 42})
    order: list[str] = []

    def waiter() -> None:
        with threads.hold(BY_CUSTOMER, {"customer_id": 42}):
            order.append("acquired")

    thread = Thread(waiter)
    until_waiting_now(store, "customer_id=42", 1)
    order.append("released")
    lease.release()
    thread.result()
    assert order == ["released", "acquired"]


def test_a_lease_may_be_released_by_another_thread(threads):
    lease = threads.acquire(PAIR)
    Thread(lease.release).result()
    assert list(threads.keys()) == []


def test_try_acquire_returns_a_lease_or_none(threads):
    leases = [threads.try_acquire(PAIR) for _ in range(3)]
    assert [lease is not None for lease in leases] == [True, True, False]
    for lease in leases[:2]:
        lease.release()


def test_limited_binds_the_arguments_by_signature(threads):
    @threads.limited(ConcurrencyLimit(["customer_id", "amount"]))
    def bill(customer_id: int, amount: int = 5) -> list[str]:
        return list(threads.keys())

    assert bill(42) == ["customer_id=42,amount=5"]
    assert bill(amount=1, customer_id=42) == ["customer_id=42,amount=1"]


def test_limited_by_function_name(threads):
    @threads.limited(ConcurrencyLimit(LIMIT_BY.fn_name))
    def bill() -> list[str]:
        return list(threads.keys())

    assert bill() == threads.run(ConcurrencyLimit(LIMIT_BY.fn_name), bill.__wrapped__)


def test_limited_passes_on_what_the_function_raises(threads):
    @threads.limited(PAIR)
    def fail() -> None:
        raise LookupError("boom")

    with pytest.raises(LookupError, match="boom"):
        fail()
    assert list(threads.keys()) == []


def test_limited_has_a_timeout_of_its_own(store, threads):
    one = ConcurrencyLimit(LIMIT_BY.constant("one"), timeout=60)
    call = SyncLimiter(store).limited(one, timeout=0)(lambda: None)
    with threads.hold(one), pytest.raises(WaitTimeout):
        call()


def test_run_calls_the_function_with_its_arguments(threads):
    def bill(customer_id: int, amount: int = 5) -> tuple[int, int, list[str]]:
        return customer_id, amount, list(threads.keys())

    assert threads.run(BY_CUSTOMER, bill, 42, amount=3) == (42, 3, ["customer_id=42"])


def test_run_passes_names_on_that_are_its_own(threads):
    def function(self: int, limits: int, function: int) -> int:
        return self + limits + function

    assert threads.run(PAIR, function, self=1, limits=2, function=3) == 6


def test_run_calls_any_callable(threads):
    class Job:
        def __call__(self, customer_id: int) -> str:
            return f"job {customer_id}"

    assert threads.run(BY_CUSTOMER, Job(), 42) == "job 42"
    assert threads.run(PAIR, "text".upper) == "TEXT"


def test_a_limiter_closes_itself_as_a_context_manager(store):
    with SyncLimiter(store) as limiter, limiter.hold(PAIR):
        pass
    with pytest.raises(ConfigurationError, match="closed"):
        limiter.acquire(PAIR)
