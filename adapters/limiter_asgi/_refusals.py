"""The answer to a client that is not served: problem details (RFC 9457), a closed websocket."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from limiter_core import (
    Lease,
    LeaseLost,
    LimiterError,
    LimitReached,
    StoreError,
    Superseded,
)

REFUSALS = (LimitReached, Superseded, LeaseLost, StoreError)
"""What ends a request that has no response yet, and is no fault of the code."""

TRY_AGAIN_LATER = 1013
"""The code that a websocket is closed with."""

PROBLEM = "application/problem+json"

_DETAILS = {
    "full": "All slots of this limit are in use.",
    "queue_full": "All slots of this limit are in use, and so are all places in its queue.",
    "timeout": "No slot of this limit was free in time.",
    "superseded": "A newer request took the place of this one.",
    "evicted": "An operator ended the waiting of this request.",
    "lost": "The slot of this request was taken from it.",
    "unavailable": "Requests cannot be admitted at the moment.",
}

_logger = logging.getLogger("limiter")


class RequestRefused(HTTPException):
    """A request that was refused by `limit`; `__cause__` is the limiter's own error.

    Attributes:
        problem: the problem details; `problem_response` makes a response of them.
    """

    def __init__(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self.problem = dict(problem)
        super().__init__(problem["status"], problem["detail"], {**headers, "content-type": PROBLEM})


def ends_request(error: BaseException, lease: Lease | None) -> bool:
    """Whether an error is about the slot of the request, and not the app's own.

    Args:
        error: one of `REFUSALS`.
        lease: of the request; None before it has a slot.
    """
    return lease is None or (isinstance(error, LeaseLost) and error.lease_id == lease.id)


def refused(error: LimiterError, on_refused: int) -> RequestRefused:
    """Return the answer to a request; a store that is unavailable is logged.

    Args:
        error: one of `REFUSALS`.
        on_refused: the status of a refusal.
    """
    status, headers = on_refused, dict[str, str]()
    if isinstance(error, StoreError):
        _logger.warning("a request was refused, since the store is unavailable: %s", error)
        status, reason, name = 503, "unavailable", ""
    elif isinstance(error, LimitReached | Superseded):
        reason, name = error.reason, error.name
        retry_after = getattr(error, "retry_after", None)
        if retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(retry_after)))
    else:
        reason, name = "lost", ""
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _DETAILS[reason],
        "reason": reason,
    }
    if name:
        problem["limit"] = name
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
