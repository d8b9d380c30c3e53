"""The page as a person uses it: seen in a browser, with mouse and keyboard, while calls run.

Screenshots are in `build/screenshots`, or the folder that LIMITER_TEST_SCREENSHOTS names.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter
from limiter_core.requests import Demand, Request
from limiter_memory import MemoryStore
from tests._polling import until_now as until

from ._browser import Tab, chromium
from ._server import TOKEN, page

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}
OpenTab = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser, url: str) -> Iterator[OpenTab]:
    """Open tabs on the page of the store; all are closed in the end."""
    tabs: list[Tab] = []

    def open_tab(**options: Any) -> Tab:
        tabs.append(Tab(browser, url, **options))
        return tabs[-1]

    yield open_tab
    for each in tabs:
        each.close()


@contextmanager
def load(store: MemoryStore) -> Iterator[None]:
    """Make real calls in a thread of its own while the block lasts."""
    limits = [
        ConcurrencyLimit("customer_id", 2, scope="shop", name="shop"),
        ConcurrencyLimit(LIMIT_BY.constant("nightly"), 1),
    ]
    ended = threading.Event()

    async def call(limiter: Limiter, number: int) -> None:
        while not ended.is_set():
            limit = limits[number % 2]
            async with limiter.hold(limit, {"customer_id": number % 3}):
                await asyncio.sleep(0.05 * (1 + number % 5))

    async def run() -> None:
        async with Limiter(store) as limiter:
            await asyncio.gather(*(call(limiter, number) for number in range(12)))

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(20)
    assert not thread.is_alive(), [store.inspect(key) for key in store.keys()]


def row(page: Page, key: str) -> Any:
    return page.locator(f'tr[data-id="{key}"]')


def cells(page: Page, key: str) -> list[str]:
    found: list[str] = row(page, key).locator("td").all_inner_texts()
    return [" ".join(each.split()) for each in found]


def test_what_is_seen_is_what_inspect_says(tab: OpenTab, store: MemoryStore) -> None:
    first = tab()
    shown = first.open("/")
    for key in ("billing/customer_id=1", "openai"):
        truth = store.inspect(key)
        use, line, *_ = cells(shown, key)
        assert use == f"{truth.in_use} of {truth.limit}"
        assert line == (str(truth.waiting) if truth.waiting else "\N{EN DASH}")
    shown.get_by_role("link", name="billing/customer_id=1").click()
    first.until_live()
    truth = store.inspect("billing/customer_id=1")
    holders = shown.locator('section[data-id="holders"] tbody tr')
    expect(holders).to_have_count(len(truth.holders))
    for place, holder in enumerate(truth.holders):
        expect(holders.nth(place)).to_contain_text(holder.label)
        expect(holders.nth(place)).to_contain_text(holder.id)
        expect(holders.nth(place)).to_contain_text(str(holder.fencing_token))
    waiters = shown.locator('table[data-id="waiters"] tbody tr')
    expect(waiters).to_have_count(truth.waiting)
    assert [each.id for each in truth.waiters] == waiters.evaluate_all(
        "rows => rows.map(row => row.dataset.id)"
    )


def test_it_follows_what_happens(tab: OpenTab, store: MemoryStore) -> None:
    shown = tab().open("/")
    store.acquire(Request("new", (Demand("reports", 3, name="reports"),), lease=600))
    expect(row(shown, "reports")).to_contain_text("1 of 3")
    store.release("call-0")
    expect(row(shown, "billing/customer_id=1").locator("td").nth(1)).to_have_text("1")


def test_it_is_live_under_load(tab: OpenTab, store: MemoryStore) -> None:
    with load(store):
        keys = tab()
        shown = keys.open("/")
        expect(row(shown, "nightly")).to_contain_text("1 of 1")
        until(lambda: "/min" in row(shown, "nightly").inner_text(), "hand-offs are seen")
        keys.look("keys")
        shown.goto("/key?key=nightly")
        keys.until_live()
        keys.until_updated()
        keys.look("key")
        shown.goto("/names")
        keys.until_live()
        expect(shown.locator('tr[data-id="shop"]')).to_be_visible()
        keys.look("names")


def test_in_the_dark_and_on_a_phone(tab: OpenTab, store: MemoryStore) -> None:
    store.pause("openai")
    store.set_limit("billing/customer_id=1", 1)
    for name, options in (
        ("dark", {"color_scheme": "dark"}),
        ("phone", PHONE),
        ("phone-dark", {"color_scheme": "dark", **PHONE}),
    ):
        one = tab(**options)
        one.log_in(TOKEN)
        for path, what in (
            ("/", "keys"),
            ("/key?key=billing/customer_id=1", "key"),
            ("/names", "names"),
            ("/changes", "changes"),
            ("/login", "login"),
            ("/change?action=set&key=openai", "form"),
        ):
            one.open(path)
            one.look(f"{what}-{name}")
        one.close()


def test_a_change_by_mouse(tab: OpenTab, store: MemoryStore) -> None:
    one = tab()
    one.log_in(TOKEN, by="Ann")
    shown = one.open("/key?key=openai")
    shown.get_by_role("link", name="Set limit").click()
    dialog = shown.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Limit").fill("7")
    dialog.get_by_label("Reason").fill("more <b>room</b>")
    one.look("dialog")
    dialog.get_by_role("button", name="Set the limit").click()
    expect(
        shown.get_by_role("status").filter(has_text="The limit of openai is 7 now.")
    ).to_be_visible()
    expect(shown.locator("#live")).to_contain_text("1 of 7")
    assert store.inspect("openai").override == 7
    shown.get_by_role("link", name="Changes").click()
    entry = shown.locator("tbody tr").first
    expect(entry).to_contain_text("Ann")
    expect(entry).to_contain_text("more <b>room</b>")
    one.look("changes")


def test_a_change_by_keyboard(tab: OpenTab, store: MemoryStore) -> None:
    one = tab()
    one.log_in(TOKEN)
    shown = one.open("/key?key=openai")
    shown.get_by_role("link", name="Pause").focus()
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("dialog")).to_be_visible()
    shown.keyboard.press("Escape")
    expect(shown.get_by_role("dialog")).to_be_hidden()
    assert shown.evaluate("document.activeElement.textContent").startswith("Pause")
    assert not store.inspect("openai").paused
    shown.keyboard.press("Enter")
    expect(shown.get_by_label("Reason")).to_be_focused()
    shown.keyboard.type("maintenance")
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("status").filter(has_text="openai is paused")).to_be_visible()
    assert store.inspect("openai").paused
    (change,) = store.changes()
    assert (change.action, change.reason, change.by) == ("pause", "maintenance", "Ann")


def test_a_holder_is_evicted_and_the_next_is_served(tab: OpenTab, store: MemoryStore) -> None:
    one = tab()
    one.log_in(TOKEN)
    shown = one.open("/key?key=billing/customer_id=1")
    shown.locator('tr[data-id="call-0"]').get_by_role("link", name="Evict").click()
    expect(shown.get_by_role("dialog")).to_contain_text("web-0")
    shown.get_by_role("dialog").get_by_role("button", name="Evict").click()
    expect(shown.get_by_role("status").filter(has_text="call-0 was evicted")).to_be_visible()
    expect(shown.locator('section[data-id="holders"] tr[data-id="call-1"]')).to_be_visible()
    assert [each.id for each in store.inspect("billing/customer_id=1").holders] == ["call-1"]


def test_a_wrong_limit_is_explained(tab: OpenTab, store: MemoryStore) -> None:
    one = tab()
    one.log_in(TOKEN)
    shown = one.open("/change?action=set&name=openai")
    shown.get_by_role("textbox", name="Limit").fill("many")
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("alert")).to_contain_text("many")
    expect(shown.get_by_role("textbox", name="Limit")).to_have_value("many")
    one.errors.clear()  # the browser notes the status of the answer
    one.look("form-error")
    assert store.changes() == ()


@pytest.mark.parametrize(
    "text",
    ["<script>document.title='owned'</script>", '"><img src=x onerror=alert(1)>', "\x1b[2J\u202e"],
)
def test_texts_of_others_are_shown_and_not_obeyed(
    tab: OpenTab, store: MemoryStore, text: str
) -> None:
    demand = Demand("k=1", 1, name=text)
    for number in range(2):
        store.acquire(Request(f"{text}{number}", (demand,), lease=600, label=text))
    one = tab()
    one.log_in(TOKEN, by="<i>Ann</i>")
    for path in ("/", "/key?key=k%3D1", "/names"):
        shown = one.open(path)
        one.until_updated()
        assert "Limits" in shown.title()
        assert shown.locator("main script, main img, main i, header i").count() == 0
        content = shown.locator("body").inner_text()
        assert "\x1b" not in content
        assert "\u202e" not in content
    assert not one.errors


def test_focus_and_places_stay_while_the_list_changes(tab: OpenTab, store: MemoryStore) -> None:
    one = tab()
    shown = one.open("/")
    link = shown.get_by_role("link", name="openai")
    link.focus()
    before = shown.locator("tbody tr").evaluate_all("rows => rows.map(row => row.dataset.id)")
    for number in range(20):  # it is the busiest now
        store.acquire(Request(f"more-{number}", (Demand("openai", 5),), lease=600))
    expect(row(shown, "openai")).to_contain_text("5 of 5")
    one.until_updated()
    after = shown.locator("tbody tr").evaluate_all("rows => rows.map(row => row.dataset.id)")
    assert after == before
    expect(link).to_be_focused()
    link.evaluate("link => link.blur()")
    expect(shown.locator("tbody tr").first).to_contain_text("openai")


def test_nothing_moves_at_an_update(tab: OpenTab, store: MemoryStore) -> None:
    one = tab()
    shown = one.open("/")
    shown.evaluate(
        "window.shifts = 0; new PerformanceObserver(list => list.getEntries().forEach("
        "entry => { window.shifts += entry.value })).observe({type: 'layout-shift'})"
    )
    places = "rows => rows.map(row => JSON.stringify(row.getBoundingClientRect()))"
    before = shown.locator("tbody tr").evaluate_all(places)
    store.acquire(Request("more", (Demand("openai", 5),), lease=600))
    expect(row(shown, "openai")).to_contain_text("2 of 5")
    one.until_updated()
    assert shown.locator("tbody tr").evaluate_all(places) == before
    assert shown.evaluate("window.shifts") == 0


def test_search_and_filters_need_no_reload(tab: OpenTab, store: MemoryStore) -> None:
    one = tab()
    shown = one.open("/")
    shown.evaluate("window.stayed = true")
    search = shown.get_by_label("Search")
    search.click()
    shown.keyboard.type("open")
    expect(row(shown, "billing/customer_id=1")).to_have_count(0)
    expect(row(shown, "openai")).to_be_visible()
    expect(search).to_be_focused()
    assert shown.url.endswith("?search=open")
    search.fill("nothing like it")
    expect(shown.locator("#live")).to_contain_text("No key in use matches.")
    one.look("nothing-found")
    search.fill("")
    shown.get_by_label("Scope").select_option("billing")
    expect(row(shown, "openai")).to_have_count(0)
    assert shown.evaluate("window.stayed")


def test_an_empty_store(browser: Browser) -> None:
    with page(MemoryStore()) as url:
        one = Tab(browser, url)
        shown = one.open("/")
        expect(shown.locator("#live")).to_contain_text("No key is in use.")
        one.look("empty")
        one.open("/changes")
        one.look("empty-changes")
        one.close()


def test_it_says_that_the_server_is_gone_and_that_it_is_there_again(browser: Browser) -> None:
    with page(MemoryStore()) as url:
        one = Tab(browser, url)
        shown = one.open("/")
        expect(shown.locator("#connection")).to_be_hidden()
    expect(shown.locator("#connection")).to_be_visible()
    one.close()
