"""Which keys a viewer sees: search, filters, order and page. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from limiter_core.brief import brief
from limiter_core.monitoring.key_status import KeyStatus

__all__ = ("SORTS", "Choices", "Page", "Query", "Sort", "choices", "select")


class Sort(Enum):
    """What a list of keys is ordered by."""

    LOAD = "load"
    KEY = "key"
    NAME = "name"
    IN_USE = "in_use"
    WAITING = "waiting"
    OLDEST_WAIT = "oldest_wait"
    HAND_OFFS = "hand_offs"


SORTS = tuple(Sort)


@dataclass(frozen=True, slots=True)
class Query:
    """What a viewer asks for.

    Attributes:
        search: keys and names that contain this text, in any case; with `*` or `?` in it, keys or
            names that match it as a pattern. Empty: all.
        name: only keys of this name; None: all.
        scope: only keys of this scope, "" for those without one; None: all.
        adapter: only keys with jobs of this adapter, "" for those of calls alone; None: all.
        sort: the order: the highest first, texts from A to Z.
        reverse: the other way round.
        page: the number of the page, from 1.
        size: keys on a page, 1 to 1,000.
    """

    search: str = ""
    name: str | None = None
    scope: str | None = None
    adapter: str | None = None
    sort: Sort = Sort.LOAD
    reverse: bool = False
    page: int = 1
    size: int = 50

    def __post_init__(self) -> None:
        if self.page < 1:
            raise ValueError(f"a page is numbered from 1, got {brief(self.page)}")
        if not 1 <= self.size <= 1000:
            raise ValueError(f"a page has 1 to 1,000 keys, got {brief(self.size)}")


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a query.

    Attributes:
        keys: those of the page.
        total: all that match.
        page: the page's number; the last one if fewer match than the query's page needs.
        pages: how many pages there are, at least 1.
    """

    keys: tuple[KeyStatus, ...]
    total: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Choices:
    """What keys can be filtered by; each sorted."""

    names: tuple[str, ...]
    scopes: tuple[str, ...]
    adapters: tuple[str, ...]


def select(statuses: Iterable[KeyStatus], query: Query) -> Page:
    """Return the keys that a query asks for."""
    found = [status for status in statuses if _matches(status, query)]
    # By key where all else is equal, so that no line moves without a reason.
    found.sort(key=lambda status: status.key)
    if query.sort in (Sort.KEY, Sort.NAME):
        found.sort(key=lambda each: _text(each, query.sort), reverse=query.reverse)
    else:
        found.sort(key=lambda each: _rank(each, query.sort), reverse=not query.reverse)
    pages = max(1, -(-len(found) // query.size))
    page = min(query.page, pages)
    first = (page - 1) * query.size
    return Page(tuple(found[first : first + query.size]), len(found), page, pages)


def choices(statuses: Iterable[KeyStatus]) -> Choices:
    """Return the names, scopes and adapters that keys have."""
    names: set[str] = set()
    scopes: set[str] = set()
    adapters: set[str] = set()
    for status in statuses:
        names.add(status.name)
        scopes.add(status.scope or "")
        adapters.update(status.adapters)
    return Choices(
        tuple(sorted(names - {""})), tuple(sorted(scopes - {""})), tuple(sorted(adapters))
    )


def _matches(status: KeyStatus, query: Query) -> bool:
    if query.name is not None and status.name != query.name:
        return False
    if query.scope is not None and (status.scope or "") != query.scope:
        return False
    if query.adapter is not None and not (
        query.adapter in status.adapters if query.adapter else not status.adapters
    ):
        return False
    search = query.search.casefold()
    if not search:
        return True
    texts = (status.key.casefold(), status.name.casefold())
    if "*" in search or "?" in search:
        return any(fnmatchcase(text, search) for text in texts)
    return any(search in text for text in texts)


def _text(status: KeyStatus, sort: Sort) -> str:
    return status.name if sort is Sort.NAME else status.key


def _rank(status: KeyStatus, sort: Sort) -> tuple[float, ...]:
    if sort is Sort.IN_USE:
        return (status.in_use,)
    if sort is Sort.WAITING:
        return (status.waiting, status.dormant)
    if sort is Sort.OLDEST_WAIT:
        return (-1.0 if status.oldest_wait is None else status.oldest_wait,)
    if sort is Sort.HAND_OFFS:
        return (status.hand_offs,)
    return (status.load, status.waiting, status.in_use)
