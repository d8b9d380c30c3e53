"""Makes requests of parked messages, as Celery makes them of messages that a broker delivers."""

from __future__ import annotations

from typing import Any

from limiter_celery import _celery
from limiter_celery._parked_message import ParkedMessage


class RequestFactory:
    """Makes the requests of the limited tasks that this worker knows."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._classes: dict[str, Any] = {}

    def add(self, task: Any, base: type[_celery.Request]) -> None:
        """Add a task to those that it knows; `base` is the base of the class of its requests."""
        consumer = self._consumer
        self._classes[task.name] = _celery.create_request_cls(
            base,
            task,
            consumer.pool,
            consumer.hostname,
            consumer.event_dispatcher,
            app=consumer.app,
        )

    def has(self, task: str | None) -> bool:
        """Whether the task of this name is one of them."""
        return task in self._classes

    def make(self, parked: ParkedMessage) -> Any:
        """Return the request of a message whose task is one of them."""
        consumer = self._consumer
        app = consumer.app
        message = parked.as_delivered(app)
        return self._classes[parked.task or ""](
            message,
            app=app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=app.tasks[parked.task],
            connection_errors=consumer.connection_errors,
            headers=message.headers,
            body=message.body,
            utc=app.uses_utc_timezone(),
        )
