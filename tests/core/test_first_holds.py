"""The first hold of a process: nothing is imported while it has its slot and its body waits."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from limiter_core import ConcurrencyLimit, LIMIT_BY, Limiter, SyncLimiter
from limiter_memory import MemoryStore

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("shop"), 1)
granted = []

class NotingStore(MemoryStore):
    def acquire(self, request):
        answer = super().acquire(request)
        granted.append(set(sys.modules))
        return answer

def in_a_thread():
    with SyncLimiter(NotingStore()).hold(LIMIT):
        return set(sys.modules)

async def in_a_task():
    async with Limiter(NotingStore()).hold(LIMIT):
        return set(sys.modules)

def on_asyncio():
    import asyncio
    return asyncio.run(in_a_task())

def on_trio():
    import trio
    return trio.run(in_a_task)

in_the_body = globals()[sys.argv[1]]()
assert granted, "the store was asked"
print(*in_the_body - granted[-1])
"""


@pytest.mark.parametrize("world", ["in_a_thread", "on_asyncio", "on_trio"])
def test_nothing_is_imported_between_the_grant_and_the_body(world: str) -> None:
    command = [sys.executable, "-c", PROGRAM, world]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr
