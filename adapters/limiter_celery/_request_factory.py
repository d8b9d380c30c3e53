"""Makes requests of parked messages, as Celery makes them of messages that a broker delivers."""

from __future__ import annotations

from typing import Any

from limiter_celery import _celery
from limiter_celery._parked_message import ParkedMessage


class RequestFactory:
    """Makes requests; knows the limited tasks of this worker."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._classes: dict[str, Any] = {}

    def add(self, task: Any, base: type[_celery.Request]) -> None:
        """Add a limited task; `base` is the base of the class of its requests."""
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
        """Whether the task of this name has limits here."""
        return task in self._classes

    def make(self, parked: ParkedMessage) -> Any:
        """Return the request of a message whose task is one of them."""
        return self._made(self._classes[parked.task_in(self._consumer.app) or ""], parked)

    def can_report(self, task: str | None) -> bool:
        """Whether this worker has the task of this name, with limits or without."""
        return task in self._consumer.app.tasks

    def make_to_report(self, parked: ParkedMessage, on_ack: Any = None) -> _celery.Request:
        """Return a request that is not to run, of a message whose task this worker has.

        Args:
            parked: the message.
            on_ack: acknowledges it; None if no broker has it.
        """
        options = {} if on_ack is None else {"on_ack": on_ack}
        request: _celery.Request = self._made(_celery.Request, parked, **options)
        return request

    def _made(self, kind: Any, parked: ParkedMessage, **options: Any) -> Any:
        consumer = self._consumer
        app = consumer.app
        message = parked.as_delivered(app)
        return kind(
            message,
            app=app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=app.tasks[parked.task_in(app)],
            connection_errors=consumer.connection_errors,
            **_celery.parts_of(message, app),
            **options,
        )
