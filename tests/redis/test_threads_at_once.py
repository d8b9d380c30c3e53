"""What several threads of a process do with one store in the same moment."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter, SyncLimiter
from limiter_core.requests import Demand, Request
from limiter_redis import RedisStore
from limiter_redis.session.known_policies import KnownPolicies

from ._servers import Server

ONE = ConcurrencyLimit(LIMIT_BY.constant("k"), 1)


def taken_by_another(**content: Any) -> Any:
    """Return a dictionary that is empty once this thread has looked whether it is."""
    this, looked = threading.current_thread(), threading.Event()

    class Taken(dict[Any, Any]):
        def __len__(self) -> int:
            found = super().__len__()
            if threading.current_thread() is this and not looked.is_set():
                looked.set()
                self.clear()
            return found

    return Taken(content)


async def test_what_a_step_left_over_is_done_by_one(server: Server) -> None:
    """The caller and the renewer look for it at once (S16)."""
    store = RedisStore(server.url)
    store.session.tracker.unfinished = taken_by_another(k=None)
    with SyncLimiter(store).hold(ONE):
        pass
    store.session.tracker.unfinished = taken_by_another(k=None)
    async with Limiter(store).hold(ONE):
        pass
    await store.aclose()


def test_two_threads_may_close_a_store(server: Server) -> None:
    store = RedisStore(server.url)
    with SyncLimiter(store).hold(ONE):
        pass
    session: Any = store.session
    [transport] = session._sync_transports.values()
    session._sync_transports = taken_by_another(k=transport)
    store.close()
    transport.close()


def test_a_change_that_is_read_while_another_one_is_applied_is_applied_too() -> None:
    known: Any = KnownPolicies()
    known.sent(Request("job", (Demand("key", 1),), 30.0, payload=b"{}"), now=100.0)

    class ReadMeanwhile(dict[str, float]):
        def items(self) -> Any:
            found = list(super().items())
            known._changed.update(later=100.0)
            return found

    known._changed = ReadMeanwhile(first=100.0)
    known.to_apply(101.0)
    assert known.to_apply(101.0) == {"first": ["key"], "later": ["key"]}


TOO_MANY_FILES = """
import os, resource, sys
from limiter_core import LIMIT_BY, ConcurrencyLimit, StoreError, SyncLimiter

limiter = SyncLimiter(sys.argv[1])
one = ConcurrencyLimit(LIMIT_BY.constant("k"), 1)
most, hardest = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hardest))
opened = []
try:
    while True:
        opened.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    limiter.try_acquire(one)
except StoreError as error:
    assert "Too many open files" in str(error)
    print("refused")
for each in opened:
    os.close(each)
with limiter.hold(one):
    print("held")
limiter.close()
"""


def test_a_process_with_too_many_open_files_is_told_so(server: Server) -> None:
    run = subprocess.run(
        [sys.executable, "-c", TOO_MANY_FILES, server.url],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (run.stdout.split(), run.stderr) == (["refused", "held"], "")
