"""A request under the middleware: what the app gets for the `receive` and `send` of the server."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limiter_asgi._client import WaitingClient
from limiter_core import Lease
from limiter_core.streams import release_at_once

_PARTS = {
    "http.response.body": "more_body",
    "http.response.zerocopysend": "more_body",
    "http.response.pathsend": "more_body",
    "http.response.trailers": "more_trailers",
    "websocket.close": "",
    "websocket.http.response.body": "more_body",
}
"""Messages that may be the last of an app, each with the name of what says that more follow."""

_BEFORE_RESPONSE = ("http.response.early_hint", "http.response.push", "http.response.debug")
"""Messages after which the status of the response is still open."""


class LimitedRequest(WaitingClient):
    """A request: its client, and what was sent to it. Releases the slot behind the last byte.

    Attributes:
        lease: of the slot; None before it has one.
        begun_by: the type of the first message of the response; empty before it.
    """

    lease: Lease | None = None
    begun_by = ""
    _has_trailers = False

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive = self._receive = receive  # as `WaitingClient`, in one step less
        self._app = app
        self._scope = scope
        self._send = send

    def serve(self, lease: Lease) -> Awaitable[None]:
        """Call the app."""
        self.lease = lease
        return self._app(self._scope, self.receive, self.send)

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the app."""
        kind = message["type"]
        if not self.begun_by and kind not in _BEFORE_RESPONSE:
            self.begun_by = kind
            self._has_trailers = message.get("trailers", False)
        more = _PARTS.get(kind)
        if more is None or message.get(more):
            return self._send(message)
        if self._has_trailers and kind != "http.response.trailers":
            return self._send(message)
        return self._send_last(message)

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        assert self.lease is not None
        if not release_at_once(self.lease):
            await self.lease.release()
