"""A client under load: callers that send requests, and end them in every way there is.

    python -m tests.faults.workers.web_client '{"client": "httpx", "ports": [...], ...}'

`sockets` has no limit, and calls the servers' limited paths. `agents` run models with a limit, and
call no server. The others have one, and call `/plain`: the body that is noted is the request inside
of the limit, up to the end of its response.
At a SIGTERM the callers end their requests, and the process ends.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import random
import signal
import sys
import threading
from typing import Any

from tests.faults.workers import limited_clients, socket_client
from tests.faults.workers.body_notes import Notes

given: dict[str, Any] = json.loads(sys.argv[1])
finishing = threading.Event()

CALLERS = 8
"""Callers of a process: tasks; of a client for threads, too, the last two are threads."""

AGENTS = 50
"""The same of agents, all tasks."""


async def call_until_the_end(caller: Any, notes: Notes) -> None:
    while not finishing.is_set():
        fate = await caller.request(random.choice(given["ports"]))
        notes.fate(fate)
        if fate == "no connection":
            await asyncio.sleep(0.05)  # the server is being started again


def call_in_thread_until_the_end(caller: Any, notes: Notes) -> None:
    while not finishing.is_set():
        fate = caller.request_in_thread(random.choice(given["ports"]))
        notes.fate(fate)
        if fate == "no connection":
            finishing.wait(0.05)


async def main() -> None:
    notes = Notes(given["notes"])
    gc.freeze()  # callers collect what they drop: that is to be quick
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, finishing.set)
    callers = CALLERS
    if given["client"] == "sockets":
        caller: Any = socket_client.Caller()
    elif given["client"] == "agents":
        limited_agents = importlib.import_module("tests.faults.workers.limited_agents")
        caller, callers = limited_agents.AgentCaller(given["url"], notes), AGENTS
    else:
        caller = limited_clients.caller(given["client"], given["url"], notes)
    threads = 2 if hasattr(caller, "request_in_thread") else 0
    async with caller, asyncio.TaskGroup() as group:
        for _ in range(threads):
            group.create_task(asyncio.to_thread(call_in_thread_until_the_end, caller, notes))
        for _ in range(callers - threads):
            group.create_task(call_until_the_end(caller, notes))


if __name__ == "__main__":
    asyncio.run(main())
