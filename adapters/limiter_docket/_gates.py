"""The gates of a worker: the store of its tasks' limits, and the waking of tasks that wait."""

from __future__ import annotations

import asyncio
import logging
import weakref
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal, cast

from docket import Docket, Worker

from limiter_core.jobs import CLAIM, BackgroundTasks, JobGate, check_on_store_error
from limiter_core.limits import check_seconds
from limiter_core.registry import open_store
from limiter_core.requests import Notice
from limiter_core.store import Store
from limiter_docket._queue import WAKE, bring_forward, parked_task, ticket_of
from limiter_docket._run import runs

logger = logging.getLogger("limiter")

BACKSTOP = 300.0
"""Seconds after which a parked task asks again, even if it was not woken."""

_CLOSING_PATIENCE = 5.0
"""Seconds that closing waits until free slots are handed on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The arguments of `set_store`."""

    store: Store | None = None
    claim: float = CLAIM
    backstop: float = BACKSTOP
    on_store_error: Literal["raise", "admit"] = "raise"


_settings: dict[str, Settings] = {}
open_gates: weakref.WeakKeyDictionary[Worker, WorkerGates] = weakref.WeakKeyDictionary()
# One for each event loop, URL and name, as Docket's own memory:// has it.
_memory_stores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Store]]
_memory_stores = weakref.WeakKeyDictionary()


def set_store(
    docket: Docket | str,
    store: str | Store | None = None,
    *,
    claim: float = CLAIM,
    backstop: float = BACKSTOP,
    on_store_error: Literal["raise", "admit"] = "raise",
) -> None:
    """Set the store of the limits of a docket's tasks; call it before the worker starts.

    Args:
        docket: the docket, or its name: so the module of the tasks can call it, for workers that
            are started by the `docket` command. All workers of a docket have to set the same.
        store: a store or its URL; None for the docket's own Redis.
        claim: seconds in which a task that was woken has to reach a worker; then its slot is
            offered again, first to the same task. More than a poll and the backlog take.
        backstop: seconds after which a waiting task asks again by itself. It has to only if the
            store lost its data.
        on_store_error: "raise" keeps tasks waiting while the store cannot be reached, "admit"
            runs them without a slot.

    Raises:
        ConfigurationError: no installed store knows the URL, or a value is not allowed.
    """
    opened = None if store is None else open_store(store)
    name = docket if isinstance(docket, str) else docket.name
    check_on_store_error(on_store_error)
    claim, backstop = check_seconds(claim, "claim"), check_seconds(backstop, "backstop")
    _settings[name] = Settings(opened, claim, backstop, on_store_error)


class WorkerGates:
    """The gates of one worker, one for each store that its limits use.

    Attributes:
        docket: the docket of the worker.
        settings: those of `set_store`.
        task_limits: what its tasks have of limits, by the names of their functions.
        background: what is done beside its tasks, and completed before the gates close.
    """

    def __init__(self, docket: Docket) -> None:
        self.docket = docket
        self.settings = _settings.get(docket.name, Settings())
        self.task_limits: dict[str, Any] = {}
        self.background = BackgroundTasks()
        self._open: dict[Store | None, JobGate] = {}
        self._fetches = True
        self._stack = AsyncExitStack()
        self._cancels = asyncio.get_running_loop().create_task(self._watch_cancels())

    async def aclose(self) -> None:
        """End what runs in the background, and close the gates."""
        self._cancels.cancel()
        await asyncio.gather(self._cancels, return_exceptions=True)
        await self.background.done(_CLOSING_PATIENCE)
        await self._stack.aclose()

    async def gate(self, store: Store | None) -> JobGate:
        """Return the gate of a store; None for the docket's."""
        if store not in self._open:
            given = store or self.settings.store
            gate = JobGate(
                given or await store_of(self.docket),
                f"docket:{self.docket.name}",
                self._wake,
                claim=self.settings.claim,
                on_store_error=self.settings.on_store_error,
                owns_store=given is None,
            )
            if not self._fetches:
                await gate.leave()
            self._open[store] = await self._stack.enter_async_context(gate)
        return self._open[store]

    def arrive(self) -> None:
        """Have waiting tasks served for this worker: it fetches tasks from now on."""
        self._fetches = True
        for gate in self._open.values():
            gate.arrive()

    async def leave(self) -> None:
        """Have waiting tasks served for other workers; those that run here run on."""
        self._fetches = False
        await asyncio.gather(*(gate.leave() for gate in self._open.values()))

    async def drop(self, key: str, when: str = "") -> None:
        """Drop the ticket of a task for this `when`; without one, only if it was cancelled."""
        parked = await parked_task(self.docket, key)
        ticket = ticket_of(self.docket, key, parked.when)
        if when == parked.when if when else parked.is_cancelled:
            for gate in list(self._open.values()):
                await gate.drop(ticket, parked.keys, function=parked.function)
        for run in list(runs.values()) if parked.is_cancelled else ():
            run.cancel(ticket)

    async def _wake(self, notice: Notice) -> bool:
        """Bring a task forward whose waiting ended; when it asks again, it gets its answer."""
        when, _, key = notice.payload.decode().partition(" ")
        return await bring_forward(self.docket, key, when)

    async def _watch_cancels(self) -> None:
        """Drop the tickets of tasks that are cancelled while they wait."""
        while True:
            try:
                async with self.docket._pubsub() as pubsub:  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
                    await pubsub.psubscribe(self.docket.cancel_channel("*"))
                    async for message in pubsub.listen():
                        if message["type"] == "pmessage":
                            await self.drop(cast(bytes, message["data"]).decode())
            except Exception as error:  # noqa: BLE001  (whatever it is, it subscribes again)
                # A ticket whose cancel is missed meanwhile is dropped when it is granted.
                name = self.docket.name
                logger.warning("docket %s: not subscribed to cancels: %s", name, error)
            await asyncio.sleep(1)


def gates_of(worker: Worker) -> WorkerGates:
    """Return the gates of a worker that runs; it closes them when it ends."""
    if worker not in open_gates:
        gates = open_gates[worker] = WorkerGates(worker.docket)
        stack = worker._stack  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
        stack.callback(open_gates.pop, worker)
        stack.push_async_callback(gates.aclose)  # when all of its tasks have ended
    return open_gates[worker]


async def store_of(docket: Docket) -> Store:
    """Return the store of a docket's limits, to inspect or change them, in any process.

    It is that of `set_store`, or one in the docket's own Redis, or for `memory://` one in this
    process. If a change lets tasks run, they are woken at once.
    """
    if given := _settings.get(docket.name, Settings()).store:
        return given
    if docket.url.startswith("memory://"):
        from limiter_memory import MemoryStore  # noqa: PLC0415

        stores = _memory_stores.setdefault(asyncio.get_running_loop(), {})
        return stores.setdefault((docket.url, docket.name), MemoryStore())
    from limiter_redis import RedisStore  # noqa: PLC0415

    async with docket.redis() as client:
        redis = cast(Any, client)
        return RedisStore(client=redis, namespace=f"{docket.prefix}:limits", wake=WAKE)
