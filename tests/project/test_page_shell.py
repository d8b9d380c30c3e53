"""The commands in the pages run as they are printed, beside the files of their page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import redis

from limiter_core import LIMIT_BY, ConcurrencyLimit, KeySnapshot, SyncLimiter
from tests.project._tree import ROOT, code_blocks, pages
from tests.redis._ports import free_port

LIMIT = 50.0
"""Seconds that something may take."""

SHARED = "docs/how-to/web-and-workers.md"
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"[^`]*?```text\n(.*?)```", re.DOTALL)
RUNS = re.compile(r"limiter |for |LIMITER_URL=\S+ limiter ")
ELSEWHERE = ("cache:6379", "LEASE", " evict ", "limiter serve", "limiter show crm/crm")
"""What needs a server or a lease of the reader's, or ends by Ctrl-C; `tests/cli` has it."""


class Commands(NamedTuple):
    """A block of commands: its page, its line, what a shell gets, what the page says is printed."""

    page: str
    line: int
    text: str
    prints: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def commands(page: str) -> Iterator[Commands]:
    """Yield the blocks of a page that a shell can run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found[2] not in ("", "console"):
            continue
        lines = [line.removeprefix(found[1]) for line in found[3].splitlines()]
        if found[2]:
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        printed = PRINTED.match(text[found.end() :])
        line = text.count("\n", 0, found.start()) + 2
        yield Commands(page, line, "\n".join(lines), printed[1] if printed else "")


ALL = [block for page in pages() for block in commands(page)]
RUN = [
    block
    for block in ALL
    if all(RUNS.match(line) for line in block.text.splitlines())
    and not any(each in block.text for each in ELSEWHERE)
]


def save_files(page: str, folder: Path, url: str) -> None:
    """Save the files of a page as their titles say, for the server at a URL."""
    where = urlsplit(url)
    for block in code_blocks(page, "python"):
        text = block.text.replace("redis://localhost:6379/", url.removesuffix("0"))
        text = text.replace(
            "RedisSettings(", f"RedisSettings(host={where.hostname!r}, port={where.port}, "
        )
        if block.title:
            (folder / block.title).write_text(text, encoding="utf-8")


@contextmanager
def started(text: str, folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run commands in a shell, and end what they left."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LIMITER_URL": url,
        "PYTHONUNBUFFERED": "1",
    }
    text = text.replace("redis://localhost:6379/", url.removesuffix("0"))
    with (folder / "printed").open("wb") as printed:
        shell = subprocess.Popen(
            ["sh", "-e", "-c", text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield shell
        finally:
            with suppress(ProcessLookupError):  # nothing is left
                os.killpg(shell.pid, signal.SIGTERM)
            shell.wait(LIMIT)


def wait_until(limiter: SyncLimiter, key: str, holds: Callable[[KeySnapshot], bool]) -> None:
    """Wait until something is so for a key."""
    give_up_at = time.monotonic() + LIMIT
    while not holds(found := limiter.inspect(key)):
        assert time.monotonic() < give_up_at, found
        time.sleep(0.05)


def not_in_use(found: KeySnapshot) -> bool:
    return not found.in_use and not found.waiting


def test_there_are_commands_to_run() -> None:
    assert len(RUN) >= 8


@pytest.mark.parametrize("block", RUN, ids=str)
def test_commands_run_as_they_are_printed(block: Commands, redis_url: str, tmp_path: Path) -> None:
    save_files(block.page, tmp_path, redis_url)
    script = tmp_path / "backup.sh"
    script.write_text("#!/bin/sh\necho done\n", encoding="utf-8")
    script.chmod(0o755)
    with SyncLimiter(redis_url) as limiter:
        with started(block.text, tmp_path, redis_url) as shell:
            status = shell.wait(LIMIT)
            printed = (tmp_path / "printed").read_text(encoding="utf-8")
        assert status == 0, printed
        if block.prints:
            shape = re.compile(r"\d+(\.\d+)?")
            assert shape.sub("1", printed) == shape.sub("1", block.prints)
        wait_until(limiter, "nightly", not_in_use)


ADD = {
    "celery": "",  # the page's own command
    "docket": """
        from docket import Docket
        from docket_tasks import sync_customer
        async with Docket(name="shop", url="redis://localhost:6379/1") as docket:
            await docket.add(sync_customer)(1)
        """,
    "arq": """
        from arq import create_pool
        from arq_tasks import WorkerSettings
        pool = await create_pool(WorkerSettings.redis_settings)
        await pool.enqueue_job("sync_customer", 1)
        """,
    "saq": """
        from saq_tasks import queue
        await queue.enqueue("sync_customer", id=1)
        """,
}


@pytest.mark.parametrize("queue", ADD)
def test_workers_that_share_a_limit_start_as_the_page_says(
    queue: str, redis_url: str, tmp_path: Path
) -> None:
    old_redis_py = int(redis.__version__.partition(".")[0]) <= 5
    if find_spec(queue) is None or (queue in ("arq", "saq") and not old_redis_py):
        pytest.skip(f"{queue} is in another environment of the tests")
    save_files(SHARED, tmp_path, redis_url)
    (block,) = (each for each in commands(SHARED) if f"{queue}_tasks" in each.text)
    worker, *then = block.text.splitlines()
    add = "\n".join(then)
    if ADD[queue]:
        body = ADD[queue].replace("\n        ", "\n    ")
        (tmp_path / "add.py").write_text(
            f"import asyncio\nasync def main():{body}\nasyncio.run(main())\n".replace(
                "redis://localhost:6379/", redis_url.removesuffix("0")
            ),
            encoding="utf-8",
        )
        add = "python add.py"
    other = tmp_path / "other"
    other.mkdir()
    crm = ConcurrencyLimit(LIMIT_BY.constant("crm"), max_concurrent=2, scope="crm")
    with SyncLimiter(redis_url) as limiter, started(worker, tmp_path, redis_url):
        with limiter.hold(crm), limiter.hold(crm):  # as two requests of the web app
            with started(f"cd .. && {add}", other, redis_url) as shell:
                assert shell.wait(LIMIT) == 0, (other / "printed").read_text(encoding="utf-8")
            wait_until(limiter, "crm/crm", lambda found: found.waiting > 0)
        wait_until(limiter, "crm/crm", not_in_use)


def test_the_web_app_that_shares_a_limit_starts_as_the_page_says(
    redis_url: str, tmp_path: Path
) -> None:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        pytest.skip("this environment of the tests has no web framework")
    save_files(SHARED, tmp_path, redis_url)
    (block,) = (each for each in commands(SHARED) if each.text.startswith("uvicorn "))
    port = free_port()
    give_up_at = time.monotonic() + LIMIT
    with started(f"exec {block.text} --port {port}", tmp_path, redis_url) as server:
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/customers/7", timeout=LIMIT) as answer:
                    assert json.load(answer) == {"id": 7}
                    break
            except OSError:  # it does not listen yet
                assert server.poll() is None, (tmp_path / "printed").read_text(encoding="utf-8")
                assert time.monotonic() < give_up_at
                time.sleep(0.05)
