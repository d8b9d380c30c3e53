"""What a process of the trial of HTTP notes: its bodies, its events, and how its requests ended."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import limiter_core
from limiter_core import LIMIT_BY, ConcurrencyLimit, events

LIMITS = {"one": 1, "two": 2, "three": 3}
LEASE = 3.0
"""Seconds: longer than a process stands still on a busy machine."""


def limit_of(key: str, **settings: Any) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(key), LIMITS[key], lease=LEASE, **settings)


def any_key() -> str:
    """Return a key at random; each of their slots has as many requests."""
    return random.choices(list(LIMITS), list(LIMITS.values()))[0]


class Notes:
    """Files of one process: a line is in its file even if the process is killed right after.

    Args:
        folder: for the files, each named by the process.
    """

    def __init__(self, folder: str) -> None:
        path = Path(folder) / str(os.getpid())
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._files = {
            kind: os.open(path.with_suffix(f".{kind}"), flags)
            for kind in ("notes", "events", "fates")
        }
        limiter_core.observe(self._event)

    def begin(self, key: str, token: int | None = None) -> Body:
        """Note that a body begins."""
        return Body(self, key, token)

    def fate(self, fate: str) -> None:
        """Note how a request has ended."""
        self.write("fates", fate=fate)

    def _event(self, event: events.Event) -> None:
        if isinstance(event, events.Granted | events.Released | events.Lost):
            self.write("events", event=type(event).__name__, id=event.id)

    def write(self, kind: str, **facts: Any) -> None:
        os.write(self._files[kind], json.dumps(facts).encode() + b"\n")


class Body:
    """One body; it ends once, whoever says so."""

    def __init__(self, notes: Notes, key: str, token: int | None) -> None:
        self._notes = notes
        self._name = uuid.uuid4().hex
        self._lock = threading.Lock()
        notes.write("notes", what="begin", id=self._name, at=now(), slots={key: 1}, token=token)

    def end(self) -> None:
        # Nothing waits for the lock: of several calls one notes the end.
        if self._lock.acquire(blocking=False):
            self._notes.write("notes", what="end", id=self._name, at=now(), lost=False)


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)
