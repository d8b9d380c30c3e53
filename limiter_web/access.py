"""Who may read and who may act: the token, the session in a cookie, and the CSRF token.

A session is signed with a key made of the token, so servers with one token accept each other's,
and a new token ends all sessions. It holds the operator's name and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from limiter_core.errors import ConfigurationError
from limiter_core.system_clock import system_clock as time
from limiter_web.paths import root_of

__all__ = ("COOKIE", "CSRF_FIELD", "CSRF_HEADER", "Access", "Session")

logger = logging.getLogger("limiter")

COOKIE = "limiter_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"

LASTS = 12 * 3600
"""Seconds after which an operator gives the token again."""

SHORT = 8
"""Characters; a token that has fewer is warned of, since it can be guessed."""

MAX_OPERATOR_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Session:
    """An operator that gave the token.

    Attributes:
        operator: the name given at the login; empty without one.
        csrf: what forms of this session carry; empty if the token came in a header, which no
            browser adds by itself.
    """

    operator: str
    csrf: str


class Access:
    """What a request may do.

    Args:
        token: what acting needs; None: no request may act.
        private: whether reading needs it, too.

    Raises:
        ConfigurationError: the token is empty or no text, or reading needs one and there is none.
    """

    def __init__(self, token: str | None, *, private: bool) -> None:
        if token == "":
            raise ConfigurationError(
                "the token is empty: give one (`openssl rand -hex 16` makes it), or none for a "
                "page that only reads"
            )
        if token is not None and len(token) < SHORT:
            logger.warning(
                "the token of the page of limits has %d characters and can be guessed; "
                "`openssl rand -hex 16` makes a better one",
                len(token),
            )
        if private and token is None:
            raise ConfigurationError("a page that is private needs a token")
        self.read_only = token is None
        self.private = private
        try:
            self._key = hashlib.sha256(b"limiter_web:" + (token or "").encode()).digest()
        except UnicodeEncodeError:
            raise ConfigurationError(
                "the token contains bytes that are no UTF-8, so no client could send it"
            ) from None

    def accepts(self, token: str) -> bool:
        """Whether this is the token; takes the same time for each wrong one."""
        given = hashlib.sha256(b"limiter_web:" + token.encode(errors="surrogatepass")).digest()
        return hmac.compare_digest(given, self._key) and not self.read_only

    def session_of(self, request: Request) -> Session | None:
        """Return the session of a request; None without a token."""
        if self.read_only:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.accepts(given.strip()):
            return Session("", "")
        return self._session_in(request.cookies.get(COOKIE, ""))

    def may_read(self, request: Request) -> bool:
        """Whether a request may see anything."""
        return not self.private or self.session_of(request) is not None

    def has_csrf(self, session: Session, given: str) -> bool:
        """Whether a form was made for this session."""
        return not session.csrf or hmac.compare_digest(
            session.csrf.encode(), given.encode(errors="replace")
        )

    def begin_session(self, request: Request, response: Response, operator: str) -> None:
        """Set the cookie of a new session."""
        content = {
            "id": secrets.token_hex(16),
            "by": operator.strip()[:MAX_OPERATOR_LENGTH],
            "until": int(time.time()) + LASTS,
        }
        text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        response.set_cookie(
            COOKIE,
            f"{text}.{self._signature('session', text)}",
            max_age=LASTS,
            path=_path(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def end_session(self, request: Request, response: Response) -> None:
        """Remove the cookie."""
        response.delete_cookie(COOKIE, path=_path(request), httponly=True, samesite="strict")

    def _session_in(self, cookie: str) -> Session | None:
        text, _, signature = cookie.rpartition(".")
        wanted = self._signature("session", text).encode()
        if not hmac.compare_digest(signature.encode(errors="replace"), wanted):
            return None
        try:
            content = json.loads(base64.urlsafe_b64decode(text))
        except (ValueError, binascii.Error):
            return None
        if content["until"] < time.time():
            return None
        return Session(content["by"], self._signature("csrf", content["id"]))

    def _signature(self, purpose: str, text: str) -> str:
        signed = f"{purpose}:{text}".encode(errors="replace")
        return hmac.new(self._key, signed, hashlib.sha256).hexdigest()


def _path(request: Request) -> str:
    return root_of(request.scope) or "/"
