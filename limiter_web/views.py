"""From what the collector saw to HTML: values for templates, and pieces that are rendered once.

Browsers that ask for the same thing in the same round get the same text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.requests import Request

from limiter_core import KeySnapshot
from limiter_core.monitoring import KeyStatus, Point, Query, Sort, by_name, select
from limiter_web.paths import root_of
from limiter_web.site import Site

__all__ = ("MEMBERS_SHOWN", "Views", "query_of", "seconds_text")

MEMBERS_SHOWN = 200
"""Holders of a key that its page lists at the most."""

SIZE = 50
"""Keys on a page."""

NOTHING = "\N{EN DASH}"

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SPARK_WIDTH, _SPARK_HEIGHT = 90, 24


class Views:
    """Renders templates of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rendered: dict[tuple[str, ...], str] = {}
        self._rendered_at: float | None = None
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("limiter_web"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        filters: dict[str, Any] = self._templates.filters
        filters.update(
            seconds=seconds_text,
            printable=printable,
            clock=_clock,
            trace_id=trace_id,
            query=_query_text,
            bar=bar,
            spark=spark,
        )

    def page(self, request: Request, template: str, /, **values: Any) -> str:
        """Return a whole page."""
        access = self._site.access
        return self._templates.get_template(template).render(
            root=root_of(request.scope),
            title=self._site.title,
            session=access.session_of(request),
            read_only=access.read_only,
            trace_url=self._site.trace_url,
            **values,
        )

    # -- pieces that are live ----------------------------------------------------------------------

    def keys(self, request: Request, query: Query) -> str:
        """Return the list of keys."""
        return self._once(request, "_keys.html", ("keys", repr(query)), lambda: self._keys(query))

    def key(self, request: Request, key: str) -> str:
        """Return one key: its holders and its line."""
        return self._once(request, "_key.html", ("key", key), lambda: self._key(key))

    def names(self, request: Request) -> str:
        """Return the sums of each name, without policies."""
        return self._once(request, "_names.html", ("names",), self._names)

    def _once(self, request: Request, template: str, what: tuple[str, ...], values: Any) -> str:
        looked_at = self._site.collector.health.looked_at
        if looked_at != self._rendered_at or len(self._rendered) > 200:
            self._rendered_at = looked_at
            self._rendered.clear()
        acting = self._site.access.session_of(request) is not None
        root = root_of(request.scope)
        away = self._site.collector.health.unavailable_since
        place = (*what, root, str(acting), str(away))
        found = self._rendered.get(place)
        if found is None:
            found = self._templates.get_template(template).render(
                root=root,
                acting=acting,
                trace_url=self._site.trace_url,
                health=self._health(),
                **values(),
            )
            self._rendered[place] = found
        return found

    def _health(self) -> dict[str, Any]:
        health = self._site.collector.health
        since = health.unavailable_since
        return {
            "away_since": None if since is None else self._site.wall_time(since),
            "error": health.error,
            "searched": health.searched,
            "left_out": health.left_out,
        }

    def _keys(self, query: Query) -> dict[str, Any]:
        statuses = self._site.collector.statuses()
        page = select(statuses, query)
        return {
            "query": query,
            "sorts": Sort,
            "page": page,
            "rows": [(each, self._site.collector.history(each.key)) for each in page.keys],
            "total": {
                "used": sum(each.in_demand for each in statuses),
                "in_use": sum(each.in_use for each in statuses),
                "waiting": sum(each.waiting for each in statuses),
                "dormant": sum(each.dormant for each in statuses),
                "paused": sum(each.paused for each in statuses),
            },
        }

    def _key(self, key: str) -> dict[str, Any]:
        collector = self._site.collector
        return {
            "key": key,
            "snapshot": collector.snapshot(key),
            "status": collector.status(key),
            "history": collector.history(key),
            "members_shown": MEMBERS_SHOWN,
        }

    def _names(self) -> dict[str, Any]:
        return {"names": by_name(self._site.collector.statuses())}

    def key_of(self, request: Request, key: str, snapshot: KeySnapshot) -> str:
        """Return one key by a snapshot of this moment; for a page that nobody watches yet."""
        values = {**self._key(key), "snapshot": snapshot}
        return self._templates.get_template("_key.html").render(
            root=root_of(request.scope),
            acting=self._site.access.session_of(request) is not None,
            trace_url=self._site.trace_url,
            health=self._health(),
            **values,
        )


def query_of(parameters: Mapping[str, str]) -> Query:
    """Return the query that the parameters of a URL stand for; a wrong one counts as not given."""

    def number(name: str, least: int, most: int, default: int) -> int:
        text = parameters.get(name, "")
        return min(max(int(text), least), most) if text.isdecimal() and len(text) < 9 else default

    def choice(name: str) -> str | None:
        value = parameters.get(name)
        return None if value is None or value == "*" else value

    sorts = {each.value: each for each in Sort}
    return Query(
        search=parameters.get("search", "").strip()[:200],
        name=choice("name"),
        scope=choice("scope"),
        adapter=choice("adapter"),
        sort=sorts.get(parameters.get("sort", ""), Sort.LOAD),
        reverse=parameters.get("reverse") == "1",
        page=number("page", 1, 10**8, 1),
        size=number("size", 1, 1000, SIZE),
    )


def _query_text(query: Query, **changes: Any) -> str:
    """Return the parameters of a URL for a query, with changes; what is the default is left out."""
    values: dict[str, Any] = {
        "search": query.search,
        "name": query.name,
        "scope": query.scope,
        "adapter": query.adapter,
        "sort": query.sort.value,
        "reverse": query.reverse,
        "page": query.page,
        "size": query.size,
        **changes,
    }
    default = {"search": "", "sort": "load", "reverse": False, "page": 1, "size": SIZE}
    given = {
        name: ("1" if value is True else value)
        for name, value in values.items()
        if value is not None and value != default.get(name)
    }
    return urlencode(given)


def seconds_text(seconds: float | None) -> str:
    """Return a duration as people read it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return NOTHING
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def printable(text: str) -> str:
    """Return text that can only be read: `�` for each character that is no glyph.

    Also for marks that turn the direction of writing, which could make a key look like another.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)


def trace_id(trace: str) -> str:
    """Return the id of a trace in a `traceparent`; empty if it is none."""
    found = _TRACE.fullmatch(trace)
    return found[1] if found else ""


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def bar(status: KeyStatus) -> dict[str, Any]:
    """Return what a bar shows: which share of the limit is in use, and how it is meant."""
    limit = status.limit or 0
    share = min(1.0, status.in_use / limit) if limit else float(bool(status.in_use))
    kind = "free"
    if status.paused:
        kind = "paused"
    elif status.waiting:
        kind = "line"
    elif limit and status.in_use >= limit:
        kind = "full"
    return {"percent": round(100 * share, 1), "kind": kind}


def spark(points: list[Point | None]) -> dict[str, Any]:
    """Return the drawing of a history: an area of slots in use, and a line of waiters."""
    known = [point for point in points if point is not None]
    most = max([1, *(point.in_use for point in known), *(point.waiting for point in known)])

    def y(value: int) -> float:
        return round(_SPARK_HEIGHT - 1 - (_SPARK_HEIGHT - 3) * value / most, 1)

    areas, lines = list[str](), list[str]()
    start: int | None = None
    for place, point in enumerate([*points, None]):
        if point is not None and start is None:
            start = place
        elif point is None and start is not None:
            run = [each for each in points[start:place] if each is not None]
            # Each bucket is a step of one unit, so a single one can be seen.
            top = "".join(
                f"L{start + n} {y(each.in_use)}H{start + n + 1}" for n, each in enumerate(run)
            )
            areas.append(f"M{start} {_SPARK_HEIGHT - 1}{top}L{place} {_SPARK_HEIGHT - 1}Z")
            if any(each.waiting for each in run):
                steps = "".join(
                    f"{'M' if n == 0 else 'L'}{start + n} {y(each.waiting)}H{start + n + 1}"
                    for n, each in enumerate(run)
                )
                lines.append(steps)
            start = None
    return {
        "area": "".join(areas),
        "line": "".join(lines),
        "width": _SPARK_WIDTH,
        "height": _SPARK_HEIGHT,
        "most_in_use": max((point.in_use for point in known), default=0),
        "most_waiting": max((point.waiting for point in known), default=0),
    }
