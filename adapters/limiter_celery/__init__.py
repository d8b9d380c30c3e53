"""Concurrency limits for Celery tasks (extra `celery`).

install(app, "redis://localhost/2")

@app.task(base=LimitedTask, limits=[ConcurrencyLimit("user_id", max_concurrent=1)])
def sync(user_id): ...
"""

from importlib import import_module

try:
    import_module("celery")
except ImportError as error:
    raise ImportError(
        'the Celery adapter needs Celery: pip install "concurrency-limits[celery]"'
    ) from error

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
