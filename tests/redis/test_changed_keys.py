"""A job whose limits have other keys when its turn comes than when it was parked."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from limiter_core import LIMIT_BY, ArgumentView, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core.jobs import Held, Job, JobGate, SyncJobGate, Waiting
from limiter_core.requests import Notice
from limiter_memory import MemoryStore
from limiter_redis import RedisStore

from ._servers import Process

CRM = ConcurrencyLimit(LIMIT_BY.constant("crm"), 1, name="crm")


def tier(call: ArgumentView) -> str:
    """Return what a tenant's table says when it is asked."""
    return str(call["tiers"][0])


TIER = ConcurrencyLimit(LIMIT_BY.fn(tier), 1, name="tier")


def job(name: str, tiers: list[str], *, keys: tuple[str, ...] = (), alone: bool = False) -> Job:
    limits = (TIER,) if alone else (TIER, CRM)
    return Job(f"{name}#1", limits, ArgumentView({"tiers": tiers}, "bill"), b"job", keys=keys)


def use(limiter: SyncLimiter, *keys: str) -> list[tuple[int, int]]:
    return [((found := limiter.inspect(key)).in_use, found.waiting) for key in keys]


KEYS = "key:gold", "key:iron", "crm"


@pytest.mark.parametrize("when", ["granted", "waiting"])
def test_it_does_not_wait_behind_itself(server: Process, when: str) -> None:
    """Whichever process asks: one that does not know on which keys it waits."""
    tiers, notices = ["gold"], list[Notice]()
    store, other = RedisStore(server.url), RedisStore(server.url)
    parking = SyncJobGate(store, "queue", notices.append)
    asking = SyncJobGate(other, "queue", notices.append)
    parking.sweep()
    with SyncLimiter(server.url) as limiter:
        first = parking.admit(job("first", tiers))
        assert not isinstance(first, Waiting | Held)
        assert isinstance(parking.admit(job("second", tiers)), Waiting)
        if when == "granted":
            first.release()
        tiers[:] = ["iron"]
        second = asking.admit(job("second", tiers))
        if isinstance(second, Waiting):
            assert when == "waiting"
            assert use(limiter, *KEYS) == [(1, 0), (0, 0), (1, 1)]
            first.release()
            second = asking.admit(job("second", tiers))
        assert not isinstance(second, Waiting | Held)
        assert use(limiter, *KEYS) == [(0, 0), (1, 0), (1, 0)]
        assert isinstance(parking.admit(job("second", ["zinc"])), Held), "it runs: by its other key"
        second.release()
        assert use(limiter, *KEYS) == [(0, 0)] * 3
    for each in (parking, asking):
        each.close()


def test_it_leaves_the_keys_that_its_adapter_names(server: Process) -> None:
    tiers = ["gold"]
    gate = SyncJobGate(RedisStore(server.url), "queue", lambda _: None)
    gate.sweep()
    with SyncLimiter(server.url) as limiter:
        first = gate.admit(job("first", tiers, alone=True))
        assert not isinstance(first, Waiting | Held)
        assert isinstance(gate.admit(job("second", tiers, alone=True)), Waiting)
        first.release()
        assert use(limiter, *KEYS[:2]) == [(1, 0), (0, 0)], "it is kept for the second"
        second = gate.admit(job("second", ["iron"], keys=("key:gold",), alone=True))
        assert not isinstance(second, Waiting | Held)
        assert use(limiter, *KEYS[:2]) == [(0, 0), (1, 0)]
        again = gate.admit(job("second", ["zinc"], keys=("key:iron",), alone=True))
        assert isinstance(again, Held), "it runs"
        second.release()
    gate.close()


def test_it_is_dropped_where_its_adapter_says_that_it_waits(server: Process) -> None:
    """A process asked for other keys before: those of a release of the program that goes."""
    old, new = (SyncJobGate(RedisStore(server.url), "queue", lambda _: None) for _ in range(2))
    with SyncLimiter(server.url) as limiter, ExitStack() as stack:
        for gate, key in ((old, "gold"), (new, "iron")):
            gate.sweep()
            stack.enter_context(limiter.hold(TIER, {"tiers": [key]}))
        assert isinstance(old.admit(job("second", ["gold"], alone=True)), Waiting)
        again = job("second", ["iron"], keys=("key:gold",), alone=True)
        assert isinstance(new.admit(again), Waiting)
        assert use(limiter, *KEYS[:2]) == [(1, 0), (1, 1)]
        assert old.drop("second#1", ("key:iron",))
        assert use(limiter, *KEYS[:2]) == [(1, 0), (1, 0)]
    for gate in (old, new):
        gate.close()


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_it_leaves_the_keys_of_which_its_process_knows(server: Process, kind: str) -> None:
    tiers = ["gold"]
    store = RedisStore(server.url) if kind == "redis" else MemoryStore()

    async def notice(_: Notice) -> bool:
        return True

    async with Limiter(store) as limiter, JobGate(store, "queue", notice) as gate:
        first = await gate.admit(job("first", tiers, alone=True))
        assert not isinstance(first, Waiting | Held)
        assert isinstance(await gate.admit(job("second", tiers, alone=True)), Waiting)
        second = await gate.admit(job("second", ["iron"], alone=True))
        assert not isinstance(second, Waiting | Held)
        assert (await limiter.inspect("key:gold")).waiting == 0
        await first.release()
        assert (await limiter.inspect("key:gold")).in_use == 0
        await second.release()


def test_what_was_looked_up_is_asked_for(server: Process) -> None:
    """A body that has begun claims the slot that is kept for it, whatever its key is by now."""
    tiers = ["gold"]
    gate = SyncJobGate(RedisStore(server.url), "queue", lambda _: None)
    first = gate.looked_up(job("first", tiers))
    tiers[:] = ["iron"]
    lease = gate.admit(first)
    assert not isinstance(lease, Waiting | Held)
    assert lease.keys == ("key:gold", "crm")
    lease.release()
    gate.close()


@pytest.mark.parametrize("when", ["granted", "waiting"])
@pytest.mark.parametrize("limits", [(CRM, TIER), (CRM,)], ids=["another second key", "none"])
def test_it_has_all_its_slots_where_the_first_key_stays(
    server: Process, when: str, limits: tuple[ConcurrencyLimit, ...]
) -> None:
    parking = SyncJobGate(RedisStore(server.url), "queue", lambda _: None)
    asking = SyncJobGate(RedisStore(server.url), "queue", lambda _: None)
    parking.sweep()

    def changing(name: str, tier: str, limits: tuple[ConcurrencyLimit, ...]) -> Job:
        return Job(f"{name}#1", limits, ArgumentView({"tiers": [tier]}, "bill"), b"job")

    with SyncLimiter(server.url) as limiter:
        first = parking.admit(changing("first", "gold", (CRM, TIER)))
        assert not isinstance(first, Waiting | Held)
        assert isinstance(parking.admit(changing("second", "gold", (CRM, TIER))), Waiting)
        if when == "granted":
            first.release()
        second = asking.admit(changing("second", "iron", limits))
        if isinstance(second, Waiting):
            assert when == "waiting"
            first.release()
            second = asking.admit(changing("second", "iron", limits))
        assert not isinstance(second, Waiting | Held)
        assert use(limiter, *KEYS) == [(0, 0), (len(limits) - 1, 0), (1, 0)]
        second.release()
        assert use(limiter, *KEYS) == [(0, 0)] * 3
    for each in (parking, asking):
        each.close()


async def test_a_delivery_that_runs_on_the_old_keys_is_found_each_time(server: Process) -> None:
    async def notice(_: Notice) -> bool:
        return True

    async with JobGate(RedisStore(server.url), "queue", notice) as gate:
        first = await gate.admit(job("first", ["gold"], alone=True))
        assert not isinstance(first, Waiting | Held)
        for _ in range(3):
            assert isinstance(await gate.admit(job("first", ["iron"], alone=True)), Held)
        await first.release()
