"""What the package asks of a system and of a Python.

The core and the memory store work where there is no Unix: no module, function or signal of it.

`make types` checks the same with the types of Windows. Here the program runs as it would there, as
far as this machine can show it: the libraries below are imported first, then what only Unix has is
taken away.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project._tree import ROOT, modules, packages

LIKE_WINDOWS = """
import asyncio, concurrent.futures, importlib.metadata, logging, multiprocessing, os, signal, sys
import anyio, anyio._backends._asyncio, anyio.from_thread, pydantic, redis.asyncio, time, zoneinfo

UNIX = "fcntl grp pty pwd posix resource syslog termios tty".split()
for name in UNIX:
    sys.modules[name] = None
for name in "fork forkpty register_at_fork killpg setsid getpgid waitid wait4 getuid".split():
    delattr(os, name)
for name in "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGCHLD SIGALRM SIGSTOP SIGCONT alarm".split():
    delattr(signal, name)
for name in [name for name in dir(time) if name.startswith(("CLOCK_", "clock_"))]:
    delattr(time, name)
sys.platform = "win32"
"""

PROGRAM = """
from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, LimitReached, SyncLimiter
import limiter_core.jobs, limiter_core.monitoring, limiter_memory
import limiter_redis

limit = ConcurrencyLimit("customer_id", max_concurrent=1)
refusing = ConcurrencyLimit("customer_id", max_concurrent=1, on_conflict="cancel")

async def main():
    most = now = 0
    async with Limiter("memory://") as limiter:
        @limiter.limited(limit)
        async def bill(customer_id):
            nonlocal most, now
            now += 1
            most = max(most, now)
            await anyio.sleep(0)
            now -= 1
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(bill, 42)
    assert most == 1

asyncio.run(main())
with SyncLimiter("memory://") as limiter, limiter.hold(limit, {"customer_id": 42}):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(limiter.try_acquire, refusing, {"customer_id": 42}).result() is None
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the other tests show it there")
def test_the_core_and_the_memory_store_need_nothing_of_unix() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LIKE_WINDOWS + PROGRAM],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


# -- Pythons to come -------------------------------------------------------------------------------

GOING = {
    "asyncio": {
        "AbstractChildWatcher",
        "AbstractEventLoopPolicy",
        "DefaultEventLoopPolicy",
        "WindowsProactorEventLoopPolicy",
        "WindowsSelectorEventLoopPolicy",
        "get_event_loop",  # without a running loop it is an error from 3.14 on
        "get_event_loop_policy",
        "iscoroutinefunction",
        "set_child_watcher",
        "set_event_loop_policy",
    },
    "codecs": {"open"},
    "datetime": {"utcfromtimestamp", "utcnow"},
    "locale": {"getdefaultlocale", "resetlocale"},
    "pkgutil": {"find_loader", "get_loader"},
    "typing": {"AnyStr", "ByteString", "no_type_check_decorator"},
}
"""What 3.12 to 3.15 deprecate or remove, by the module that has it."""


def used(path: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of what a file takes out of modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def test_nothing_is_used_that_pythons_to_come_lack() -> None:
    files = [path for package in packages().values() for _, path in modules(package)]
    files += [*ROOT.glob("examples/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob(".ci/*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {module}.{name}"
        for path in files
        for module, name in used(path)
        if name in GOING.get(module, ())
    ]
    assert len(files) > 300
    assert found == []
