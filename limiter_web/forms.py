"""Forms: their fields, and a message that the next page shows once."""

from __future__ import annotations

import base64
import binascii
import json
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from limiter_core.brief import cut
from limiter_web.paths import root_of

__all__ = ("Message", "body_of", "fields_of", "local_path", "redirect", "take_message")

MAX_BODY = 64 * 1024
MAX_FIELDS = 50
_COOKIE = "limiter_message"
_MAX_MESSAGE = 480
"""Characters: browsers ignore a cookie of more than 4096 bytes, and one may need 8 of them."""


class Message(NamedTuple):
    """What the next page says once.

    Attributes:
        kind: `done` or `failed`.
        text: the message.
    """

    kind: str
    text: str


async def body_of(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: it is larger than any that is meant.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"a request has at most {MAX_BODY} bytes")
    return body


async def fields_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; of several with one name the last.

    Raises:
        HTTPException: there are more than in any form.
    """
    text = (await body_of(request)).decode(errors="replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise HTTPException(400, f"a form has at most {MAX_FIELDS} fields") from None


def local_path(root: str, given: str) -> str:
    """Return a path of this app to go back to; its first page for any other."""
    if given.startswith("/") and not given.startswith(("//", "/\\")) and given.isprintable():
        return f"{root}{given}"
    return f"{root}/"


def redirect(request: Request, to: str, message: Message | None = None) -> Response:
    """Return a redirect after a form was sent."""
    response = RedirectResponse(to, status_code=303)
    if message is not None:
        shown = message._replace(text=cut(message.text, _MAX_MESSAGE))
        written = json.dumps(shown, ensure_ascii=False).encode(errors="replace")
        text = base64.urlsafe_b64encode(written).decode()
        response.set_cookie(
            _COOKIE,
            text,
            max_age=30,
            path=root_of(request.scope) or "/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return response


def take_message(request: Request) -> tuple[Message | None, str]:
    """Return the message for this page, and the name of the cookie that is to be removed."""
    try:
        kind, text = json.loads(base64.urlsafe_b64decode(request.cookies.get(_COOKIE, "")))
        return Message(str(kind), str(text)), _COOKIE
    except (ValueError, TypeError, RecursionError, binascii.Error):
        return None, _COOKIE
