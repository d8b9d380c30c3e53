"""A task's message while it waits: all that is needed to deliver it again, byte for byte.

The signature is never rebuilt: id, retries, chord, chain, stamps and priority live in the raw body
and headers, and come through untouched.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

from limiter_celery import _celery

ORIGIN = "limiter_origin"
"""The header of a message that was sent again: where the first one came from."""

REFUSED = "limiter_refused"
"""The header of a message that was sent again for its end: why it is not to run."""

_KEPT = ("correlation_id", "delivery_mode", "message_id", "priority", "reply_to", "timestamp")
"""The properties that are the sender's; the rest belongs to the broker's one delivery."""

_EXCHANGE = "limiter"
_SUFFIX = ".granted"


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
        queue: the queue it came from, if a queue of granted tasks stands beside that; else None.
        order: its place in line, in microseconds since the epoch.
    """

    body: bytes | str
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str | None
    content_encoding: str | None
    exchange: str
    routing_key: str
    queue: str | None
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
                self.order,
            ]
        )
        return packed.encode()

    def message(self, app: Any) -> Any:
        """Return it as a message that was just delivered, though by no broker."""
        return _celery.Message(
            body=self.body,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=dict(self.headers),
            properties=dict(self.properties),
            delivery_info={"exchange": self.exchange, "routing_key": self.routing_key},
            accept=_celery.prepare_accept_content(app.conf.accept_content),
        )

    def refused(self, reason: str) -> Parcel:
        """Return a parcel that is to be delivered for its end."""
        return replace(self, headers={**self.headers, REFUSED: reason})

    def send(self, app: Any) -> None:
        """Deliver it again, through the broker: ahead of what waits in its own queue.

        Raises:
            Exception: whatever the broker's driver raises.
        """
        origin = [self.exchange, self.routing_key, self.queue, self.order]
        headers = {**self.headers, ORIGIN: origin}
        options: dict[str, Any] = dict(self.properties)
        if self.queue is None:
            options |= {"exchange": self.exchange, "routing_key": self.routing_key}
        else:
            queue = granted_queue(app, self.queue)
            options |= {
                "exchange": queue.exchange,
                "routing_key": queue.routing_key,
                "declare": [queue],
            }
        compression = headers.pop("compression", None)
        with app.producer_or_acquire() as producer:
            producer.publish(
                self.body,
                headers=headers,
                content_type=self.content_type,
                content_encoding=self.content_encoding,
                compression=compression,
                retry=True,
                retry_policy={"max_retries": 2, "interval_start": 0, "interval_max": 0.5},
                **options,
            )


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
    origin = headers.pop(ORIGIN, None)
    if origin is None:
        info: dict[str, Any] = message.delivery_info or {}
        exchange, routing_key = info.get("exchange") or "", info.get("routing_key") or ""
        queue = _queue_of(request.app, exchange, routing_key)
    else:
        exchange, routing_key, queue, _ = origin
    given: dict[str, Any] = message.properties or {}
    properties = {name: given[name] for name in _KEPT if given.get(name) is not None}
    return Parcel(
        message.body,
        headers,
        properties,
        message.content_type,
        message.content_encoding,
        exchange,
        routing_key,
        queue,
        request.passage.order,
    )


def granted_queue(app: Any, name: str) -> Any:
    """Return the queue of tasks that waited, and may run now, beside one of the user's queues."""
    beside = app.amqp.queues[name]
    return _celery.Queue(
        f"{name}{_SUFFIX}",
        _celery.Exchange(_EXCHANGE, type="direct"),
        routing_key=f"{name}{_SUFFIX}",
        durable=beside.durable,
        auto_delete=beside.auto_delete,
        queue_arguments=beside.queue_arguments,
    )


def consume_granted(app: Any) -> None:
    """Have a worker consume, beside each of its queues, the tasks that waited there."""
    queues = app.amqp.queues
    for name in list(queues.consume_from):
        if not name.endswith(_SUFFIX):
            queues.select_add(granted_queue(app, name))


def _queue_of(app: Any, exchange: str, routing_key: str) -> str | None:
    """Return which queue a message came from: its broker does not always say."""
    consumed = app.amqp.queues.consume_from
    for name, queue in consumed.items():
        if f"{name}{_SUFFIX}" not in consumed:
            continue
        if not exchange and routing_key == name:
            return str(name)
        if queue.exchange and queue.exchange.name == exchange and queue.routing_key == routing_key:
            return str(name)
    return None
