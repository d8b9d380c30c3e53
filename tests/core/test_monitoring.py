"""The collector: what it finds, how often it looks, and what it does while the store is away."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from limiter_core import ConfigurationError, StoreError, StoreUnavailable
from limiter_core.monitoring import BUCKETS, Collector, Point, by_name
from limiter_core.monitoring import collector as collector_module
from limiter_core.requests import NO_LIMIT, Demand, Request
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._tools import until


class Store(MemoryStore):
    """A memory store on a fake clock, which counts looks, and can be away."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        super().__init__(clock=self.clock)
        self.looks: list[str] = []
        self.searches = 0
        self.away = False
        self.unreadable: set[str] = set()

    def inspect(self, key: str, deadline: float | None = None) -> Any:
        self.looks.append(key)
        self.fail_if_away()
        if key in self.unreadable:
            raise StoreError(f"the record of {key} cannot be read")
        return super().inspect(key, deadline)

    def keys(self) -> Any:
        self.searches += 1
        self.fail_if_away()
        return super().keys()

    def fail_if_away(self) -> None:
        if self.away:
            raise StoreUnavailable("the store at example:6379 does not answer")

    def hold(self, number: int | str, key: str, limit: int = 1, **more: Any) -> None:
        name = more.pop("name", "")
        self.acquire(
            Request(str(number), (Demand(key, limit, name=name),), lease=9e6, claim=9e6, **more)
        )


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def collector(store: Store) -> Collector:
    return Collector(store)


async def test_keys_are_found_and_looked_at(store: Store, collector: Collector) -> None:
    store.hold("a", "billing/customer_id=1", 2, name="customers")
    store.clock.advance(2)
    store.hold("b", "billing/customer_id=1", 2, name="customers")
    store.hold("c", "billing/customer_id=1", 2, name="customers")
    store.clock.advance(3)

    await collector.search()
    await collector.look()

    (status,) = collector.statuses()
    assert (status.key, status.name, status.scope) == (
        "billing/customer_id=1",
        "customers",
        "billing",
    )
    assert (status.limit, status.in_use, status.waiting, status.oldest_wait) == (2, 2, 1, 3.0)
    assert status.load == 1.5


async def test_what_it_shows_is_what_inspect_says(store: Store, collector: Collector) -> None:
    for number in range(7):
        store.hold(number, f"k{number % 3}", 2)
    store.set_limit("k0", 9)
    store.pause("k1")
    await collector.search()
    await collector.look()
    shown = {each.key: each for each in collector.statuses()}
    assert set(shown) == {"k0", "k1", "k2"}
    for key, status in shown.items():
        truth = store.inspect(key)
        assert (status.limit, status.in_use, status.waiting) == (
            truth.limit,
            truth.in_use,
            truth.waiting,
        )
        assert (status.override, status.paused) == (truth.override, truth.paused)


async def test_a_key_that_is_out_of_use_stays_for_a_while_with_its_limit(
    store: Store, collector: Collector
) -> None:
    store.hold("a", "k", 5, name="n")
    await collector.search()
    await collector.look()
    store.release("a")
    await collector.look()
    (status,) = collector.statuses()
    assert (status.in_use, status.limit, status.name) == (0, 5, "n")
    assert not status.in_demand

    store.clock.advance(31)
    assert collector.statuses() == []
    store.looks.clear()
    await collector.look()
    assert store.looks == []


async def test_a_key_that_comes_back_has_its_history(store: Store, collector: Collector) -> None:
    store.hold("a", "k")
    await collector.search()
    await collector.look()
    store.release("a")
    store.clock.advance(300)
    store.hold("b", "k")
    await collector.search()
    await collector.look()
    points = collector.history("k")
    assert len(points) == BUCKETS
    assert points[-1] == Point(1, 0)
    assert points[-31] == Point(1, 0)
    assert points[-30:-1] == [None] * 29


async def test_history_is_of_the_last_15_minutes(store: Store, collector: Collector) -> None:
    store.hold("a", "k")
    await collector.search()
    for _ in range(120):
        await collector.look()
        store.clock.advance(10)
    points = collector.history("k")
    assert len(points) == BUCKETS
    assert points[:-1] == [Point(1, 0)] * (BUCKETS - 1)
    assert points[-1] is None  # it has only begun
    store.release("a")
    store.clock.advance(901)
    await collector.look()
    assert collector.status("k") is None


async def test_hand_offs_are_counted_for_a_minute(store: Store, collector: Collector) -> None:
    for number in range(5):
        store.hold(number, "k")
    await collector.search()
    await collector.look()
    for number in range(3):
        store.release(str(number))
        store.clock.advance(1)
        await collector.look()
    (status,) = collector.statuses()
    assert status.hand_offs == 3
    store.clock.advance(61)
    await collector.look()
    (status,) = collector.statuses()
    assert status.hand_offs == 0


async def test_hand_offs_are_seen_though_all_that_waited_were_served_between_two_looks(
    store: Store, collector: Collector
) -> None:
    for number in range(3):
        store.hold(number, "k")
    await collector.search()
    await collector.look()
    for number in range(3, 6):
        store.clock.advance(1)
        store.hold(number, "k")
    for number in range(3):
        store.release(str(number))
    store.clock.advance(1)
    await collector.look()
    (status,) = collector.statuses()
    assert status.hand_offs == 1


async def test_a_grant_without_waiting_is_no_hand_off(store: Store, collector: Collector) -> None:
    await collector.search()
    for number in range(5):
        store.hold(number, "k")
        await collector.search()
        await collector.look()
        store.release(str(number))
    (status,) = collector.statuses()
    assert status.hand_offs == 0


async def test_the_store_is_away_for_a_while(store: Store, collector: Collector) -> None:
    for number in range(20):
        store.hold(number, f"k{number}")
    await collector.search()
    await collector.look()
    since = store.clock.advance(5)
    store.away = True
    await collector.look()
    store.clock.advance(5)
    store.looks.clear()
    await collector.look()
    assert len(store.looks) == 1, "one key is enough to learn that it is still away"
    assert collector.health.unavailable_since == since
    assert "example:6379 does not answer" in collector.health.error
    assert len(collector.statuses()) == 20, "what was seen last stays"
    await collector.search()

    store.away = False
    await collector.look()
    assert collector.health.unavailable_since is None
    assert collector.health.error == ""


async def test_a_store_that_is_away_at_the_begin(store: Store, collector: Collector) -> None:
    store.hold("a", "k")
    store.away = True
    await collector.search()
    await collector.look()
    assert collector.health.unavailable_since == store.clock()
    assert not collector.health.searched
    store.away = False
    await collector.search()
    await collector.look()
    assert collector.health.unavailable_since is None
    assert [each.key for each in collector.statuses()] == ["k"]


async def test_a_key_that_cannot_be_read_hides_no_other(store: Store, collector: Collector) -> None:
    store.hold("a", "good")
    store.hold("b", "bad")
    store.unreadable = {"bad"}
    await collector.search()
    await collector.look()
    shown = {each.key: each.unreadable for each in collector.statuses()}
    assert shown["good"] == ""
    assert "cannot be read" in shown["bad"]
    store.looks.clear()
    await collector.look()
    assert store.looks == ["good"], "it is looked at again later"
    store.unreadable.clear()
    store.clock.advance(29)
    await collector.search()
    store.clock.advance(2)
    await collector.look()
    assert all(each.unreadable == "" for each in collector.statuses())


async def test_a_round_has_a_bound_and_all_keys_get_their_turn(
    store: Store, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "LOOKS", 10)
    for number in range(35):
        store.hold(number, f"k{number}")
    await collector.search()
    with collector.watching("k33"):
        for _ in range(4):
            store.clock.advance(1)
            store.looks.clear()
            await collector.look()
            assert len(store.looks) == 10
            assert "k33" in store.looks
            assert collector.snapshot("k33") is not None
    assert len(collector.statuses()) == 35


async def test_the_number_of_known_keys_has_a_bound(store: Store) -> None:
    collector = Collector(store, most_keys=10)
    for number in range(15):
        store.hold(number, f"k{number}")
    await collector.search()
    await collector.look()
    assert len(collector.statuses()) == 10
    assert collector.health.left_out == 5
    for number in range(15):
        store.release(str(number))
    await collector.look()
    store.clock.advance(31)
    for number in range(15, 25):
        store.hold(number, f"k{number}")
    await collector.search()
    await collector.look()
    assert {each.key for each in collector.statuses()} == {f"k{n}" for n in range(15, 25)}
    assert collector.health.left_out == 0


async def test_one_that_watches_a_key_has_its_snapshot(store: Store, collector: Collector) -> None:
    store.hold("a", "k", label="web-1")
    assert collector.snapshot("k") is None
    with collector.watching("k"), collector.watching("k"):
        await collector.look()
        snapshot = collector.snapshot("k")
        assert snapshot is not None
        assert [each.label for each in snapshot.holders] == ["web-1"]
        assert store.looks == ["k"], "one look, however many watch"
    await collector.look()
    assert collector.snapshot("k") is None


async def test_a_text_that_is_no_key_is_refused(collector: Collector) -> None:
    with pytest.raises(ConfigurationError), collector.watching(""):
        pass
    with pytest.raises(ConfigurationError):
        await collector.inspect("")


async def test_it_runs_once_a_second_and_less_while_nobody_watches() -> None:
    store = MemoryStore()
    store.acquire(Request("a", (Demand("k", 1),)))
    collector = Collector(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collector.run)
        await until(lambda: len(collector.statuses()) == 1, "the key was found")
        with collector.watching():
            await collector.next_round()
            await collector.next_round()
        tasks.cancel_scope.cancel()


async def test_a_viewer_wakes_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "IDLE_AFTER", 0.0)
    monkeypatch.setattr(collector_module, "EVERY_IDLE", 3600.0)
    collector = Collector(MemoryStore())
    looked: list[float] = []

    async def count() -> None:
        while True:
            await collector.next_round()
            looked.append(collector.now())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(collector.run)
        await until(lambda: len(looked) == 1, "it looked once")
        await anyio.wait_all_tasks_blocked()
        with collector.watching():
            await until(lambda: len(looked) >= 2, "a viewer woke it up")
        tasks.cancel_scope.cancel()


async def test_keys_are_summed_up_by_name(store: Store, collector: Collector) -> None:
    for number in range(3):
        store.hold(number, f"c={number}", 2, name="customers")
    store.hold("w0", "one", 1, name="one")
    store.hold("w1", "one", 1, name="one")
    store.hold("x", "nameless")
    store.clock.advance(4)
    await collector.search()
    await collector.look()
    nameless, customers, one = by_name(collector.statuses())
    assert (nameless.name, nameless.keys) == ("", 1)
    assert (customers.keys, customers.in_use, customers.limit) == (3, 3, 6)
    assert (one.in_use, one.limit, one.waiting, one.oldest_wait) == (1, 1, 1, 4.0)


async def test_a_key_that_bounds_nothing_counts_for_no_sum(
    store: Store, collector: Collector
) -> None:
    store.hold("a", "celery:shop:over", NO_LIMIT)
    await collector.search()
    await collector.look()
    (status,) = collector.statuses()
    (summed,) = by_name([status])
    assert (status.limit, status.in_use) == (None, 1)
    assert (summed.limit, summed.in_use) == (0, 1)


@pytest.mark.parametrize(
    ("ticket", "adapter"),
    [
        ("arq:0:job-1:1700000000000", "arq"),
        ("saq:job:default:abc#1#1", "saq"),
        ("docket:task-1#2024", "docket"),
        ("0f8fad5b-d9cb-469f-a165-70867728950e:0:0", "celery"),
        ("70d4f1d6d7c4129e-1", None),
    ],
)
async def test_jobs_name_their_adapter(
    store: Store, collector: Collector, ticket: str, adapter: str | None
) -> None:
    store.hold(ticket, "k")
    await collector.search()
    await collector.look()
    (status,) = collector.statuses()
    assert status.adapters == (() if adapter is None else (adapter,))
