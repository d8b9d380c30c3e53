"""`limiter top` on a store with real calls, by textual's own pilot."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from textual.css.query import NoMatches
from textual.widgets import Input, Static

from limiter_cli.top.key_screen import KeyScreen, QuestionScreen
from limiter_cli.top.table import Table, load_bar, spark_line
from limiter_cli.top.view import TopApp
from limiter_core import LIMIT_BY, ConcurrencyLimit, Evicted, Limiter
from limiter_core.monitoring import SORTS, Sort
from limiter_core.monitoring.history import BUCKETS, Point
from limiter_core.monitoring.key_status import status_of
from limiter_core.requests import NO_LIMIT, Demand, Presence, Request
from limiter_memory import MemoryStore
from tests.core._tools import until, until_waiting
from tests.redis._servers import Process


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def limit(name: str, slots: int = 1) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(name), slots)


def rows(app: TopApp) -> list[list[str]]:
    """Return the cells of the screen's table, as text."""
    table = app.screen.query_one(Table)
    return [[cell.plain for cell in table.get_row_at(at)] for at in range(table.row_count)]


def use(store: MemoryStore, key: str) -> list[str]:
    found = store.inspect(key)
    return [key, f"{found.in_use}/{found.limit}", str(found.waiting)]


@pytest.mark.parametrize("size", [(120, 30), (40, 12)])
async def test_what_is_shown_is_what_inspect_says(size: tuple[int, int]) -> None:
    store = MemoryStore()
    limiter = Limiter(store)
    leases = [await limiter.acquire(limit("busy")), await limiter.acquire(limit("free", 3))]
    waiter = asyncio.create_task(limiter.acquire(limit("busy")))
    await until_waiting(store, "busy", 1)
    app = TopApp(store)
    async with app.run_test(size=size) as pilot:
        await until(lambda: len(rows(app)) == 2, "both keys are shown")
        assert [row[:3] for row in rows(app)] == [use(store, "busy"), use(store, "free")]
        await pilot.press("i")
        assert [row[0] for row in rows(app)] == ["free", "busy"]
        await pilot.press("slash", *"bus", "enter")
        await until(lambda: len(rows(app)) == 1, "one key matches")
        assert rows(app)[0][0] == "busy"
    waiter.cancel()
    for lease in leases:
        await lease.release()


async def test_a_key_without_a_limit_is_shown_without_a_number() -> None:
    store = MemoryStore()
    lease = await Limiter(store).acquire(ConcurrencyLimit(LIMIT_BY.constant("notes"), NO_LIMIT))
    app = TopApp(store)
    async with app.run_test() as pilot:
        await until(lambda: len(rows(app)) == 1, "the key is shown")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, KeyScreen) and len(rows(app)) == 1, "it is open")
        head = str(app.screen.query_one("#head", Static).render())
        assert head.startswith("notes  1, 0 waiting")
    await lease.release()


@pytest.mark.parametrize("opens", [False, True], ids=["all keys", "one key"])
async def test_it_may_close_while_it_looks(opens: bool) -> None:
    store = MemoryStore()
    lease = await Limiter(store).acquire(limit("busy"))
    app = TopApp(store)
    async with app.run_test() as pilot:
        await until(lambda: len(rows(app)) == 1, "the key is shown")
        if opens:
            await pilot.press("enter")
            await until(lambda: isinstance(app.screen, KeyScreen), "it is open")
        watches = [each for each in app.workers if each.node is (app.screen if opens else app)]
        await app.screen.query(Static).remove()
        await until(lambda: any(each.is_finished for each in watches), "it looked once more")
    with pytest.raises(NoMatches):  # at which it ends, and at nothing else
        app.show_keys()
    await lease.release()


async def test_a_key_is_opened_and_changed() -> None:
    store = MemoryStore()
    limiter = Limiter(store, label="first")
    lease = await limiter.acquire(limit("busy"))
    waiter = asyncio.create_task(limiter.acquire(limit("busy")))
    await until_waiting(store, "busy", 1)
    app = TopApp(store, by="ann")
    async with app.run_test(size=(120, 30)) as pilot:
        await until(lambda: len(rows(app)) == 1, "the key is shown")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, KeyScreen) and len(rows(app)) == 2, "it is open")
        shown = [(row[0], row[3]) for row in rows(app)]
        found = store.inspect("busy")
        assert shown == [("holder", found.holders[0].id), ("1. in line", found.waiters[0].id)]
        await pilot.press("p", *"no", "enter")
        assert not store.inspect("busy").paused
        await pilot.press("p", *"yes", "space", *"slow", "space", *"bank", "enter")
        await until(lambda: store.inspect("busy").paused, "it is paused")
        (change,) = store.changes()
        assert (change.action, change.reason, change.by) == ("pause", "slow bank", "ann")
        await pilot.press("r")
        await until(lambda: not store.inspect("busy").paused, "it is resumed")
        await pilot.press("e", *"no", "enter")
        assert store.inspect("busy").holders[0].id == lease.id
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, QuestionScreen), "it asks")
        app.screen.query_one(Input).value = "yes"
        await pilot.press("enter")
        await until(lambda: lease.lost, "the holder was evicted")
        second = await waiter
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, QuestionScreen), "it asks")
        await pilot.press("7", "space", *"sale", "enter")
        await until(lambda: store.inspect("busy").override == 7, "the limit is set")
        assert store.changes()[0].reason == "sale"
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, QuestionScreen), "it asks")
        app.screen.query_one(Input).value = "9" * 5000  # more than Python reads
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, KeyScreen), "it is refused")
        assert store.inspect("busy").override == 7
    await second.release()


async def test_jobs_without_a_worker_stand_behind_the_line() -> None:
    store = MemoryStore()
    lease = await Limiter(store).acquire(limit("busy"))
    gone = Presence("celery:shop", "worker")
    demand = Demand("busy", 1)
    store.acquire(Request("celery:shop:1", (demand,), payload=b"job", presence=gone))
    store.sweep(gone._replace(leaving=True))
    app = TopApp(store)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(lambda: len(rows(app)) == 1, "the key is shown")
        await pilot.press("enter")
        await until(lambda: len(rows(app)) == 2, "it is open")
        assert rows(app)[1][0] == "no worker of celery:shop"
    await lease.release()


async def test_more_keys_than_a_page_has() -> None:
    store = MemoryStore()
    app = TopApp(store)
    app.selection = replace(app.selection, size=2, sort=Sort.KEY)
    for key in "abc":
        store.pause(key)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(lambda: [row[0][0] for row in rows(app)] == ["a", "b"], "the first page")
        for _ in range(2):  # there is none behind the second
            await pilot.press("right_square_bracket")
        assert [row[0][0] for row in rows(app)] == ["c"]
        await pilot.press("left_square_bracket")
        assert [row[0][0] for row in rows(app)] == ["a", "b"]


@pytest.mark.parametrize(
    ("in_use", "limit", "bar"),
    [
        (0, 4, "░░░░░░░░"),
        (1, 4, "██░░░░░░"),
        (1, 100, "█░░░░░░░"),
        (5, 4, "████████"),
        (1, 0, "█" * 8),
    ],
)
def test_the_bar_shows_the_share_in_use(in_use: int, limit: int, bar: str) -> None:
    snapshot = MemoryStore().inspect("k")
    status = status_of(snapshot, looked_at=0.0, hand_offs=0, before=None)
    assert load_bar(replace(status, in_use=in_use, limit=limit)) == bar


def test_a_spark_line_has_a_mark_for_each_minute() -> None:
    seen: list[Point | None] = [None] * (BUCKETS - 12) + [Point(1, 0)] * 6 + [Point(2, 5)] * 6
    line = spark_line(seen)
    assert line == " " * 13 + "▂█"
    assert spark_line([None] * BUCKETS) == " " * 15
    assert spark_line([Point(0, 0)] * BUCKETS) == "▁" * 15


async def test_a_waiter_is_evicted() -> None:
    store = MemoryStore()
    limiter = Limiter(store)
    lease = await limiter.acquire(limit("busy"))
    waiter = asyncio.create_task(limiter.acquire(limit("busy")))
    await until_waiting(store, "busy", 1)
    app = TopApp(store)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(lambda: len(rows(app)) == 1, "the key is shown")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, KeyScreen) and len(rows(app)) == 2, "it is open")
        await pilot.press("down", "e", *"yes", "enter")
        with pytest.raises(Evicted):
            await waiter
    assert store.inspect("busy").holders[0].id == lease.id
    await lease.release()


async def test_orders_and_filters() -> None:
    store = MemoryStore()
    limiter = Limiter(store)
    leases = [
        await limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant(key), 9, name=name, scope=scope))
        for key, name, scope in (("a", "x", "one"), ("b", "y", None), ("b", "y", None))
    ]
    app = TopApp(store)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(lambda: len(rows(app)) == 2, "both keys are shown")
        orders = set[str]()
        for _ in SORTS:
            await pilot.press("o")
            orders.add(str(app.selection.sort.value))
        assert len(orders) == len(SORTS)
        for text, keys in (("name=x", ["one/a"]), ("scope=one", ["one/a"]), ("name=none", [])):
            await pilot.press("slash")
            await until(lambda: isinstance(app.screen, QuestionScreen), "it asks")
            app.screen.query_one(Input).value = text
            await pilot.press("enter")
            await until(lambda: [row[0] for row in rows(app)] == keys, text)  # noqa: B023  (awaited)
            await pilot.press("slash", "enter")
            await until(lambda: len(rows(app)) == 2, "an empty text shows all")
    for lease in leases:
        await lease.release()


async def test_a_store_that_is_away_comes_back(own_server: Process) -> None:
    """The keys that were seen last stay; the first line says why no others come."""
    limiter = Limiter(own_server.url)
    lease = await limiter.acquire(limit("busy"))
    app = TopApp(own_server.url)

    def state() -> str:
        return str(app.screen_stack[0].query_one("#state", Static).content)

    async with app.run_test(size=(120, 30)):
        await until(lambda: len(rows(app)) == 1, "the key is shown")
        own_server.kill()
        await until(lambda: "the store is away" in state(), "it says so")
        assert [row[0] for row in rows(app)] == ["busy"]
        own_server.start()
        await until(lambda: "away" not in state(), "it is back")
    await lease.release()
    await limiter.aclose()


@pytest.mark.parametrize("text", ["[red]x[/red]", "\x1b[31mx", "<script>"])
async def test_a_name_with_markup_is_shown_as_text(text: str) -> None:
    class Own:
        def get_key(self, execution: Any, /) -> str:
            return text

    store = MemoryStore()
    lease = await Limiter(store).acquire(ConcurrencyLimit(Own()))
    (key,) = store.keys()
    app = TopApp(store)
    async with app.run_test():
        await until(lambda: len(rows(app)) == 1, "the key is shown")
        shown = rows(app)[0][0]
        assert "\x1b" not in shown
        if "\x1b" not in key:
            assert shown == key
    await lease.release()
