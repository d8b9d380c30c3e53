"""One run of a job, as the worker and the decorated function know it, and its body."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from arq.worker import JobExecutionFailed

from limiter_core import Lease
from limiter_core.jobs import loss_text
from limiter_core.requests import Loss

R = TypeVar("R")

FINAL = frozenset({Loss.EVICTED, Loss.OVERRAN})
"""Losses after which a job is not run again: an operator, or its own `max_hold`, ended it."""


@dataclass(slots=True, eq=False)
class JobRun:
    """One run of a job in a `LimitedWorker`.

    Attributes:
        job_id: arq's.
        score: the job's score in arq's queue, in milliseconds since the epoch.
        lease: what was granted; None for a job without limits.
        refusal: why the body must not run although arq starts it.
        loss: why the lease is lost, None while it is not.
        settled: whether a job that does not run now was parked or finished.
        begun: whether the job's function was called.
        ended: whether the body has ended, and the release of the lease has begun.
        finishing: whether arq records the job's end.
        on_begin: called when the body begins, or arq records that it did not.
        on_end: called once, when the body has ended.
        release: the task that releases the lease.
    """

    job_id: str
    score: int
    lease: Lease | None = None
    refusal: Exception | None = None
    loss: Loss | None = None
    settled: bool = False
    begun: bool = False
    ended: bool = False
    finishing: bool = False
    on_begin: Callable[[], object] | None = None
    on_end: Callable[[JobRun], object] | None = None
    release: asyncio.Task[None] | None = None

    def begin_body(self) -> None:
        """Note that its slots are used: the job is not put back any more."""
        on_begin, self.on_begin = self.on_begin, None
        if on_begin is not None:
            on_begin()

    def end_body(self) -> None:
        """Note that the body has ended: its slots are not needed from now on."""
        if not self.ended:
            self.ended = True
            if self.on_end is not None:
                self.on_end(self)

    async def run_body(
        self, function: Callable[..., Awaitable[R]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> R:
        """Call the function of a job that was admitted."""
        if self.refusal is not None:
            # The call itself raises the best error. If it can be made all the same (a decorator
            # changed the arguments), the limit could not see them: the body is not run without it.
            coroutine: Any = function(*args, **kwargs)
            coroutine.close()
            raise self.refusal
        context: Any = args[0] if args else None
        if self.lease is not None and isinstance(context, dict):  # arq made it for this run
            context["lease"] = self.lease
        self.begin_body()
        try:
            if self.loss is not None:  # between the grant and the first line
                raise asyncio.CancelledError
            return await function(*args, **kwargs)
        except asyncio.CancelledError:
            if self.lease is None or self.loss is None:
                raise
            if self.loss in FINAL:  # arq would run a cancelled job again
                raise JobExecutionFailed(loss_text(self.lease)) from None
            raise asyncio.CancelledError(loss_text(self.lease)) from None
        finally:
            self.end_body()


current_run: ContextVar[JobRun | None] = ContextVar("limiter_arq_run", default=None)
"""The run that the running code belongs to; None outside of a `LimitedWorker`."""
