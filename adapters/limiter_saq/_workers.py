"""What the queue has to know of SAQ's workers, which do not tell it; some of it is private."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any, cast

from saq.worker import Worker


def frame_of(task: asyncio.Task[Any]) -> dict[str, Any] | None:
    """Return the names and values of a worker's `process`, None if the task is no such thing.

    There `self` is the worker, and `task_ctx` has the task of the body and why it is aborted.
    """
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return None
    names = inspect.getcoroutinelocals(coroutine)
    return names if "task_ctx" in names else None


def stopping_of(task: asyncio.Task[Any] | None) -> asyncio.Event | None:
    """Return what is set when the worker that fetches in a task is to stop; None without one."""
    frame = None if task is None else frame_of(task)
    return None if frame is None else frame["self"].event


def check_new_workers(kind: type[Any]) -> None:
    """Have a queue asked whether it agrees when a worker is made for it.

    Later it could not refuse: what a queue raises in a worker that runs, nobody hears of.

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
