"""The async front door: hold, acquire, try_acquire, limited and run, on asyncio and on trio."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, WaitTimeout

from ._tools import OverlapRecorder, keys_in_use, until_waiting

BY_CUSTOMER = ConcurrencyLimit("customer_id", max_concurrent=1)
PAIR = ConcurrencyLimit(LIMIT_BY.constant("pair"), max_concurrent=2)


async def test_hold_holds_a_slot_for_the_block(limiter):
    async with limiter.hold(BY_CUSTOMER, {"customer_id": 42}) as lease:
        assert lease.keys == ("customer_id=42",)
        assert await keys_in_use(limiter) == ["customer_id=42"]
        assert await limiter.try_acquire(BY_CUSTOMER, {"customer_id": 42}) is None
    assert await keys_in_use(limiter) == []


async def test_another_key_is_another_slot(limiter):
    one, other = {"customer_id": 42}, {"customer_id": 43}
    async with limiter.hold(BY_CUSTOMER, one), limiter.hold(BY_CUSTOMER, other):
        assert len(await keys_in_use(limiter)) == 2


async def test_never_more_than_the_limit_and_all_get_through(limiter):
    recorder = OverlapRecorder()

    async def call() -> None:
        async with limiter.hold(PAIR):
            with recorder.inside("pair"):
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(call)
    assert recorder.entered == 50
    assert recorder.highest == {"pair": 2}


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), GeneratorExit()])
async def test_a_body_that_raises_gives_its_slot_back(limiter, error):
    with pytest.raises(type(error)):
        async with limiter.hold(PAIR):
            raise error
    assert await keys_in_use(limiter) == []


async def test_a_hold_can_be_entered_once(limiter):
    hold = limiter.hold(PAIR)
    async with hold:
        pass
    with pytest.raises(ConfigurationError, match="entered once"):
        await hold.__aenter__()
    assert await keys_in_use(limiter) == []


async def test_a_hold_that_got_no_slot_can_be_entered_again(limiter):
    one = ConcurrencyLimit(LIMIT_BY.constant("one"))
    hold = limiter.hold(one, timeout=0)
    lease = await Limiter(limiter._engine.store).acquire(one)
    with pytest.raises(WaitTimeout):
        await hold.__aenter__()
    await lease.release()
    async with hold:
        assert await keys_in_use(limiter) == ["one"]


async def test_acquire_keeps_the_slot_until_the_release(limiter):
    lease = await limiter.acquire(BY_CUSTOMER, {"customer_id": 42})
    assert await keys_in_use(limiter) == ["customer_id=42"]
    await lease.release()
    assert await keys_in_use(limiter) == []


async def test_acquire_waits_for_the_release(store, limiter):
    order: list[str] = []

    async def waiter() -> None:
        lease = await limiter.acquire(BY_CUSTOMER, {"customer_id": 42})
        order.append("acquired")
        await lease.release()

    lease = await limiter.acquire(BY_CUSTOMER, {"customer_id": 42})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter)
        await until_waiting(store, "customer_id=42", 1)
        order.append("released")
        await lease.release()
    assert order == ["released", "acquired"]


async def test_a_lease_may_be_released_by_another_task(limiter):
    lease = await limiter.acquire(PAIR)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lease.release)
    assert await keys_in_use(limiter) == []


async def test_try_acquire_returns_a_lease_or_none(limiter):
    leases = [await limiter.try_acquire(PAIR) for _ in range(3)]
    assert [lease is not None for lease in leases] == [True, True, False]
    for lease in leases[:2]:
        await lease.release()


async def test_try_acquire_does_not_take_a_slot_that_somebody_waits_for(store, limiter):
    wide = ConcurrencyLimit(LIMIT_BY.constant("pair"), max_concurrent=2, cost=2)
    async with anyio.create_task_group() as tasks, limiter.hold(PAIR):
        tasks.start_soon(limiter.run, wide, anyio.sleep, 0)
        await until_waiting(store, "pair", 1)
        assert await limiter.try_acquire(PAIR) is None


async def test_limited_binds_the_arguments_by_signature(limiter):
    held: list[list[str]] = []

    @limiter.limited(ConcurrencyLimit(["customer_id", "amount"]))
    async def bill(customer_id: int, amount: int = 5) -> int:
        held.append(await keys_in_use(limiter))
        return customer_id + amount

    assert await bill(42) == 47
    assert await bill(amount=1, customer_id=42) == 43
    assert held == [["customer_id=42,amount=5"], ["customer_id=42,amount=1"]]


async def test_limited_by_function_name(limiter):
    @limiter.limited(ConcurrencyLimit(LIMIT_BY.fn_name))
    async def bill() -> list[str]:
        return await keys_in_use(limiter)

    (key,) = await bill()
    assert key.startswith(f"{__name__}.test_limited_by_function_name.")
    assert key.endswith("bill()")


async def test_limited_passes_on_what_the_function_raises(limiter):
    @limiter.limited(PAIR)
    async def fail() -> None:
        raise LookupError("boom")

    with pytest.raises(LookupError, match="boom"):
        await fail()
    assert await keys_in_use(limiter) == []


async def test_limited_has_a_timeout_of_its_own(limiter):
    one = ConcurrencyLimit(LIMIT_BY.constant("one"), timeout=60)

    @Limiter(limiter._engine.store).limited(one, timeout=0)
    async def call() -> None: ...

    async with limiter.hold(one):
        with pytest.raises(WaitTimeout):
            await call()


async def test_run_calls_the_function_with_its_arguments(limiter):
    async def bill(customer_id: int, amount: int = 5) -> tuple[int, int, list[str]]:
        return customer_id, amount, await keys_in_use(limiter)

    assert await limiter.run(BY_CUSTOMER, bill, 42, amount=3) == (42, 3, ["customer_id=42"])


async def test_run_passes_names_on_that_are_its_own(limiter):
    async def function(self: int, limits: int, function: int) -> int:
        return self + limits + function

    assert await limiter.run(PAIR, function, self=1, limits=2, function=3) == 6


async def test_two_functions_limited_by_an_argument_share_its_slots(limiter):
    @limiter.limited(BY_CUSTOMER)
    async def bill(customer_id: int) -> list[str]:
        return await keys_in_use(limiter)

    @limiter.limited(BY_CUSTOMER)
    async def refund(customer_id: int) -> list[str]:
        return await keys_in_use(limiter)

    assert await bill(42) == await refund(42) == ["customer_id=42"]


async def test_key_for_takes_nothing(limiter):
    assert await limiter.key_for(BY_CUSTOMER, {"customer_id": 42}) == "customer_id=42"
    assert await keys_in_use(limiter) == []


async def test_a_limiter_closes_itself_as_a_context_manager(store):
    async with Limiter(store) as limiter, limiter.hold(PAIR):
        pass
    with pytest.raises(ConfigurationError, match="closed"):
        await limiter.acquire(PAIR)
