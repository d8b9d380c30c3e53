"""The answer to a client that is not served: problem details (RFC 9457), a closed websocket."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from limiter_core import ConfigurationError, Lease
from limiter_core.brief import brief
from limiter_http.refusals import refusal_of

CLIENT_CLOSED_REQUEST = 499
"""The status of a request whose client is gone, as nginx has it in its log."""

TRY_AGAIN_LATER = 1013
"""The code that a websocket is closed with."""

PROBLEM = "application/problem+json"


class RequestRefused(HTTPException):
    """A request that was refused by `limit`; `__cause__` is the limiter's own error.

    Attributes:
        problem: the problem details; `problem_response` makes a response of them.
    """

    def __init__(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self.problem = dict(problem)
        super().__init__(problem["status"], problem["detail"], {**headers, "content-type": PROBLEM})


def check_on_refused(status: object) -> int:
    """Return the status of refusals.

    Raises:
        ConfigurationError: it is neither 503 nor 429.
    """
    if type(status) is int and status in (503, 429):
        return status
    raise ConfigurationError(
        f"on_refused is 503, or 429 where a limit is the client's own, got {brief(status)}"
    )


def refused(error: Exception, on_refused: int, lease: Lease | None = None) -> RequestRefused | None:
    """Return the answer to a request; None if the error is not about its slot.

    Args:
        error: one of `REFUSALS`.
        on_refused: the status of a refusal; where the store is unavailable, it is 503.
        lease: of the request; None before it has a slot.
    """
    refusal = refusal_of(error, lease)
    if refusal is None:
        return None
    status = 503 if refusal.reason == "unavailable" else on_refused
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": refusal.detail,
        **refusal.fields(),
    }
    headers: dict[str, str] = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after)))
    return RequestRefused(problem, headers)


def problem_response(request: Request, error: Exception) -> Response:  # noqa: ARG001  (a handler's)
    """Return all problem details of a refusal by `limit`; an exception handler::

        app.add_exception_handler(RequestRefused, problem_response)

    Without it, the app's handler of `HTTPException` answers: of the details it sends `detail`.
    """
    assert isinstance(error, RequestRefused)
    return JSONResponse(error.problem, error.status_code, error.headers)


async def send_refusal(error: RequestRefused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or close a websocket, that was not accepted yet."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get(
        "extensions", {}
    ):
        await send(
            {"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": error.problem["detail"]}
        )
    else:
        response = JSONResponse(error.problem, error.status_code, error.headers)
        await response(scope, receive, send)


async def send_to_nobody(scope: Scope, receive: Receive, send: Send) -> None:
    """End a request of a client that is gone.

    A middleware outside may take it for an error if there is no response; Starlette's does.
    """
    if scope["type"] == "http":
        with contextlib.suppress(OSError):  # a server may say so that the client is gone
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)
