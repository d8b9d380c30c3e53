"""What the queue reads from SAQ's workers, some of it private: they do not pass it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any, cast

from saq.worker import Worker


def frame_of(task: asyncio.Task[Any]) -> dict[str, Any] | None:
    """Return the names and values of a worker's `process`, None if the task runs none.

    `self` is the worker; `task_ctx` has the task of the body and the reason of its abort.
    """
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return None
    names = inspect.getcoroutinelocals(coroutine)
    return names if "task_ctx" in names else None


def worker_of(task: asyncio.Task[Any] | None) -> Worker[Any] | None:
    """Return the worker which dequeues in a task, None if none does."""
    frame = None if task is None else frame_of(task)
    return None if frame is None else frame["self"]


def check_new_workers(kind: type[Any]) -> None:
    """Have a queue check each worker that is made for it.

    Later it could not refuse: SAQ's worker does not pass on what a queue raises while it runs.

    Args:
        kind: the class of those queues; their `check_worker` gets the functions of the worker.
    """
    make: Any = cast(Any, Worker).__init__

    @functools.wraps(make)
    def make_checked(worker: Any, *args: Any, **settings: Any) -> None:
        make(worker, *args, **settings)
        if isinstance(worker.queue, kind):
            worker.queue.check_worker(worker.functions)

    cast(Any, Worker).__init__ = make_checked
