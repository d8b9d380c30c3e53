"""Concurrency limits for arq: `@limited(...)` on a job's function, and a worker that keeps them.

A job that has to wait stays in arq's own queue: it holds no worker slot and spends no try::

    from limiter_arq import ConcurrencyLimit, limited

    @limited(ConcurrencyLimit("user_id", max_concurrent=1))
    async def sync_user(ctx, user_id: int): ...

    class WorkerSettings:
        functions = [sync_user]

    # python -m limiter_arq worker.WorkerSettings
"""

from importlib import import_module

from limiter_core import extras

with extras.required("arq", "the arq adapter needs arq 0.28"):
    import_module("arq")

from limiter_arq._decorator import limited
from limiter_arq._worker import LimitedWorker
from limiter_core import LIMIT_BY, ConcurrencyLimit, ConcurrencyStrategy, ConflictResolution

__all__ = (
    "LIMIT_BY",
    "ConcurrencyLimit",
    "ConcurrencyStrategy",
    "ConflictResolution",
    "LimitedWorker",
    "limited",
)
