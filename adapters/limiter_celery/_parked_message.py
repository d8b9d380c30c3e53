"""The message of a task that waits: all that is needed to publish it again, byte for byte.

The signature is never rebuilt: id, retries, chord, chain, stamps and priority are in the raw body
and headers, which are kept as they are.
"""

from __future__ import annotations

import base64
import logging
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from limiter_celery import _celery
from limiter_celery._queues import SUFFIX, declare_granted, is_temporary, note_queue

logger = logging.getLogger("limiter")

ORIGIN = "limiter_origin"
"""The header of a message that is published again: its `Origin`."""

KEYS = "limiter_keys"
"""The header of a message that is published again: the keys on which its task was granted."""

REFUSAL = "limiter_refused"
"""The header of a message that is published again only to be REVOKED: the reason."""

PUBLICATION = "limiter_publication"
"""The header of a message that is published again: an id of its own, which its copies have, too."""

HEADERS = (ORIGIN, KEYS, REFUSAL, PUBLICATION)
"""All of these: the task must not see them."""

_PUBLISHED_AGAIN = (
    "correlation_id",
    "delivery_mode",
    "message_id",
    "priority",
    "reply_to",
    "timestamp",
)
"""The sender's properties that are published again. The task sees all of them."""

_NOT_PUBLISHED_AGAIN = ("app_id", "cluster_id", "expiration", "type", "user_id")
"""Those that say to the broker how to deliver a message: they were for the first delivery."""


class ParkedMessage(NamedTuple):
    """The message of a waiting task."""

    body: bytes | str  # as it came, decompressed
    headers: dict[str, Any]  # as they came, without those of this adapter
    properties: dict[str, Any]  # those that the sender gave
    content_type: str | None
    content_encoding: str | None
    exchange: str  # where it was sent to first
    routing_key: str  # where it was sent to first
    queue: str  # from which it was taken
    temporary: bool  # whether that queue is deleted with its consumers
    order: int  # its place in line, in microseconds since the epoch

    def task_in(self, app: Any) -> str | None:
        """Return the task's name; None if the message cannot be read."""
        head = self.headers if "task" in self.headers else head_of(self.as_delivered(app))
        name: str | None = head.get("task")
        return name

    def pack(self) -> bytes:
        """Return it as bytes."""
        body, *rest = self
        is_text = isinstance(body, str)
        raw = body.encode() if isinstance(body, str) else body
        packed: str = _celery.dumps([is_text, base64.b64encode(raw).decode(), *rest])
        return packed.encode()

    def as_delivered(self, app: Any) -> Any:
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

    def refused(self, reason: str) -> ParkedMessage:
        """Return the message that reports the task as REVOKED where it is delivered."""
        return self._replace(headers={**self.headers, REFUSAL: reason})

    def publish(self, app: Any, keys: Sequence[str] = ()) -> None:
        """Publish it to the queue of granted tasks: ahead of what waits in its own queue.

        Args:
            app: the Celery app.
            keys: those on which the task was granted, as far as they are known.

        Raises:
            QueueMissing: no worker consumes that queue.
            Exception: whatever the broker's driver raises.
        """
        properties = dict(self.properties)
        rest = {name: properties.pop(name) for name in _NOT_PUBLISHED_AGAIN if name in properties}
        origin = Origin(
            self.exchange, self.routing_key, self.queue, self.temporary, self.order, rest
        )
        headers = {
            **self.headers,
            ORIGIN: list(origin),
            KEYS: list(keys),
            PUBLICATION: uuid.uuid4().hex,
        }
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


class Origin(NamedTuple):
    """Where a message that was published again came from first; `properties` were left out."""

    exchange: str
    routing_key: str
    queue: str
    temporary: bool
    order: int
    properties: dict[str, Any]


def origin_of(headers: dict[str, Any]) -> Origin | None:
    """Return where a message came from first; None if it was not published again.

    A header that cannot be read (another program uses the name) counts as none, with a warning: it
    must not end the worker.
    """
    given = headers.get(ORIGIN)
    if given is None:
        return None
    try:
        words: list[Any] = [*given]
        if len(words) == 4:  # 0.1.0 wrote no more
            words = [*words[:3], False, words[3], {}]
        exchange, routing_key, queue, temporary, order, properties = words
        return Origin(
            str(exchange or ""),
            str(routing_key or ""),
            str(queue or routing_key or ""),
            bool(temporary),
            int(order),
            dict(properties),
        )
    except (TypeError, ValueError):
        logger.warning("a message has a header %r that cannot be read: %.200r", ORIGIN, given)
        return None


def unpack(packed: bytes) -> ParkedMessage:
    """Return the message that was packed."""
    read: list[Any] = _celery.loads(packed.decode())
    is_text, body, *rest = read
    raw = base64.b64decode(body)
    if len(rest) == 8:  # 0.1.0 did not write `temporary`
        *rest, queue, order = rest
        rest += [queue or rest[-1], False, order]
    return ParkedMessage(raw.decode() if is_text else raw, *rest)


def head_of(message: Any) -> dict[str, Any]:
    """Return what has the name, the id and the number of retries of a message's task.

    In protocol 1 that is the body. It is empty if the message cannot be read.
    """
    headers: dict[str, Any] = message.headers or {}
    if "task" in headers:
        return headers
    try:
        body = message.payload
    except Exception:  # noqa: BLE001  # of the serializer: Celery reports it
        return {}
    return cast(dict[str, Any], body) if isinstance(body, dict) else {}


def parked_message_of(request: Any) -> ParkedMessage:
    """Return the message of a request that a worker received."""
    message, delivery = request.message, request.delivery
    origin: Origin | None = delivery.origin
    if origin is None:
        info: dict[str, Any] = message.delivery_info or {}
        origin = Origin(
            info.get("exchange") or "",
            info.get("routing_key") or "",
            delivery.queue,
            is_temporary(request.app, delivery.queue),
            delivery.order,
            {},
        )
    return parked_before(message, origin)


def parked_before(message: Any, origin: Origin) -> ParkedMessage:
    """Return the message of a waiting task that was published again, or never was."""
    headers = dict(message.headers)
    # `redelivered`, of the Redis transport, is about one delivery.
    for name in (*HEADERS, "redelivered"):
        headers.pop(name, None)
    # A countdown is over when it comes here, and must not start again.
    if headers.get("eta") is not None:
        headers["eta"] = None
    given: dict[str, Any] = {**(message.properties or {}), **origin.properties}
    kept = (*_PUBLISHED_AGAIN, *_NOT_PUBLISHED_AGAIN)
    return ParkedMessage(
        message.body,
        headers,
        {name: given[name] for name in kept if given.get(name) is not None},
        message.content_type,
        message.content_encoding,
        origin.exchange,
        origin.routing_key,
        origin.queue,
        origin.temporary,
        origin.order,
    )
