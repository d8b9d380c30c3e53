"""What every request goes through: allowed hosts, who may read, and the headers of responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_web.access import Access
from limiter_web.paths import path_of, root_of

__all__ = ("CSP", "Security", "checked_hosts", "is_allowed_host")

CSP = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)

_HEADERS = {
    "content-security-policy": CSP,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_HOST = re.compile(r"\*|(\*\.)?[^\s*:/?#,@\[\]]*[^\s*:/?#,@\[\].]")

_OPEN = ("/login", "/static/")
"""What can be seen without the token where reading needs it."""


class Security:
    """Checks the host and the right to read, and adds headers to each response.

    Args:
        app: what answers.
        access: who may read.
        allowed_hosts: names by which browsers may reach the server; None: any.
    """

    def __init__(self, app: ASGIApp, access: Access, allowed_hosts: Sequence[str] | None) -> None:
        self._app = app
        self._access = access
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        no_store = not path_of(scope).startswith("/static/")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if no_store:
                    headers["cache-control"] = "no-store"
            await send(message)

        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        host = Headers(scope=scope).get("host", "")
        if self._allowed_hosts is not None and not is_allowed_host(host, self._allowed_hosts):
            return PlainTextResponse(
                "This name is none by which the server may be reached: --allowed-host adds it.\n",
                status_code=400,
            )
        request = Request(scope)
        path = path_of(scope)
        if path.startswith(_OPEN) or self._access.may_read(request):
            return None
        if path.startswith("/api") or path in ("/metrics", "/events") or scope["method"] == "POST":
            return JSONResponse(
                {"error": "a token is needed: Authorization: Bearer TOKEN"},
                status_code=401,
                headers={"www-authenticate": "Bearer"},
            )
        return RedirectResponse(f"{root_of(scope)}/login", status_code=303)


def checked_hosts(given: object) -> tuple[str, ...]:
    """Return names for `is_allowed_host`.

    Raises:
        ConfigurationError: they would allow any host, or none: a text, whose characters were the
            names, or a name with a scheme, a port or a path.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        names = cast(Sequence[object], given)
        found = tuple(each for each in names if isinstance(each, str) and _HOST.fullmatch(each))
        if len(found) == len(names):
            return found
    raise ConfigurationError(
        "allowed hosts are a list of names without scheme, port and path, such as "
        f"limits.example.com or *.example.com, got {brief(cast(object, given))}"
    )


def is_allowed_host(header: str, allowed: Sequence[str]) -> bool:
    """Whether a server may be reached by the name in a Host header.

    Addresses and `localhost` are always allowed: an attack by DNS rebinding needs a name.

    Args:
        header: with or without a port.
        allowed: names; `*.example.com` for all below one, `*` for any.
    """
    name = header.strip().lower()
    if _is_address(name):
        return True
    if name.startswith("["):
        name, _, port = name[1:].partition("]")
    else:
        name, colon, port = name.partition(":")
        port = colon + port
    if port and not re.fullmatch(r":\d*", port):
        return False
    name = name.rstrip(".")
    if name == "localhost" or _is_address(name):
        return True
    return any(
        pattern == "*"
        or name == pattern.lower()
        or (pattern.startswith("*.") and name.endswith(pattern[1:].lower()))
        for pattern in allowed
    )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
