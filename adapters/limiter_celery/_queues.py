"""The queues of a worker: from which one a message came, and where it goes when it is granted.

A message says where it was sent to, not where it was taken from: behind an exchange of type topic,
headers or fanout, or after a delay, its routing key names no queue. So the consumer notes it. A
granted task goes to a queue by its name, whatever is bound to that: beside each queue of the user
is one for granted tasks, so that they do not wait a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from limiter_celery import _celery

SUFFIX = ".granted"
"""Ends the name of a queue of granted tasks: they waited, and may run now."""

_NOTE = "limiter_queue"

# No message is published there; without one, Celery would bind the queue to the user's exchange. Of
# this type, since Celery warns of others when the broker delays messages.
_EXCHANGE = _celery.Exchange("limiter.granted", type="topic")

_LOSING = ("x-max-length", "x-max-length-bytes", "x-message-ttl", "x-overflow")
"""Arguments by which a queue loses messages; a granted task must not be lost."""


def consume_granted(app: Any, is_to_run: Callable[[Any], bool]) -> None:
    """Have a worker consume, beside each of its queues, that of its granted tasks.

    Args:
        app: the Celery app.
        is_to_run: called with each message, before it is processed; returns whether it is to be.
    """
    if not issubclass(app.amqp.Consumer, _TaskConsumer):
        bases = (_TaskConsumer, app.amqp.Consumer)
        names = {"app": app, "is_to_run": staticmethod(is_to_run)}
        app.amqp.Consumer = type("TaskConsumer", bases, names)
    queues = app.amqp.queues
    for name in list(queues.consume_from):
        if not name.endswith(SUFFIX):
            queues.select_add(granted_queue(app, name))


def granted_queue(app: Any, name: str) -> Any:
    """Return the queue of granted tasks beside one of the user's queues."""
    beside = app.amqp.queues[name]
    given: dict[str, Any] = beside.queue_arguments or {}
    arguments = {key: value for key, value in given.items() if key not in _LOSING}
    return _celery.Queue(
        f"{name}{SUFFIX}",
        _EXCHANGE,
        routing_key=f"{name}{SUFFIX}",
        durable=beside.durable,
        # One that is exclusive could not be declared by others.
        auto_delete=is_temporary(app, name),
        expires=beside.expires,
        max_priority=beside.max_priority,
        queue_arguments=arguments or None,
    )


def is_temporary(app: Any, name: str) -> bool:
    """Whether a queue is deleted with its consumers, and all messages in it."""
    queue = _known(app, name)
    return queue is not None and bool(queue.auto_delete or queue.exclusive)


def may_hold_copies(app: Any, name: str) -> bool:
    """Whether a message in this queue may have copies in others: each is to run."""
    queue = _known(app, name)
    if queue is None:
        return False
    exchanges = [queue.exchange, *(each.exchange for each in queue.bindings or ())]
    return any(each is not None and each.type not in (None, "direct") for each in exchanges)


def note_queue(message: Any, name: str) -> None:
    """Note on a message from which queue it was taken."""
    message.delivery_info[_NOTE] = name


def queue_of(app: Any, message: Any) -> str:
    """Return the queue that a message was taken from; its broker does not say."""
    info: dict[str, Any] = message.delivery_info or {}
    if _NOTE in info:
        return str(info[_NOTE])
    # It was taken by a consumer that is not Celery's: whichever queue its routing key names.
    exchange, routing_key = info.get("exchange") or "", info.get("routing_key") or ""
    consumed = [
        queue for name, queue in app.amqp.queues.consume_from.items() if not name.endswith(SUFFIX)
    ]
    for queue in consumed:
        is_bound = queue.exchange is not None and queue.exchange.name == exchange
        if (is_bound and queue.routing_key == routing_key) or queue.name == routing_key:
            return str(queue.name)
    # Else any that this worker consumes: so it comes to one that knows the task.
    return str(consumed[0].name if consumed else app.conf.task_default_queue)


def declare_granted(app: Any, name: str, connection: Any) -> list[Any]:
    """Return what is to be declared before a message is published beside a queue.

    A queue of which this worker does not know how it is declared has to be there already.

    Raises:
        QueueMissing: it is not.
    """
    if _known(app, name) is not None:
        return [granted_queue(app, name)]
    if connection.transport.driver_type == "amqp":  # on the others, to publish makes the queue
        with connection.channel() as channel:
            try:
                _celery.Queue(f"{name}{SUFFIX}")(channel).queue_declare(passive=True)
            except connection.channel_errors as error:
                raise QueueMissing(f"no worker consumes the queue {name}") from error
    return []


class QueueMissing(Exception):
    """No worker that is alive consumes the queue that a waiting task came from."""


def _known(app: Any, name: str) -> Any:
    queues = app.amqp.queues
    return queues[name] if name in queues else None  # noqa: SIM401  # it makes what is missing


class _TaskConsumer(_celery.QueueNotingConsumer):
    """Celery's consumer of tasks; notes on each message the queue from which it was taken.

    A queue that is added later, by a remote control command, has one of granted tasks, too.
    """

    app: Any
    is_to_run: Callable[[Any], bool]

    def __init__(self, channel: Any, queues: Any = None, *args: Any, **options: Any) -> None:
        # With an option of the Redis transport, messages are taken from the first queue that has
        # any: that must be one of granted tasks, which hold their slots.
        first = sorted(queues or (), key=lambda queue: not queue.name.endswith(SUFFIX))
        super().__init__(channel, first, *args, **options)

    def add_queue(self, queue: Any) -> Any:
        """Prepare to consume from a queue, and before it from that of its granted tasks."""
        if not queue.name.endswith(SUFFIX):
            super().add_queue(self.app.amqp.queues.select_add(granted_queue(self.app, queue.name)))
        return super().add_queue(queue)

    def cancel_by_queue(self, queue: Any) -> None:
        """Consume no more from a queue, and from that of its granted tasks."""
        super().cancel_by_queue(queue)
        granted = f"{queue if isinstance(queue, str) else queue.name}{SUFFIX}"
        self.app.amqp.queues.deselect([granted])
        super().cancel_by_queue(granted)

    def on_queue_message(self, queue: str, message: Any) -> bool:
        """Note the queue."""
        note_queue(message, queue)
        return self.is_to_run(message)
