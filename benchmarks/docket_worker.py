"""Four worker processes of one docket: the order of tasks, and the speed of hand-offs.

Run as a script, it is one of the workers: it works until its input ends, and prints each body. The
first task holds the slot until all others wait, so the order of arrival is known. Times are of the
monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from pathlib import Path

from docket import Docket

from docket_tasks import Body, NotDoneError, new_docket, new_worker, task
from redis_server import Server

_WORKERS = 4
_KEY = "one"
_READY = "ready"
_HOLDS = "holds"


async def run_workers(server: Server, kind: str, count: int, seconds: float) -> list[Body]:
    """Return the bodies of so many tasks on one key, which waited while the first task held it."""

    async def nothing(number: int, key: str) -> None:  # the workers define the body
        raise NotImplementedError

    limited = task(kind, nothing)
    async with AsyncExitStack() as stack:
        docket = await stack.enter_async_context(new_docket(server, limited))
        workers = [await _start(server, docket.name, kind, seconds) for _ in range(_WORKERS)]
        for worker in workers:
            stack.push_async_callback(_end, worker)
        bodies: list[Body] = []
        said: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.TaskGroup() as readers:
            for worker in workers:
                readers.create_task(_read(worker, said))
            for _ in workers:
                await _expect(said, _READY)
            await docket.add(limited)(0, _KEY)
            await _expect(said, _HOLDS)
            for number in range(1, count):
                await docket.add(limited)(number, _KEY)
            while server.admin.xlen(docket.stream_key) > 1:  # noqa: ASYNC110  (the task that holds)
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)  # until the last task is parked
            for worker in workers:
                _tell(worker)
            while len(bodies) < count:
                bodies.append(_body(await said.get()))
            for worker in workers:
                _hang_up(worker)
    return bodies


async def _start(server: Server, name: str, kind: str, seconds: float) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__)),
        *(server.url, name, kind, str(seconds)),
        stdin=PIPE,
        stdout=PIPE,
    )


async def _read(worker: Process, said: asyncio.Queue[str]) -> None:
    assert worker.stdout is not None
    async for line in worker.stdout:
        said.put_nowait(line.decode().strip())
    said.put_nowait("one of the workers ended")


async def _expect(said: asyncio.Queue[str], what: str) -> None:
    if (line := await said.get()) != what:
        raise NotDoneError(f"expected {what!r} from a worker, got {line!r}")


def _body(line: str) -> Body:
    try:
        number, began, ended = line.split()
        return Body(int(number), _KEY, float(began), float(ended))
    except ValueError as error:
        raise NotDoneError(f"expected a body from a worker, got {line!r}") from error


def _tell(worker: Process) -> None:
    assert worker.stdin is not None
    worker.stdin.write(b"go on\n")


def _hang_up(worker: Process) -> None:
    assert worker.stdin is not None
    worker.stdin.close()


async def _end(worker: Process) -> None:
    if worker.returncode is None:
        _hang_up(worker)
        try:
            async with asyncio.timeout(10):
                await worker.wait()
        except TimeoutError:
            worker.kill()
            await worker.wait()


# -- one of the workers ----------------------------------------------------------------------------


async def _work(url: str, name: str, kind: str, seconds: float) -> None:
    go_on = asyncio.Event()

    async def body(number: int, key: str) -> None:  # noqa: ARG001  (a task's signature)
        began = time.monotonic()
        if number == 0:
            print(_HOLDS, flush=True)
            await go_on.wait()
        else:
            await asyncio.sleep(seconds)
        print(number, began, time.monotonic(), flush=True)

    async with Docket(name=name, url=url) as docket:
        docket.register(task(kind, body))
        async with new_worker(docket) as worker:
            working = asyncio.ensure_future(worker.run_forever())
            print(_READY, flush=True)
            if await asyncio.to_thread(sys.stdin.readline):
                go_on.set()
                await asyncio.to_thread(sys.stdin.read)
            go_on.set()
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
