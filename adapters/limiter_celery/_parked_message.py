"""A task's message while it waits: all that is needed to deliver it again, byte for byte.

The signature is never rebuilt: id, retries, chord, chain, stamps and priority live in the raw body
and headers, and come through untouched.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

from limiter_celery import _celery
from limiter_celery._queues import SUFFIX, declare_granted, is_temporary, note_queue

ORIGIN = "limiter_origin"
"""The header of a message that was sent again: where the first one came from."""

REFUSED = "limiter_refused"
"""The header of a message that was sent again for its end: why it is not to run."""

_SENT_AGAIN = (
    "correlation_id",
    "delivery_mode",
    "message_id",
    "priority",
    "reply_to",
    "timestamp",
)
"""The sender's properties that are sent again. The task sees all of them."""

_NOT_SENT_AGAIN = ("app_id", "cluster_id", "expiration", "type", "user_id")
"""Those that say how the broker is to deal with a message: for the first way, which is over."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """The message of a waiting task.

    Attributes:
        body: as it came, decompressed.
        headers: as they came, without those of this adapter.
        properties: those that the sender gave.
        content_type: of the body.
        content_encoding: of the body.
        exchange: where it was sent to first.
        routing_key: where it was sent to first.
        queue: the queue it came from.
        temporary: whether that queue ends with those who consume it.
        order: its place in line, in microseconds since the epoch.
    """

    body: bytes | str
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str | None
    content_encoding: str | None
    exchange: str
    routing_key: str
    queue: str
    temporary: bool
    order: int

    @property
    def task(self) -> str | None:
        """The task's name; None in a message of the old protocol, which has it in its body."""
        name: str | None = self.headers.get("task")
        return name

    def pack(self) -> bytes:
        """Return the parcel as bytes."""
        text = isinstance(self.body, str)
        body = self.body.encode() if isinstance(self.body, str) else self.body
        packed: str = _celery.dumps(
            [
                text,
                base64.b64encode(body).decode(),
                self.headers,
                self.properties,
                self.content_type,
                self.content_encoding,
                self.exchange,
                self.routing_key,
                self.queue,
                self.temporary,
                self.order,
            ]
        )
        return packed.encode()

    def message(self, app: Any) -> Any:
        """Return it as a message that was just delivered, though by no broker."""
        message = _celery.Message(
            body=self.body,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=dict(self.headers),
            properties=dict(self.properties),
            delivery_info={"exchange": self.exchange, "routing_key": self.routing_key},
            accept=_celery.prepare_accept_content(app.conf.accept_content),
        )
        note_queue(message, self.queue)
        return message

    def refused(self, reason: str) -> Parcel:
        """Return a parcel that is to be delivered for its end."""
        return replace(self, headers={**self.headers, REFUSED: reason})

    def send(self, app: Any) -> None:
        """Deliver it again, through the broker: ahead of what waits in its own queue.

        Raises:
            QueueMissing: no worker consumes that queue.
            Exception: whatever the broker's driver raises.
        """
        properties = dict(self.properties)
        rest = {name: properties.pop(name) for name in _NOT_SENT_AGAIN if name in properties}
        origin = [self.exchange, self.routing_key, self.queue, self.temporary, self.order, rest]
        headers = {**self.headers, ORIGIN: origin}
        compression = headers.pop("compression", None)
        with app.producer_or_acquire() as producer:
            producer.publish(
                self.body,
                exchange="",  # the broker's own, in which each queue has its name for a key
                routing_key=f"{self.queue}{SUFFIX}",
                declare=declare_granted(app, self.queue, producer.connection),
                headers=headers,
                content_type=self.content_type,
                content_encoding=self.content_encoding,
                compression=compression,
                retry=True,
                retry_policy={"max_retries": 2, "interval_start": 0, "interval_max": 0.5},
                **properties,
            )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message that was sent again came from first.

    Attributes:
        exchange: where it was sent to.
        routing_key: where it was sent to.
        queue: the queue that it was taken from.
        temporary: whether that queue ends with those who consume it.
        order: its place in line.
        properties: those that were not sent again.
    """

    exchange: str
    routing_key: str
    queue: str
    temporary: bool
    order: int
    properties: dict[str, Any]


def origin_of(headers: dict[str, Any]) -> Origin | None:
    """Return where a message came from first, None if this is its first way."""
    said = headers.get(ORIGIN)
    return None if said is None else Origin(*said)


def unpack(packed: bytes) -> Parcel:
    """Return the parcel that was packed."""
    text, body, *rest = _celery.loads(packed.decode())
    raw = base64.b64decode(body)
    return Parcel(raw.decode() if text else raw, *rest)


def parcel_of(request: Any) -> Parcel:
    """Return the parcel of a request that a worker received."""
    message = request.message
    headers = dict(message.headers)
    headers.pop(REFUSED, None)
    # A countdown is over when it comes here, and must not begin anew.
    if headers.get("eta") is not None:
        headers["eta"] = None
    headers.pop("redelivered", None)  # of the Redis transport: about one delivery
    headers.pop(ORIGIN, None)
    passage = request.passage
    origin: Origin | None = passage.origin
    if origin is None:
        info: dict[str, Any] = message.delivery_info or {}
        exchange, routing_key = info.get("exchange") or "", info.get("routing_key") or ""
        temporary = is_temporary(request.app, passage.queue)
    else:
        exchange, routing_key, temporary = origin.exchange, origin.routing_key, origin.temporary
    given: dict[str, Any] = message.properties or {}
    kept = (*_SENT_AGAIN, *_NOT_SENT_AGAIN)
    properties = {name: given[name] for name in kept if given.get(name) is not None}
    return Parcel(
        message.body,
        headers,
        properties,
        message.content_type,
        message.content_encoding,
        exchange,
        routing_key,
        passage.queue,
        temporary,
        passage.order,
    )
