"""Traces of a real `celery worker`: the context of the task's producer is in its headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests._traced_jobs import named, spans_of_two_jobs
from tests.faults._jobs import Framework

from ._worker_processes import IMPORTS, app_for_sending

_MODULE = "tests.celery_.workers.traced_jobs"
CELERY = Framework(
    _MODULE,
    (
        *("celery", "-A", _MODULE, "worker", "-c", "2", "-n", "{name}@traces"),
        *("--without-mingle", "--without-gossip", "-l", "INFO"),
    ),
    IMPORTS,
    database=2,
    namespace="limiter",
)
PRODUCERS = {"first": ["1" * 32, "a" * 16], "second": ["2" * 32, "b" * 16]}


@pytest.fixture
def anyio_backend() -> str:
    """What waits for the worker knows asyncio only."""
    return "asyncio"


async def test_a_wait_is_in_the_trace_of_the_producer(url: str, tmp_path: Path) -> None:
    """And links to that of the producer of the task that held the slot."""
    app: Any = app_for_sending(url)

    async def add(name: str) -> None:
        # What opentelemetry-instrumentation-celery writes when a task is sent.
        headers = {"traceparent": f"00-{'-'.join(PRODUCERS[name])}-01"}
        app.send_task("work", task_id=name, headers=headers)

    spans = await spans_of_two_jobs(CELERY, f"{url}/0", tmp_path, add)
    (wait,) = named(spans, "wait billing")
    assert wait.parent == PRODUCERS["second"]
    assert wait.links == [PRODUCERS["first"]]


async def test_without_such_headers_a_wait_is_a_root(url: str, tmp_path: Path) -> None:
    app: Any = app_for_sending(url)

    async def add(name: str) -> None:
        app.send_task("work", task_id=name)

    spans = await spans_of_two_jobs(CELERY, f"{url}/0", tmp_path, add)
    (wait,) = named(spans, "wait billing")
    assert (wait.parent, wait.links) == (None, [])
