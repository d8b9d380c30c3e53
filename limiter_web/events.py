"""Server-sent events: after each round of looks, the piece of the page that has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext

from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response

from limiter_core.errors import ConfigurationError
from limiter_web.site import Site
from limiter_web.views import Views, query_of

__all__ = ("EventRoutes",)

PING = 15
"""Seconds between two comments that keep a connection alive."""


class EventRoutes:
    """The route of the stream of events."""

    def __init__(self, site: Site, views: Views) -> None:
        self._site = site
        self._views = views

    async def stream(self, request: Request) -> Response:
        """Send a piece of a page as HTML whenever it changes, at most once a second.

        The parameter `of` names the page: `keys` (with the parameters of the list), `key` (with
        `key`), or `names`.
        """
        self._site.ensure_running()
        collector = self._site.collector
        watched: tuple[str, ...] = ()
        render: Callable[[], str]
        of = request.query_params.get("of", "keys")
        if of == "key":
            key = request.query_params.get("key", "")
            watched = (key,)

            def render() -> str:
                return self._views.key(request, key)

        elif of == "names":

            def render() -> str:
                return self._views.names(request)

        else:
            query = query_of(request.query_params)

            def render() -> str:
                return self._views.keys(request, query)

        async def events() -> AsyncIterator[dict[str, str]]:
            sent = ""
            with collector.watching(*watched):
                if watched:  # its snapshot is not kept before
                    await collector.next_round()
                while not self._site.closing:
                    text = render()
                    if text != sent:
                        yield {"event": "piece", "data": text}
                        sent = text
                    await collector.next_round()

        try:
            with collector.watching(*watched) if watched else nullcontext():
                pass  # whether it is a key
        except ConfigurationError as error:
            return Response(str(error), status_code=400)
        return EventSourceResponse(events(), ping=PING)
