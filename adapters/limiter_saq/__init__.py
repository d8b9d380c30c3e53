"""Concurrency limits for SAQ: a `LimitedQueue` in place of `RedisQueue`, for producers and workers.

    queue = LimitedQueue.from_url("redis://localhost", limits={"sync": ConcurrencyLimit("user", 1)})

A job that has to wait is scheduled in SAQ's own queue and holds no worker. The process that frees
the slot brings it forward.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("saq", "limits for SAQ need saq"):
    import_module("saq")

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConcurrencyStrategy, ConflictResolution
from limiter_saq._queue import LimitedQueue

__all__ = (
    "LIMIT_BY",
    "ConcurrencyLimit",
    "ConcurrencyStrategy",
    "ConflictResolution",
    "LimitedQueue",
)
