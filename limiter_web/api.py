"""The JSON API: what the pages show and do, under the same permissions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from limiter_core import KeySnapshot
from limiter_core.errors import ConfigurationError, StoreError
from limiter_core.monitoring import KeyStatus, by_name, select
from limiter_web.access import CSRF_HEADER
from limiter_web.actions import problem_text, required_session
from limiter_web.forms import body_of
from limiter_web.openapi import document
from limiter_web.operations import ACTIONS, Action, Operation, carry_out
from limiter_web.paths import root_of
from limiter_web.site import Site
from limiter_web.views import query_of

__all__ = ("ApiRoutes",)


class ApiRoutes:
    """The routes below `/api`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> Sequence[BaseRoute]:
        """Return them."""
        return [
            Route("/api/openapi.json", self.openapi),
            Route("/api/keys", self.keys),
            Route("/api/key", self.key),
            Route("/api/names", self.names),
            Route("/api/changes", self.changes),
            *(Route(f"/api/{each}", self._changing(each), methods=["POST"]) for each in ACTIONS),
        ]

    async def openapi(self, request: Request) -> Response:
        """Describe the API."""
        return JSONResponse(document(f"{root_of(request.scope)}/api"))

    async def keys(self, request: Request) -> Response:
        """Return keys, the busiest first, page by page."""
        await self._site.ready()
        page = select(self._site.collector.statuses(), query_of(request.query_params))
        return JSONResponse(
            {
                "keys": [self._status(each) for each in page.keys],
                "total": page.total,
                "page": page.page,
                "pages": page.pages,
                "store": self._store(),
            }
        )

    async def key(self, request: Request) -> Response:
        """Return one key, with its holders and its line."""
        key = request.query_params.get("key", "")
        await self._site.ready()
        snapshot = await self._site.collector.inspect(key)
        history = self._site.collector.history(key)
        return JSONResponse(
            {
                **_snapshot(snapshot),
                "history": [None if each is None else each._asdict() for each in history],
            }
        )

    async def names(self, _: Request) -> Response:
        """Return the sums of each name, and what operators set for names."""
        await self._site.ready()
        try:
            policies = await self._site.limiter.policies()
        except ConfigurationError:  # the store keeps none
            policies = ()
        return JSONResponse(
            {
                "names": [dataclasses.asdict(e) for e in by_name(self._site.collector.statuses())],
                "policies": [dataclasses.asdict(each) for each in policies],
                "store": self._store(),
            }
        )

    async def changes(self, _: Request) -> Response:
        """Return the last changes, the latest first."""
        found = await self._site.limiter.changes()
        return JSONResponse({"changes": [dataclasses.asdict(each) for each in found]})

    def _changing(self, action: Action) -> Any:
        async def change(request: Request) -> Response:
            session = required_session(self._site, request)
            if not self._site.access.has_csrf(session, request.headers.get(CSRF_HEADER, "")):
                raise HTTPException(403, f"a request with a cookie needs the header {CSRF_HEADER}")
            try:
                given = json.loads(await body_of(request))
                if not isinstance(given, dict):
                    raise HTTPException(400, "the body is a JSON object")
                wanted = Operation.model_validate({"by": session.operator, **given})
                outcome = await carry_out(self._site.limiter, action, wanted)
            except StoreError:
                raise
            except RecursionError:
                raise HTTPException(400, "the body is nested too deeply") from None
            except (ConfigurationError, ValidationError, ValueError) as error:
                raise HTTPException(400, problem_text(error)) from None
            return JSONResponse(outcome.model_dump(), status_code=200 if outcome.done else 404)

        return change

    def _status(self, status: KeyStatus) -> dict[str, Any]:
        values = dataclasses.asdict(status)
        values["looked_at"] = self._site.wall_time(status.looked_at)
        return values

    def _store(self) -> dict[str, Any]:
        health = self._site.collector.health
        since, looked_at = health.unavailable_since, health.looked_at
        return {
            "title": self._site.title,
            "unavailable_since": None if since is None else self._site.wall_time(since),
            "error": health.error,
            "looked_at": None if looked_at is None else self._site.wall_time(looked_at),
            "searched": health.searched,
            "left_out": health.left_out,
        }


def _snapshot(snapshot: KeySnapshot) -> dict[str, Any]:
    return dataclasses.asdict(snapshot)
