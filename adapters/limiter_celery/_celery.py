"""All that this adapter takes from Celery and kombu, in one place; neither has types.

Some of it is private, and no other module of the adapter uses a private name of theirs.
`tests/celery_/test_hooks.py` guards the shape of each, so that a release of Celery that changed one
fails there, and not in a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any


def _imported(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


state: Any = import_module("celery.worker.state")

if TYPE_CHECKING:

    class _Untyped:
        """Stands for a class of Celery: it has whatever attribute is asked for."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    class Task(_Untyped):
        """`celery.app.task.Task`."""

        def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any: ...

    class _Request(_Untyped):
        """`celery.worker.request.Request`."""

        acknowledged: bool

        def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any: ...
        def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any: ...
        def on_accepted(self, pid: Any, time_accepted: float) -> None: ...
        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any: ...
        def on_timeout(self, soft: bool, timeout: Any) -> None: ...
        def reject(self, requeue: bool = False) -> None: ...
        def revoked(self) -> bool: ...
        def _announce_revoked(
            self, reason: Any, terminated: bool, signum: Any, expired: bool
        ) -> None: ...

    class StartStopStep(_Untyped):
        """`celery.bootsteps.StartStopStep`."""

    class _Consumer(_Untyped):
        """`kombu.Consumer`."""

        def add_queue(self, queue: Any) -> Any: ...
        def cancel_by_queue(self, queue: Any) -> None: ...
        def _basic_consume(self, queue: Any, *args: Any, **options: Any) -> Any: ...

else:
    Task = _imported("celery.app.task", "Task")
    _Request = _imported("celery.worker.request", "Request")
    StartStopStep = _imported("celery.bootsteps", "StartStopStep")
    _Consumer = _imported("kombu", "Consumer")

REVOKE_EXPIRES: float = state.REVOKE_EXPIRES
RUN: int = _imported("celery.bootsteps", "RUN")
Exchange: Any = _imported("kombu", "Exchange")
ExceptionInfo: Any = _imported("billiard.einfo", "ExceptionInfo")
Message: Any = _imported("kombu.message", "Message")
Panel: Any = _imported("celery.worker.control", "Panel")
Queue: Any = _imported("kombu", "Queue")
create_request_cls: Any = _imported("celery.worker.request", "create_request_cls")
dumps: Any = _imported("kombu.utils.json", "dumps")
hybrid_to_proto2: Any = _imported("celery.worker.strategy", "hybrid_to_proto2")
loads: Any = _imported("kombu.utils.json", "loads")
prepare_accept_content: Any = _imported("kombu.serialization", "prepare_accept_content")

TaskRevokedError: type[Exception] = _imported("celery.exceptions", "TaskRevokedError")
TimeLimitExceeded: type[Exception] = _imported("celery.exceptions", "TimeLimitExceeded")


class Request(_Request):
    """Celery's request, with public names for what the adapter sets, calls and overrides."""

    def announce_revoked(self, reason: str, *, expired: bool = False) -> None:
        """Report the task as REVOKED, and acknowledge its message."""
        self._announce_revoked(reason, False, None, expired)

    def on_revoked(self, *, terminated: bool) -> None:
        """Called when the task was reported as REVOKED; `terminated` if its body was running."""

    def revoked_reason(self, reason: str) -> str:
        """Return the reason to report, given Celery's own; called before it is reported."""
        return reason

    def _announce_revoked(self, reason: Any, terminated: bool, signum: Any, expired: bool) -> None:
        super()._announce_revoked(self.revoked_reason(reason), terminated, signum, expired)
        self.on_revoked(terminated=terminated)

    def set_destination(self, exchange: str, routing_key: str) -> None:
        """Set where a retry of the task is sent."""
        self._delivery_info["exchange"] = exchange
        self._delivery_info["routing_key"] = routing_key


class QueueNotingConsumer(_Consumer):
    """kombu's consumer, which says of each message from which queue it was taken."""

    def on_queue_message(self, queue: str, message: Any) -> bool:
        """Called with each message, before it is processed; returns whether it is to be."""
        raise NotImplementedError

    def _basic_consume(self, queue: Any, *args: Any, **options: Any) -> Any:
        observed = _ObservedQueue(queue, self.on_queue_message)
        return super()._basic_consume(observed, *args, **options)


class _ObservedQueue:
    """A queue; a function is called with its name and each message that is consumed from it.

    A message is processed if it returns True.
    """

    def __init__(self, queue: Any, observer: Callable[[str, Any], bool]) -> None:
        self._queue = queue
        self._observer = observer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def consume(self, consumer_tag: str, callback: Any, **options: Any) -> Any:
        """Consume from it; `callback` is called with each message that is to be processed."""

        def received(message: Any) -> Any:
            return callback(message) if self._observer(self._queue.name, message) else None

        return self._queue.consume(consumer_tag, received, **options)


def without_proxy(app: Any) -> Any:
    """Return the app itself: Celery often hands out a proxy of it."""
    current = getattr(app, "_get_current_object", None)
    return app if current is None else current()


def as_message(received: Any, app: Any) -> Any:
    """Return kombu's message of what a consumer of a channel is called with.

    With RabbitMQ that is the driver's own, which cannot be acknowledged or decoded.
    """
    message = received.channel.message_to_python(received)
    message.accept = prepare_accept_content(app.conf.accept_content)
    return message


def parts_of(message: Any, app: Any) -> dict[str, Any]:
    """Return what a request is made of: body and headers of a message, as of protocol 2."""
    body, headers, decoded = message.body, message.headers, False
    utc = app.uses_utc_timezone()
    if "args" in message.payload:  # protocol 1
        body, headers, decoded, utc = hybrid_to_proto2(message, message.payload)
    return {"body": body, "headers": headers, "decoded": decoded, "utc": utc}


def semaphore_of(worker: Any) -> Any:
    """Return the semaphore in which tasks wait for a free process; None if this pool has none."""
    uses_it = worker.process_task == worker._process_task_sem  # noqa: SLF001  (it has no public name)
    return worker.semaphore if uses_it else None


def let_pass_rate_limits(consumer: Any, passes: Callable[[Any], bool]) -> None:
    """Have some requests pass the rate limits of a consumer; `passes` says which."""
    limit_rate = consumer._limit_task  # noqa: SLF001  (nothing public is called there)

    def limit_task(request: Any, bucket: Any, tokens: int) -> Any:
        if passes(request):
            return consumer._limit_move_to_pool(request)  # noqa: SLF001
        return limit_rate(request, bucket, tokens)

    consumer._limit_task = limit_task  # noqa: SLF001


def move_last_to_front(semaphore: Any) -> None:
    """Have the task that came last get the next process that is free."""
    semaphore._waiting.rotate(1)  # noqa: SLF001  (nothing public reorders it)


def keep_running_jobs(pool: Any) -> None:
    """Have a pool of processes keep the jobs that run when the connection to the broker breaks.

    Celery before 5.7 forgets them then: that they have ended it does not notice, so their requests
    would stay, and hold their slots, for as long as the worker lives.
    """
    flush = pool.flush

    def flush_others() -> None:
        jobs: dict[Any, Any] = pool._pool._cache  # noqa: SLF001  (nothing public lists them)
        running = {number: job for number, job in jobs.items() if job.accepted()}
        flush()
        for number, job in running.items():
            if not job.ready():
                jobs.setdefault(number, job)

    pool.flush = flush_others
