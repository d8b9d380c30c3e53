"""The marker, what strategies see of a job, arq's own command line, and the hooks we rely on."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from arq import worker as arq_worker
from arq.connections import ArqRedis, RedisSettings
from arq.cron import cron
from arq.jobs import Job
from arq.worker import Worker, func

import limiter_arq._cli
from limiter_arq import LIMIT_BY, ConcurrencyLimit, LimitedWorker, limited
from limiter_arq._decorator import limits_of, view_of
from limiter_core import ConfigurationError
from tests.redis._servers import Server

from ._tools import ONE

Start = Callable[..., Awaitable[Any]]
PER_USER = ConcurrencyLimit("user_id", 1)


@limited(ONE, PER_USER)
async def sync(
    ctx: dict[Any, Any], user_id: int, *rest: int, full: bool = False, **more: Any
) -> int:
    """Sync a user."""
    return user_id


async def unlimited(ctx: dict[Any, Any], user_id: int) -> None: ...


def logged(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


# -- the decorator ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "marked",
    [
        sync,
        logged(sync),
        functools.partial(sync, full=True),
        functools.partial(logged(sync), full=True),
        func(sync, name="other").coroutine,
        cron(sync).coroutine,
        limited(ONE)(limited(PER_USER)(sync.__wrapped__)),  # type: ignore[attr-defined]
    ],
    ids=["plain", "wrapped", "partial", "partial of wrapped", "func", "cron", "stacked"],
)
def test_a_mark_is_found(marked: Any) -> None:
    assert limits_of(marked) == (ONE, PER_USER)


def test_other_functions_have_no_limits() -> None:
    assert limits_of(logged) == limits_of(functools.partial(logged)) == ()


def test_what_cannot_be_marked_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="coroutine"):
        limited(ONE)(lambda ctx: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match=r"a list of them, got \(3,\)"):
        limited(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"a list of them, got \(\)"):
        limited()


async def test_a_direct_call_runs_without_a_limit() -> None:
    assert await sync({}, 5) == 5
    assert sync.__doc__ == "Sync a user."


# -- what strategies see ---------------------------------------------------------------------------


def test_arguments_are_bound_by_signature() -> None:
    view = view_of(sync, (7, 8, 9), {"color": "red"})
    assert dict(view) == {
        "user_id": 7,
        "rest": (8, 9),
        "full": False,
        "more": {"color": "red"},
        "color": "red",
    }
    assert view.function_name == f"{__name__}.sync"
    assert dict(view_of(functools.partial(sync, full=True), (7,), {}))["full"] is True


def test_ctx_is_no_argument_whatever_its_name() -> None:
    async def anything(context: Any, a: int) -> None: ...

    async def gathered(*args: Any) -> None: ...

    assert dict(view_of(anything, (1,), {})) == {"a": 1}
    assert dict(view_of(gathered, (1, 2), {})) == {"args": (1, 2)}


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(TypeError):
        view_of(sync, (), {})


# -- the wrong worker, and none --------------------------------------------------------------------


async def test_a_plain_worker_is_refused_when_it_is_made() -> None:
    """Else each job would fail for good."""
    for settings in ({"functions": [sync]}, {"cron_jobs": [cron(sync)]}):
        with pytest.raises(ConfigurationError, match="sync: under a concurrency limit"):
            Worker(**settings, handle_signals=False)
    Worker([unlimited], handle_signals=False)
    LimitedWorker([sync], handle_signals=False)


async def test_a_plain_worker_that_got_it_all_the_same_refuses_to_run_it(
    pool: ArqRedis, server: Server
) -> None:
    job = await pool.enqueue_job("sync", 5)
    assert job is not None
    worker = Worker(
        [func(unlimited, name="sync")],
        redis_settings=RedisSettings.from_dsn(server.url),
        burst=True,
        handle_signals=False,
        poll_delay=0.01,
    )
    worker.functions["sync"].coroutine = sync
    await worker.async_run()
    await worker.close()
    with pytest.raises(RuntimeError, match="sync is under a concurrency limit"):
        await job.result()


@pytest.mark.parametrize("by", ["customer", "ctx", ["user_id", "customer"], "customer.id"])
def test_an_argument_that_the_function_does_not_have_is_refused(by: Any) -> None:
    async def bill(ctx: dict[Any, Any], user_id: int, region: str = "eu") -> None: ...

    with pytest.raises(ConfigurationError, match="there are: user_id, region"):
        limited(ONE, ConcurrencyLimit(by))(bill)
    limited(ConcurrencyLimit(["user_id", "region.name"]))(bill)


def test_any_argument_may_come_where_all_are_taken() -> None:
    async def anything(ctx: dict[Any, Any], **more: Any) -> None: ...

    async def gathered(*args: Any) -> None: ...

    limited(ConcurrencyLimit("customer"))(anything)
    limited(ConcurrencyLimit("args"))(gathered)


async def test_a_decorator_that_hides_arguments_does_not_hide_the_limit(
    pool: ArqRedis, start_worker: Start
) -> None:
    """The limit cannot see them: the job fails, it does not run without a limit."""

    def connected(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(ctx: Any, *args: Any) -> Any:
            return await function(ctx, "connection", *args)

        return wrapper

    ran: list[int] = []

    @connected
    @limited(PER_USER)
    async def query(ctx: dict[Any, Any], connection: str, user_id: int) -> None:
        ran.append(user_id)

    await start_worker([func(query, name="query")])
    job = await pool.enqueue_job("query", 5)
    assert job is not None
    with pytest.raises(TypeError, match="user_id"):
        await job.result(timeout=20, poll_delay=0.02)
    assert not ran


async def test_jobs_may_call_each_other(pool: ArqRedis, start_worker: Start) -> None:
    """A call in a body is a call, not a job."""

    @limited(ConcurrencyLimit(LIMIT_BY.constant("other"), 1))
    async def outer(ctx: dict[Any, Any]) -> tuple[int, int]:
        return await sync(ctx, 5), ctx["lease"].fencing_token

    async def unlimited(ctx: dict[Any, Any]) -> int:
        return await sync(ctx, 6)

    await start_worker([func(outer, name="outer"), func(unlimited, name="unlimited"), sync])
    jobs = [await pool.enqueue_job(name) for name in ("outer", "unlimited")]
    first, second = [await job.result(timeout=20, poll_delay=0.02) for job in jobs if job]
    assert first[0] == 5
    assert first[1] > 0
    assert second == 6


async def test_a_worker_without_limits_is_arqs_own(pool: ArqRedis, start_worker: Start) -> None:
    async def plain(ctx: dict[Any, Any]) -> str:
        return "plain"

    worker = await start_worker([func(plain, name="plain")])
    job = await pool.enqueue_job("plain")
    assert job is not None
    assert await job.result(timeout=20, poll_delay=0.02) == "plain"
    assert worker._parts is None
    assert not await pool.exists("arq:limiter:place")


def test_a_missing_arq_is_told_by_the_name_of_the_extra() -> None:
    script = "import sys; sys.modules['arq'] = None; import limiter_arq"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert 'ImportError: the arq adapter needs arq 0.28: pip install "concurrency-limits[arq]"' in (
        run.stderr
    )


# -- settings --------------------------------------------------------------------------------------


async def test_settings_are_read_as_arq_reads_them() -> None:
    class WorkerSettings:
        functions = (sync,)
        max_jobs = 3
        limiter = "memory://"
        claim = 7.0
        handle_signals = False
        something_else = 1

    worker = limiter_arq._cli.create_worker(WorkerSettings, burst=True)
    assert isinstance(worker, LimitedWorker)
    assert (worker.max_jobs, worker.burst) == (3, True)
    assert worker._settings.limiter == "memory://"
    assert worker._settings.claim == 7.0


# -- the hooks of arq that the adapter rests on ----------------------------------------------------

HOOKS = {
    "main": "(self) -> None",
    "close": "(self) -> None",
    "handle_sig": "(self, signum: signal.Signals) -> None",
    "handle_sig_wait_for_completion": "(self, signum: signal.Signals) -> None",
    "start_jobs": "(self, job_ids: list[bytes]) -> None",
    "run_job": "(self, job_id: str, score: int) -> None",
    "finish_job": (
        "(self, job_id: str, finish: bool, result_data: Optional[bytes], result_timeout_s: "
        "Optional[float], keep_result_forever: bool, incr_score: Optional[int], "
        "keep_in_progress: Optional[float]) -> None"
    ),
    "finish_failed_job": "(self, job_id: str, result_data: Optional[bytes]) -> None",
    "_poll_iteration": "(self) -> None",
    "_cancel_aborted_jobs": "(self) -> None",
    "_jobs_started": "(self) -> int",
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_as_it_was(name: str) -> None:
    """A release of arq that changes it fails here, and not in a user's queue."""
    method = getattr(Worker, name)
    assert str(inspect.signature(method)) == HOOKS[name]
    assert name in vars(LimitedWorker)


def test_arq_uses_its_hooks_as_it_did() -> None:
    source = inspect.getsource(arq_worker.Worker)
    for line in (
        "await self.start_jobs(job_ids)",
        "await self._cancel_aborted_jobs()",
        "await self._poll_iteration()",
        "self.job_tasks[job_id] = task = self.loop.create_task(function.coroutine(",
        "elif job_id in self.aborting_tasks and isinstance(e, asyncio.CancelledError):",
        "self.sem = asyncio.BoundedSemaphore(max_jobs + 1)",
        "if self.job_counter < self.max_jobs:",
        "self._handle_signals = handle_signals",
        "if 0 <= self.max_burst_jobs <= self._jobs_started():",
        "await asyncio.gather(*self.tasks.values())",
        "pipe.psetex(in_progress_key, int(self.in_progress_timeout_s * 1000), b'1')",
    ):
        assert line in source, line


def test_deferred_scores_are_whole() -> None:
    """Those of parked jobs end in a half: that distinguishes them from deferred jobs."""
    assert inspect.signature(Job.abort)
    assert "score = to_unix_ms(_defer_until)" in inspect.getsource(ArqRedis.enqueue_job)
