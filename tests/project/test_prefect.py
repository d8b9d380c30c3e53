"""What the page for users of Prefect says of Prefect: `make test-prefect` has it, and a server."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project._tree import ROOT, code_blocks
from tests.redis._ports import free_port

PAGE = "docs/coming-from/prefect.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
START = 120.0
"""Seconds within which a server has to answer: it makes its database first."""

pytestmark = pytest.mark.timeout(2 * START)


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of programs that use a server of Prefect."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    settings = {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    program = Path(sys.executable).with_name("prefect")
    server = subprocess.Popen(
        [program, "server", "start", "--port", str(port)],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up_at = time.monotonic() + START
        while True:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < give_up_at, "the server does not answer"
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
            else:
                break
        yield settings
    finally:
        server.terminate()
        server.wait(START)


def run(settings: dict[str, str], *command: str | Path) -> str:
    """Run a program beside the server; returns what it printed."""
    ended = subprocess.run(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=START,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_the_commands_and_the_code_run(prefect_server: dict[str, str]) -> None:
    commands = re.findall(r"`(prefect gcl [^`]*)`", TEXT)
    assert len(set(commands)) >= 3
    program = Path(sys.executable).with_name("prefect")
    for command in dict.fromkeys(commands):
        run(prefect_server, program, *command.split()[1:])
    code = code_blocks(PAGE, "python")[0].text
    then = "import asyncio; asyncio.run(sync(1)); print('has run')"
    assert "has run" in run(prefect_server, sys.executable, "-c", f"{code}\n{then}")


def test_a_wait_that_is_too_long_is_a_timeout_error(prefect_server: dict[str, str]) -> None:
    run(
        prefect_server,
        *(Path(sys.executable).with_name("prefect"), "gcl", "create", "one", "--limit", "1"),
    )
    code = """
import asyncio
from prefect.concurrency.asyncio import concurrency

async def main() -> None:
    async with concurrency("one", occupy=1):
        try:
            async with concurrency("one", timeout_seconds=1):
                print("overlap")
        except TimeoutError:
            print("timeout")
    async with concurrency("not there", occupy=1):
        print("runs without a limit")

asyncio.run(main())
"""
    printed = run(prefect_server, sys.executable, "-c", code)
    assert "timeout" in printed
    assert "overlap" not in printed
    assert "runs without a limit" in printed


def test_prefect_has_the_names_of_the_table() -> None:
    from prefect.concurrency import asyncio as prefect_asyncio
    from prefect.concurrency import sync as prefect_sync

    parameters: dict[str, Any] = dict(inspect.signature(prefect_asyncio.concurrency).parameters)
    table = {line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| ")}
    named = set(re.findall(r"`(\w+)=", "".join(table)))
    assert named >= {"occupy", "lease_duration", "strict"}
    assert named <= set(parameters)
    assert parameters["lease_duration"].default == 300
    assert parameters["strict"].default is False
    assert "timeout_seconds" in parameters
    assert "raise_on_lease_renewal_failure" in parameters
    assert callable(prefect_sync.rate_limit)
    assert callable(prefect_sync.concurrency)
