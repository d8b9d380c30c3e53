"""The jobs of the test workers: `python -m limiter_arq jobs.WorkerSettings`, in this folder.

What they are to be is in the environment, as JSON in ARQ_TEST: the settings of arq's worker under
`worker`, those of the limits, and where the process is to kill itself. Each body notes its begin
and its end in the Redis list "log".
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

from arq import Retry
from arq.connections import RedisSettings

from limiter_arq import LIMIT_BY, ConcurrencyLimit, LimitedWorker, _admission, _dispatcher, limited
from limiter_arq._job_queue import JobQueue
from limiter_core.jobs import JobGate
from limiter_core.lease import Lease

GIVEN: dict[str, Any] = json.loads(os.environ["ARQ_TEST"])
ONE = ConcurrencyLimit(
    LIMIT_BY.constant("shared"), GIVEN.get("limit", 1), lease=GIVEN.get("lease", 2.0)
)


async def note(ctx: dict[Any, Any], event: str, name: Any) -> None:
    entry = json.dumps([event, name, time.time(), os.getpid(), ctx["job_try"]])
    await ctx["redis"].rpush("log", entry)
    await ctx["redis"].expire("log", 600)


async def body(ctx: dict[Any, Any], name: Any, seconds: float) -> None:
    await note(ctx, "begin", name)
    await asyncio.sleep(seconds)
    await note(ctx, "end", name)


@limited(ONE)
async def work(ctx: dict[Any, Any], name: Any, seconds: float = 0.0) -> None:
    await body(ctx, name, seconds)


async def free(ctx: dict[Any, Any], name: Any, seconds: float = 0.0) -> None:
    await body(ctx, name, seconds)


@limited(ONE)
async def block(ctx: dict[Any, Any], name: Any, seconds: float) -> None:
    await note(ctx, "begin", name)
    time.sleep(seconds)  # noqa: ASYNC251  (the event loop is blocked on purpose)
    await note(ctx, "end", name)


@limited(ONE)
async def retry(ctx: dict[Any, Any], name: Any, times: int, seconds: float) -> None:
    await body(ctx, name, seconds)
    if ctx["job_try"] < times:
        raise Retry(defer=0.01)


class WorkerSettings:
    functions = (work, free, block, retry)
    redis_settings = RedisSettings.from_dsn(GIVEN["url"])
    limiter = GIVEN.get("limiter")
    claim = GIVEN.get("claim", 2.0)
    keep_result = 60


for _name, _value in GIVEN.get("worker", {}).items():
    setattr(WorkerSettings, _name, _value)


# -- what only tests do to a worker ----------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_around(owner: Any, method: str, where: str) -> None:
    """Have the process killed before, or after, the first call of an async method."""
    true = getattr(owner, method)

    async def deadly(*args: Any, **kwargs: Any) -> Any:
        if where == "before":
            die()
        answer = await true(*args, **kwargs)
        if owner is not JobGate or isinstance(answer, Lease):
            die()
        return answer

    setattr(owner, method, deadly)


if "in_progress" in GIVEN:
    _init = LimitedWorker.__init__

    def init(self: LimitedWorker, *args: Any, **kwargs: Any) -> None:
        _init(self, *args, **kwargs)
        self.in_progress_timeout_s = GIVEN["in_progress"]

    LimitedWorker.__init__ = init  # type: ignore[method-assign]

match GIVEN.get("dies"):
    case "before the park":
        kill_around(JobQueue, "put_back", "before")
    case "after the park":
        kill_around(JobQueue, "put_back", "after")
    case "with the slot":
        kill_around(JobGate, "admit", "after")
    case "before the release":
        kill_around(Lease, "release", "before")
    case "after the release":
        kill_around(Lease, "release", "after")
    case "before the next is brought forward":
        _dispatcher.Dispatcher.on_notice = lambda *_: die()  # type: ignore[assignment,method-assign]
    case "before the result":
        kill_around(LimitedWorker, "finish_job", "before")
    case "after the result":
        kill_around(LimitedWorker, "finish_job", "after")
    case None:
        pass
    case other:
        raise ValueError(other)

if "backstop" in GIVEN:
    _admission.FIRST_RECHECK = GIVEN["backstop"]
