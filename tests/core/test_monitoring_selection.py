"""What a viewer asks for: search, filters, order and pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_core.monitoring import SORTS, KeyStatus, Query, Sort, choices, select

PLAIN = KeyStatus("k", "", None, (), 1, 1, 0, 0, False, None, (1,), None, 0, 0.0)


def key(text: str, **more: Any) -> KeyStatus:
    return replace(PLAIN, key=text, **more)


def found(statuses: list[KeyStatus], **query: Any) -> list[str]:
    return [each.key for each in select(statuses, Query(**query)).keys]


def test_the_busiest_come_first_and_equals_in_the_order_of_their_keys() -> None:
    statuses = [
        key("idle", in_use=0),
        key("b"),
        key("line", waiting=3),
        key("a"),
        key("half", limit=2),
        key("paused", limit=0, in_use=0, waiting=5),
    ]
    assert found(statuses) == ["paused", "line", "a", "b", "half", "idle"]


def test_texts_go_from_a_to_z() -> None:
    statuses = [key("c", name="x"), key("a", name="z"), key("b", name="y")]
    assert found(statuses, sort=Sort.KEY) == ["a", "b", "c"]
    assert found(statuses, sort=Sort.NAME) == ["c", "b", "a"]
    assert found(statuses, sort=Sort.KEY, reverse=True) == ["c", "b", "a"]


def test_search_looks_in_keys_and_names() -> None:
    statuses = [key("Customer_id=42", name="billing"), key("order=4", name="shop"), key("bill()")]
    assert found(statuses, search="BILL") == ["Customer_id=42", "bill()"]
    assert found(statuses, search="*=4") == ["order=4"]
    assert found(statuses, search="nothing") == []


def test_filters() -> None:
    statuses = [
        key("a", name="n", scope="s", adapters=("celery",)),
        key("b", name="n"),
        key("c", scope="s"),
    ]
    assert found(statuses, name="n") == ["a", "b"]
    assert found(statuses, name="") == ["c"]
    assert found(statuses, scope="s") == ["a", "c"]
    assert found(statuses, scope="") == ["b"]
    assert found(statuses, adapter="celery") == ["a"]
    assert found(statuses, adapter="") == ["b", "c"]
    assert choices(statuses).names == ("n",)
    assert choices(statuses).scopes == ("s",)
    assert choices(statuses).adapters == ("celery",)


@given(
    keys=st.lists(st.integers(0, 200), unique=True, max_size=80),
    size=st.integers(1, 30),
    sort=st.sampled_from(SORTS),
    reverse=st.booleans(),
)
def test_the_pages_together_have_each_key_once(
    keys: list[int], size: int, sort: Sort, reverse: bool
) -> None:
    statuses = [key(f"k{n:03}", waiting=n % 5, in_use=n % 3, name=f"n{n % 4}") for n in keys]
    first = select(statuses, Query(size=size, sort=sort, reverse=reverse))
    pages = [
        select(statuses, Query(size=size, sort=sort, reverse=reverse, page=number + 1))
        for number in range(first.pages)
    ]
    shown = [each.key for page in pages for each in page.keys]
    assert sorted(shown) == sorted(each.key for each in statuses)
    assert all(page.total == len(keys) for page in pages)
    assert all(len(page.keys) == size for page in pages[:-1])


def test_a_page_behind_the_last_one_is_the_last_one() -> None:
    page = select([key("a"), key("b"), key("c")], Query(size=2, page=9))
    assert (page.page, page.pages, [each.key for each in page.keys]) == (2, 2, ["c"])


@pytest.mark.parametrize("wrong", [{"page": 0}, {"size": 0}, {"size": 1001}])
def test_a_page_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        Query(**wrong)
