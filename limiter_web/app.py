"""`limits_app`: the ASGI app."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.store import Store
from limiter_web.access import Access
from limiter_web.actions import ActionRoutes
from limiter_web.api import ApiRoutes
from limiter_web.events import EventRoutes
from limiter_web.metrics import MetricRoutes
from limiter_web.pages import PageRoutes
from limiter_web.security import Security, checked_hosts
from limiter_web.site import Site
from limiter_web.views import Views

__all__ = ("limits_app",)


def limits_app(
    store: str | Store,
    *,
    token: str | None = None,
    private: bool = False,
    allowed_hosts: Sequence[str] | None = None,
    top_keys: int = 0,
    trace_url: str | None = None,
) -> Starlette:
    """Return the page of limits, its API and its metrics, as an ASGI app.

    It runs by itself or mounted in another app, below any path, on asyncio. One collector looks at
    the store, however many browsers are open. No text of it contains a URL's secrets.

    Args:
        store: a store, or its URL. One that is given stays open; one made from a URL is closed at
            the end of the app's lifespan, which an app that is mounted does not have.
        token: what changing anything needs; None: read-only.
        private: whether reading needs the token, too.
        allowed_hosts: names by which browsers may reach the app, as a protection against DNS
            rebinding: `limits.example.com`, `*.example.com`. Addresses and `localhost` are always
            allowed. None: any; the app around it is to check.
        top_keys: so many of the busiest keys are labels in the metrics; names always are.
        trace_url: where a trace can be seen, with `{trace_id}` in it.

    Raises:
        ConfigurationError: a value is wrong, no installed store knows the URL, or the store has no
            async face.
    """
    if top_keys < 0:
        raise ConfigurationError(f"top_keys is 0 or more, got {brief(top_keys)}")
    if trace_url is not None and "{trace_id}" not in trace_url:
        raise ConfigurationError(f"trace_url contains {{trace_id}}, got {brief(trace_url)}")
    if trace_url is not None and not trace_url.startswith(("http://", "https://", "/")):
        raise ConfigurationError(
            f"trace_url begins with http://, https:// or /, got {brief(trace_url)}"
        )
    hosts = None if allowed_hosts is None else checked_hosts(allowed_hosts)
    access = Access(token, private=private)
    site = Site(store, access, top_keys=top_keys, trace_url=trace_url)
    views = Views(site)
    pages = PageRoutes(site, views)
    actions = ActionRoutes(site, views)
    api = ApiRoutes(site)
    events = EventRoutes(site, views)
    metrics = MetricRoutes(site)
    routes = [
        Route("/", pages.keys, name="keys"),
        Route("/key", pages.key, name="key"),
        Route("/names", pages.names, name="names"),
        Route("/changes", pages.changes, name="changes"),
        Route("/login", pages.login_form, methods=["GET"]),
        Route("/login", pages.login, methods=["POST"]),
        Route("/logout", pages.logout, methods=["POST"]),
        Route("/events", events.stream),
        Route("/change", actions.form, methods=["GET"]),
        Route("/change", actions.carry_out, methods=["POST"]),
        *api.routes(),
        Route("/metrics", metrics.show),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]
    app = Starlette(
        routes=routes,
        lifespan=site.lifespan,
        middleware=[Middleware(Security, access=access, allowed_hosts=hosts)],
        exception_handlers=pages.error_handlers(),
    )
    app.state.end_streams = site.end_streams
    return app
