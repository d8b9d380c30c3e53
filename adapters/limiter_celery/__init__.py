"""Concurrency limits for Celery tasks (extra `celery`).

install(app, "redis://localhost/2")

@app.task(base=LimitedTask, limits=[ConcurrencyLimit("user_id", max_concurrent=1)])
def sync(user_id): ...

The modules, from the top down; each imports only what is below it, and `_celery` alone has the
private names of Celery and kombu::

    _install            the boot steps of a worker and of its consumer
    _worker_limiter     builds the parts of one worker, and gives each what it uses

    a task comes in     _admission_hook (granted tasks first), _request (each in the pool)
                          -> _admission -> _parked_tasks, _deferred_deliveries, _release_tracker
    a slot is granted   the gate -> _dispatcher -> _request_factory (here), _publisher (by broker)
    that comes back     _granted_messages (before it is a request) -> _refusals
    a task is refused   the gate -> _dispatcher -> _refusals
    a task is revoked   _revoke_commands -> _parked_tasks, _revocations
    again and again     _sweeper -> the gate, _revocations

    what is known       _delivery (of a request), _parked_message (of a waiting task),
                        _completion_markers and _revocations (in the store: _expiring_set),
                        _task (its limits), _queues, _pools, _worker_state
    where it runs       _main_loop, _scheduler
"""

from importlib import import_module

from limiter_core import extras

with extras.required("celery", "the Celery adapter needs Celery"):
    import_module("celery")

from limiter_celery._install import install
from limiter_celery._task import LimitedTask
from limiter_core import LIMIT_BY, ConcurrencyLimit, ConcurrencyStrategy, ConflictResolution

__all__ = (
    "LIMIT_BY",
    "ConcurrencyLimit",
    "ConcurrencyStrategy",
    "ConflictResolution",
    "LimitedTask",
    "install",
)
