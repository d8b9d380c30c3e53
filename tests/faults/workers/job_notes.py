"""What the bodies of queued jobs note, for the overlap recorder, as workers/holder.py does it.

Each worker has a folder, and each of its processes a file there.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import limiter_core
from limiter_core import events

URL = os.environ.get("JOBS_URL", "redis://localhost:6379/0")
FOLDER = os.environ.get("JOBS_NOTES", "")
COUNT = int(os.environ.get("JOBS_COUNT", "0"))
KIND = os.environ.get("JOBS_KIND", "")
"""Enqueue only jobs of this kind; empty for all in turns."""

LIMITS = {"one": 1, "two": 2}
KINDS = ({"one": 1}, {"two": 1}, {"one": 1, "two": 1})
"""What jobs hold, in turns."""

NUMBERS = range(0, 3 * COUNT, 3) if KIND == "one" else range(COUNT)
"""The jobs to enqueue."""

LEASE = 2.0
CLAIM = float(os.environ.get("JOBS_CLAIM", "1.5"))
BODY = 0.15


def note(suffix: str = ".notes", **facts: Any) -> None:
    """Write a line; it is in the file even if this process is killed right after."""
    path = Path(FOLDER) / f"{os.getpid()}{suffix}"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, json.dumps(facts).encode() + b"\n")
    finally:
        os.close(file)


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def note_event(event: events.Event) -> None:
    """Write which lease was granted, or ended, to a file of this process."""
    if isinstance(event, events.Granted | events.Released | events.Lost):
        note(".events", event=type(event).__name__, id=event.id)


if FOLDER:
    limiter_core.observe(note_event)


@contextmanager
def noted(
    number: int, token: int, lease: str, lost: Callable[[], bool] = lambda: False
) -> Generator[None]:
    """Note begin and end of a job's body."""
    name = uuid.uuid4().hex
    slots = {**KINDS[number % len(KINDS)], f"job {number}": 1}
    note(what="begin", id=name, at=now(), slots=slots, token=token, lease=lease)
    done = False
    try:
        yield
        done = True
    finally:
        note(what="end", id=name, at=now(), lost=lost(), job=number, done=done)
