"""All that this adapter takes from Celery, in one place; Celery has no types.

Some of it is private. `tests/celery_/test_hooks.py` guards the shape of each, so that a release of
Celery that changed one fails there, and not in a worker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_app_task: Any = import_module("celery.app.task")
_bootsteps: Any = import_module("celery.bootsteps")
_consumer: Any = import_module("celery.worker.consumer")
_control: Any = import_module("celery.worker.control")
_einfo: Any = import_module("billiard.einfo")
_exceptions: Any = import_module("celery.exceptions")
_kombu: Any = import_module("kombu")
_kombu_json: Any = import_module("kombu.utils.json")
_message: Any = import_module("kombu.message")
_request: Any = import_module("celery.worker.request")
_serialization: Any = import_module("kombu.serialization")
_trace: Any = import_module("celery.app.trace")

state: Any = import_module("celery.worker.state")

if TYPE_CHECKING:

    class _Untyped:
        """Stands for a class of Celery: it has whatever attribute is asked for."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    class Task(_Untyped):
        """`celery.app.task.Task`."""

        def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any: ...

    class Request(_Untyped):
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

    class BaseConsumer(_Untyped):
        """`kombu.Consumer`."""

        def add_queue(self, queue: Any) -> Any: ...
        def cancel_by_queue(self, queue: Any) -> None: ...
        def _basic_consume(self, queue: Any, *args: Any, **options: Any) -> Any: ...

else:
    Task = _app_task.Task
    Request = _request.Request
    StartStopStep = _bootsteps.StartStopStep
    BaseConsumer = _kombu.Consumer

REVOKE_EXPIRES: float = state.REVOKE_EXPIRES
RUN: int = _bootsteps.RUN
Consumer: Any = _consumer.Consumer
Exchange: Any = _kombu.Exchange
ExceptionInfo: Any = _einfo.ExceptionInfo
Message: Any = _message.Message
Panel: Any = _control.Panel
Queue: Any = _kombu.Queue
create_request_cls: Any = _request.create_request_cls
dumps: Any = _kombu_json.dumps
loads: Any = _kombu_json.loads
prepare_accept_content: Any = _serialization.prepare_accept_content


TaskRevokedError: type[Exception] = _exceptions.TaskRevokedError
TimeLimitExceeded: type[Exception] = _exceptions.TimeLimitExceeded


def tracer_of(app: Any) -> Any:
    """Return what runs a task's body, as `Request.execute_using_pool` chooses it."""
    return _trace.fast_trace_task if app.use_fast_trace_task else _trace.trace_task_ret
