"""The pages: keys, one key, names, changes, the login; and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from limiter_core.errors import ConfigurationError, LimiterError, StoreError
from limiter_core.monitoring import choices
from limiter_web.access import CSRF_FIELD
from limiter_web.forms import Message, fields_of, local_path, redirect, take_message
from limiter_web.paths import path_of, root_of
from limiter_web.site import Site
from limiter_web.views import Views, query_of

__all__ = ("PageRoutes",)


class PageRoutes:
    """The routes of the pages."""

    def __init__(self, site: Site, views: Views) -> None:
        self._site = site
        self._views = views

    async def keys(self, request: Request) -> Response:
        """Show all keys."""
        await self._site.ready()
        query = query_of(request.query_params)
        live = self._views.keys(request, query)
        found = choices(self._site.collector.statuses())
        return self._page(request, "keys.html", live=live, query=query, choices=found)

    async def key(self, request: Request) -> Response:
        """Show one key."""
        key = request.query_params.get("key", "")
        await self._site.ready()
        collector = self._site.collector
        try:
            snapshot = await collector.inspect(key)
        except ConfigurationError as error:
            raise HTTPException(404, str(error)) from None
        except StoreError:
            with collector.watching(key):
                live = self._views.key(request, key)
        else:
            live = self._views.key_of(request, key, snapshot)
        return self._page(request, "key.html", live=live, key=key)

    async def names(self, request: Request) -> Response:
        """Show the sums of each name, and what operators set for names."""
        await self._site.ready()
        policies, error = await self._read(self._site.limiter.policies)
        live = self._views.names(request)
        return self._page(request, "names.html", live=live, policies=policies, error=error)

    async def changes(self, request: Request) -> Response:
        """Show the last changes."""
        changes, error = await self._read(self._site.limiter.changes)
        return self._page(request, "changes.html", changes=changes, error=error)

    async def _read(self, read: Callable[[], Any]) -> tuple[Any, str]:
        try:
            return await read(), ""
        except (StoreError, ConfigurationError) as error:  # or it keeps none
            return (), str(error)

    # -- the token ---------------------------------------------------------------------------------

    async def login_form(self, request: Request) -> Response:
        """Ask for the token."""
        back = request.query_params.get("back", "/")
        status = 403 if self._site.access.read_only else 200
        return self._page(request, "login.html", status=status, back=back, failed=False, by="")

    async def login(self, request: Request) -> Response:
        """Begin a session."""
        access = self._site.access
        fields = await fields_of(request)
        back = fields.get("back", "/")
        if not access.accepts(fields.get("token", "")):
            status = 403 if access.read_only else 401
            by = fields.get("by", "")
            return self._page(request, "login.html", status=status, back=back, failed=True, by=by)
        response = redirect(request, local_path(root_of(request.scope), back))
        access.begin_session(request, response, fields.get("by", ""))
        return response

    async def logout(self, request: Request) -> Response:
        """End a session."""
        access = self._site.access
        session = access.session_of(request)
        fields = await fields_of(request)
        if session is None or not access.has_csrf(session, fields.get(CSRF_FIELD, "")):
            raise HTTPException(403, "this form is not of your session")
        root = root_of(request.scope)
        response = redirect(request, f"{root}/", Message("done", "You are logged out."))
        access.end_session(request, response)
        return response

    # -- inside ------------------------------------------------------------------------------------

    def _page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        message, cookie = take_message(request)
        text = self._views.page(request, template, message=message, **values)
        response = HTMLResponse(text, status_code=status)
        if message is not None:
            path = root_of(request.scope) or "/"
            response.delete_cookie(cookie, path=path, httponly=True, samesite="strict")
        return response

    def error_handlers(self) -> Mapping[Any, Any]:
        """Return what shows an error: as JSON below /api, else as a page."""

        def show(request: Request, status: int, text: str) -> Response:
            if path_of(request.scope).startswith("/api"):
                return JSONResponse({"error": text}, status_code=status)
            return self._page(request, "error.html", status=status, code=status, text=text)

        async def http_error(request: Request, error: HTTPException) -> Response:
            return show(request, error.status_code, error.detail)

        async def limiter_error(request: Request, error: LimiterError) -> Response:
            return show(request, 503 if isinstance(error, StoreError) else 400, str(error))

        return {HTTPException: http_error, LimiterError: limiter_error}
