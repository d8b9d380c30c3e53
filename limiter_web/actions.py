"""Forms that change something: each asks to confirm, and says what was done."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from limiter_core.errors import ConfigurationError, StoreError
from limiter_web.access import CSRF_FIELD, Session
from limiter_web.forms import Message, fields_of, local_path, redirect
from limiter_web.operations import ACTIONS, Action, Operation, carry_out
from limiter_web.paths import root_of
from limiter_web.site import Site
from limiter_web.views import Views

__all__ = ("ActionRoutes", "problem_text", "required_session")

_FIELDS = ("key", "name", "limit", "lasts", "id", "reason")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ActionRoutes:
    """The routes of the forms."""

    def __init__(self, site: Site, views: Views) -> None:
        self._site = site
        self._views = views

    async def form(self, request: Request) -> Response:
        """Ask for what a change needs, and whether it is meant."""
        required_session(self._site, request)
        values = dict(request.query_params)
        return self._form(request, values, error="", status=200)

    async def carry_out(self, request: Request) -> Response:
        """Make a change, and go back to the page where it was asked for."""
        session = required_session(self._site, request)
        fields = await fields_of(request)
        if not self._site.access.has_csrf(session, fields.get(CSRF_FIELD, "")):
            raise HTTPException(403, "this form is not of your session: load the page again")
        try:
            action = _action(fields.get("action", ""))
            given: dict[str, Any] = {name: fields[name] for name in _FIELDS if fields.get(name)}
            if "lasts" in given:
                given["lasts"] = _seconds(given["lasts"])
            wanted = Operation(**given, by=session.operator)
            outcome = await carry_out(self._site.limiter, action, wanted)
        except StoreError as error:
            return self._form(request, fields, error=str(error), status=503)
        except (ConfigurationError, ValidationError, ValueError) as error:
            return self._form(request, fields, error=problem_text(error), status=400)
        message = Message("done" if outcome.done else "failed", outcome.message)
        back = local_path(root_of(request.scope), fields.get("back", "/"))
        return redirect(request, back, message)

    def _form(
        self, request: Request, values: dict[str, str], *, error: str, status: int
    ) -> Response:
        action = values.get("action", "")
        if action not in ACTIONS:
            raise HTTPException(404, f"there is no change {action!r}: {', '.join(ACTIONS)}")
        known = {name: values.get(name, "") for name in (*_FIELDS, "back", "label")}
        cancel = local_path(root_of(request.scope), known["back"])
        fragment = values.get("fragment") == "1"
        template = "_form.html" if fragment else "form.html"
        text = self._views.page(
            request,
            template,
            action=action,
            error=error,
            values=known,
            cancel=cancel,
            message=None,
        )
        return HTMLResponse(text, status_code=status)


def required_session(site: Site, request: Request) -> Session:
    """Return the session of a request that wants to act.

    Raises:
        HTTPException: it has none: 401, or 403 where no token would help.
    """
    if site.access.read_only:
        raise HTTPException(403, "this page is read-only: it was started without a token")
    session = site.access.session_of(request)
    if session is None:
        raise HTTPException(401, "changing something needs the token: log in")
    return session


def problem_text(error: Exception) -> str:
    """Return what is wrong with an operation, in a sentence."""
    if isinstance(error, ValidationError):
        parts = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" if each["loc"] else each["msg"]
            for each in error.errors(include_url=False, include_input=False)
        ]
        return "; ".join(part.replace("Value error, ", "") for part in parts)
    return str(error)


def _action(text: str) -> Action:
    for action in ACTIONS:
        if action == text:
            return action
    raise ValueError(f"there is no change {text!r}: {', '.join(ACTIONS)}")


def _seconds(text: str) -> float:
    """Return a duration that people write: `90`, `30m`, `2h`."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        return float(number) * _UNITS[unit]
    except ValueError:
        raise ValueError(f"a time is a number with s, m, h or d behind it, got {text!r}") from None
