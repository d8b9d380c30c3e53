"""A process under continuous load: calls that take turns over a few keys, and a note of each body.

    holder.py '{"url": ..., "notes": "path", "world": "asyncio", "limits": {"one": 1}, "lease": 1}'

Begin and end of each body go to a file of its own, one line each and at once, with the time of
CLOCK_MONOTONIC, which all processes of a machine share: a reader of the files depends on
neither the limiter nor the store. Lines on its input tell it what to do:

    keep holding  bodies do not end by themselves any more, only when their lease is lost
    end bodies    they do again
    tell          write which calls have not ended, and for how long they have run
    (nothing)   finish: make no new calls, and end when those that were made have ended
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import limiter_core
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    Lease,
    Limiter,
    LimiterError,
    SyncLease,
    SyncLimiter,
    events,
)
from limiter_core.registry import open_store
from limiter_core.store import Store
from limiter_redis import RedisStore
from limiter_redis.protocol.script import Script

AT_ONCE = 6
STEP = 0.005
KINDS = ({"one": 1}, {"two": 1}, {"three": 1}, {"three": 2}, {"two": 1, "three": 1})
"""What calls hold: keys, and how many slots of each. Each process has callers of every kind."""

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET

given: dict[str, Any] = json.loads(sys.argv[1])
finishing = threading.Event()
keeps_holding = threading.Event()
errors: Counter[str] = Counter()
waits = [0.0]
calls: dict[int, Call] = {}
file = os.open(given["notes"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
events_file = os.open(
    Path(given["notes"]).parent / f"{os.getpid()}.events", os.O_WRONLY | os.O_CREAT | os.O_APPEND
)


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def note(**facts: Any) -> None:
    """Write a line; it is in the file even if this process is killed right after."""
    os.write(file, json.dumps(facts).encode() + b"\n")


def note_event(event: events.Event) -> None:
    """Write which lease was granted, or ended, to the file beside that of the notes."""
    if isinstance(event, events.Granted | events.Released | events.Lost):
        line = json.dumps({"event": type(event).__name__, "id": event.id})
        os.write(events_file, line.encode() + b"\n")


def say(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def limits_of(kind: dict[str, int]) -> list[ConcurrencyLimit]:
    return [
        ConcurrencyLimit(
            LIMIT_BY.constant(name),
            given["limits"][name],
            cost=cost,
            # Those that are taken together live together, in a cluster too.
            scope=None if name == "one" else "faults",
            lease=given["lease"],
        )
        for name, cost in kind.items()
    ]


class Call:
    """One call: what it asks for, how long its body takes, and the notes of it."""

    def __init__(self, number: int) -> None:
        calls[number] = self
        self.kind = KINDS[number % len(KINDS)]
        self.limits = limits_of(self.kind)
        # Mostly short ones, so that much happens; some last while others come and go.
        self.steps = 60 if random.random() < 0.03 else random.randint(1, 6)
        self.timeout = random.choice([None, None, None, 2 * given["lease"]])
        self.asked_at = now()
        self.begun = self.ended = False

    def __str__(self) -> str:
        state = "ended" if self.ended else "holds" if self.begun else "waits"
        return f"{state} {self.kind}, asked {now() - self.asked_at:.1f} s ago, {self.timeout=}"

    def has_to_do(self) -> bool:
        """Whether the body has another step to make."""
        self.steps -= 1
        return self.steps >= 0 or keeps_holding.is_set()

    def begins(self, lease: Lease | SyncLease) -> None:
        self.begun = True
        self.id = lease.id
        at = now()
        waits.append(at - self.asked_at)
        note(what="begin", id=self.id, at=at, slots=self.kind, token=lease.fencing_token)

    def ends(self, lease: Lease | SyncLease) -> None:
        note(what="end", id=self.id, at=now(), lost=lease.lost)
        self.ended = True

    def failed(self, error: LimiterError) -> None:
        errors[type(error).__name__] += 1
        waits.append(now() - self.asked_at)


def in_a_thread(limiter: SyncLimiter, number: int) -> None:
    while not finishing.is_set():
        call = Call(number)
        try:
            with limiter.hold(call.limits, timeout=call.timeout) as lease:
                call.begins(lease)
                try:
                    while call.has_to_do():
                        time.sleep(STEP)
                        lease.check()
                finally:
                    call.ends(lease)
        except LimiterError as error:
            call.failed(error)
            time.sleep(4 * STEP)


async def in_a_task(limiter: Limiter, number: int) -> None:
    while not finishing.is_set():
        call = Call(number)
        try:
            async with limiter.hold(call.limits, timeout=call.timeout) as lease:
                call.begins(lease)
                try:
                    while call.has_to_do():  # noqa: ASYNC110  (it is work, not a wait)
                        await asyncio.sleep(STEP)
                finally:
                    call.ends(lease)
        except LimiterError as error:
            call.failed(error)
            await asyncio.sleep(4 * STEP)


def in_threads(store: Store) -> None:
    limiter = SyncLimiter(store)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        callers = [pool.submit(in_a_thread, limiter, number) for number in range(AT_ONCE)]
    for caller in callers:
        caller.result()
    store.sync_face().close()


async def in_an_event_loop(store: Store) -> None:
    limiter = Limiter(store)
    async with asyncio.TaskGroup() as tasks:
        for number in range(AT_ONCE):
            tasks.create_task(in_a_task(limiter, number))
    await store.async_face().aclose()


def move_to_network(namespace: str) -> None:
    """Go to a network namespace, before there is any thread or connection."""
    with Path(f"/run/netns/{namespace}").open() as opened:
        if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot go to the network {namespace}")


def set_clock(ahead: float) -> None:
    """Have this process be wrong about the time of day."""
    true_time = time.time
    time.time = lambda: true_time() + ahead


def listen() -> None:
    for line in sys.stdin:
        if line == "keep holding\n":
            keeps_holding.set()
        elif line == "end bodies\n":
            keeps_holding.clear()
        elif line == "tell\n":
            say("told", calls=[str(call) for call in calls.values()])
        else:
            keeps_holding.clear()
            finishing.set()


def main() -> None:
    logging.disable(logging.WARNING)  # losses are logged; errors are not expected
    if given.get("network"):
        move_to_network(given["network"])
    if given.get("ahead"):
        set_clock(given["ahead"])
    limiter_core.observe(note_event)
    threading.Thread(target=listen, daemon=True).start()
    store: Store
    if given.get("lua"):
        script = Script.of(Path(given["lua"]).read_text(encoding="utf-8"))
        store = RedisStore(given["url"], script=script)
    else:
        store = open_store(given["url"])
    say("runs")
    if given["world"] == "asyncio":
        asyncio.run(in_an_event_loop(store))
    else:
        in_threads(store)
    say("done", errors=errors, longest_wait=max(waits))


if __name__ == "__main__":
    main()
