"""Calls that do not wait: three ways to treat a call that finds its key full.

A nightly report is not started again while it still runs (`CANCEL`). A search index gets five
rebuild requests in a row and runs two rebuilds: the one that runs already, and one for the last
request (`KEEP_LATEST`). A search box stops its search when the user continues to type
(`CANCEL_RUNNING`).

It prints::

    report: refused, 'report' is full: 1 of 1 slots in use
    index: rebuilt for request 1, 5
    index: superseded were request 2, 3, 4
    search: 'c' preempted
    search: 'ca' preempted
    search: 'cat' found
"""

import asyncio

from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    Limiter,
    LimitReached,
    Preempted,
    Superseded,
)

limiter = Limiter("memory://")
one_report = ConcurrencyLimit(LIMIT_BY.constant("report"), on_conflict=ConflictResolution.CANCEL)
one_rebuild = ConcurrencyLimit(
    LIMIT_BY.constant("index"), on_conflict=ConflictResolution.KEEP_LATEST
)
one_search = ConcurrencyLimit("user_id", on_conflict=ConflictResolution.CANCEL_RUNNING)


async def cancel() -> None:
    async with limiter.hold(one_report):
        try:
            async with limiter.hold(one_report):
                print("never reached: the report runs twice")
        except LimitReached as refusal:
            print(f"report: refused, {refusal}")


async def keep_latest() -> None:
    rebuilt: list[str] = []
    superseded: list[str] = []

    async def rebuild(request: int) -> None:
        try:
            async with limiter.hold(one_rebuild):
                await asyncio.sleep(0.02)
                rebuilt.append(str(request))
        except Superseded:
            superseded.append(str(request))

    await asyncio.gather(*(rebuild(request) for request in range(1, 6)))
    print(f"index: rebuilt for request {', '.join(rebuilt)}")
    print(f"index: superseded were request {', '.join(sorted(superseded))}")


async def cancel_running() -> None:
    started = asyncio.Event()

    async def search(text: str, seconds: float) -> None:
        try:
            async with limiter.hold(one_search, {"user_id": 7}):
                started.set()
                await asyncio.sleep(seconds)
                print(f"search: {text!r} found")
        except Preempted:
            print(f"search: {text!r} preempted")

    async with asyncio.TaskGroup() as typing:
        for text, seconds in (("c", 60), ("ca", 60), ("cat", 0.01)):
            started.clear()
            typing.create_task(search(text, seconds))
            await started.wait()


async def main() -> None:
    await cancel()
    await keep_latest()
    await cancel_running()


asyncio.run(main())
