"""How a body is stopped that lost its slot."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

from saq.job import TERMINAL_STATUSES, Status
from saq.job import Job as SaqJob
from saq.queue.redis import RedisQueue

from limiter_core.requests import Loss
from limiter_saq._workers import frame_of

logger = logging.getLogger("limiter")


async def stop_body(
    queue: RedisQueue, job: SaqJob, loss: Loss, reason: str, worker: asyncio.Task[Any]
) -> None:
    """Stop a body that lost its slot.

    If a newer job, an operator or `max_hold` caused the loss, the job is ABORTED; else it runs
    again. A function that is no coroutine cannot be stopped: if aborted, it keeps its slot
    until it returns; if its lease is lost, it runs on, and SAQ records how it ends.
    """
    is_final = loss in (Loss.PREEMPTED, Loss.EVICTED, Loss.OVERRAN)
    frame = frame_of(worker)
    if frame is None:  # the task that dequeued the job is no worker of SAQ
        if is_final:
            await queue.abort(job, reason)
        else:
            worker.cancel()
        return
    body = frame["task_ctx"]
    if body is None:  # it has not begun
        worker.cancel()
    elif is_final:
        body["aborted"] = reason
        body["task"].cancel()
    elif inspect.iscoroutinefunction(frame["self"].functions[job.function]):
        body["task"].cancel()
    else:
        logger.warning("%s cannot be stopped: its function is no coroutine function", job.id)
        return
    await asyncio.wait([worker])
    stored = await queue.job(job.key)
    if stored is None or stored.status in TERMINAL_STATUSES or stored.attempts > job.attempts:
        return
    # SAQ records nothing if the body ignored its cancellation, or did not begin.
    if is_final:
        await queue.finish(job, Status.ABORTED, error=reason)
    elif stored.status is Status.ACTIVE or stored.attempts < job.attempts:
        await queue.retry(job, reason)
