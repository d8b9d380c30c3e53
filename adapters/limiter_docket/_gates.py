"""The gates of a docket: which store, who wakes a task, what runs in the background."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

from docket import Docket
from redis.exceptions import RedisError

from limiter_core.errors import ConfigurationError, StoreError
from limiter_core.jobs import CLAIM, Errands, JobGate
from limiter_core.registry import open_store
from limiter_core.requests import Granted, Notice
from limiter_core.store import Store
from limiter_docket._parking import bring_forward, read_note, was_cancelled

logger = logging.getLogger("limiter")

_REMEMBERED = 1000
"""Tasks of which it is remembered that they were woken."""

_PATIENCE = 5.0
"""Seconds that what is under way may take when the gates are closed."""

BACKSTOP = 300.0
"""Seconds after which a parked task asks again, even if nobody woke it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `set_store` says."""

    store: Store | None = None
    claim: float = CLAIM
    backstop: float = BACKSTOP
    on_store_error: Literal["raise", "admit"] = "raise"


_settings: dict[str, Settings] = {}
_gates: weakref.WeakKeyDictionary[Docket, Gates] = weakref.WeakKeyDictionary()
# As Docket's own memory:// does: one for each event loop and name.
_memory: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Store]]
_memory = weakref.WeakKeyDictionary()


def set_store(
    docket: Docket | str,
    store: str | Store | None = None,
    *,
    claim: float = CLAIM,
    backstop: float = BACKSTOP,
    on_store_error: Literal["raise", "admit"] = "raise",
) -> None:
    """Say where the limits of a docket's tasks keep their slots; before its worker starts.

    Args:
        docket: the docket, or its name: the module of the tasks can say it, for workers that are
            started by the `docket` command. All who work one docket have to say the same.
        store: a store or its URL; None for the docket's own Redis.
        claim: seconds that a task which was woken has to reach a worker; then its slot is offered
            again, to itself first. More than a poll and the backlog take.
        backstop: seconds after which a waiting task asks again by itself. It matters only when
            the store lost its data.
        on_store_error: "raise" keeps tasks waiting while the store cannot be reached, "admit"
            runs them without a slot.

    Raises:
        ConfigurationError: no installed store knows the URL.
    """
    opened = open_store(store) if isinstance(store, str) else store
    name = docket if isinstance(docket, str) else docket.name
    _settings[name] = Settings(opened, claim, backstop, on_store_error)


def gates_of(docket: Docket) -> Gates:
    """Return the gates of a docket in this event loop."""
    gates = _gates.get(docket)
    if gates is None or gates.loop is not asyncio.get_running_loop():
        gates = _gates[docket] = Gates(docket, _settings.get(docket.name, Settings()))
    return gates


class Gates:
    """The gates of one docket, one for each store that its limits use; open while somebody is in.

    Attributes:
        loop: the event loop that they belong to.
        errands: what is done for tasks beside their runs.
        settings: what `set_store` said.
    """

    def __init__(self, docket: Docket, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self.errands = Errands()
        self.settings = settings
        self._docket = docket
        self._open: dict[Store | None, JobGate] = {}
        self._woken: dict[str, tuple[int, str]] = {}
        self._users = 0
        self._background: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def used(self) -> AsyncGenerator[None, None]:
        """Keep the gates open: workers do, and runs, which may end after their worker's loop."""
        self._users += 1
        try:
            yield
        finally:
            await self.leave()

    def enter(self) -> None:
        """Keep the gates open until `leave`."""
        self._users += 1

    async def leave(self) -> None:
        """Close the gates if nobody else is in."""
        if self._users == 1:
            await self.errands.done(_PATIENCE)
        self._users -= 1
        if self._users:
            return
        gates, self._open = self._open, {}
        background, self._background = self._background, set()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for store, gate in gates.items():
            await gate.aclose()
            if store is None and self.settings.store is None:
                await gate.store.async_face().aclose()

    async def gate(self, store: Store | None) -> JobGate:
        """Return the gate of a store; None for the docket's."""
        gate = self._open.get(store)
        if gate is None:
            opened = store or self.settings.store or await _store_of(self._docket)
            gate = self._open.get(store)  # somebody else may have been faster
            if gate is None:
                gate = self._open[store] = self._opened(opened)
        return gate

    def remember(self, key: str, name: str, generation: int) -> None:
        """Note what a woken task's ticket is named by: it may well run in this process."""
        self._woken[key] = generation, name
        if len(self._woken) > _REMEMBERED:
            del self._woken[next(iter(self._woken))]

    async def name_of(self, key: str, generation: int) -> str | None:
        """Return the message that names the ticket of a task that goes on; None for a new one."""
        known = self._woken.pop(key, None)
        if known is not None and known[0] == generation:
            return known[1]
        note = await read_note(self._docket, key)
        return note.name if note is not None and note.generation == generation else None

    async def drop_ticket(self, key: str, generation: int | None = None) -> None:
        """Drop the ticket of a task that waited, in this generation or at all."""
        note = await read_note(self._docket, key)
        if note is not None and generation in (None, note.generation):
            for gate in list(self._open.values()):
                await gate.drop(ticket_of(self._docket, key, note.name), note.keys)

    def _opened(self, store: Store) -> JobGate:
        def noticed(notice: Notice) -> None:  # from any thread
            self.errands.begin_soon(lambda: self._wake(gate, notice))

        settings = self.settings
        gate = JobGate(
            store,
            f"docket:{self._docket.name}",
            noticed,
            claim=settings.claim,
            on_store_error=settings.on_store_error,
        )
        self._background.add(self.loop.create_task(gate.keep_sweeping()))
        if len(self._background) == 1:
            self._background.add(self.loop.create_task(self._hear_cancels()))
        return gate

    async def _wake(self, gate: JobGate, notice: Notice) -> None:
        """Bring a task forward whose waiting ended; whatever its answer is, it hears it itself."""
        name, _, key = notice.payload.decode().partition(" ")
        try:
            async with self._turn:  # in the order in which they were served
                answer = notice.answer
                # A token is no less than the store's clock when the slot was offered (S11).
                offered_at = answer.fencing_token / 1e6 if isinstance(answer, Granted) else 0.0
                generation = await bring_forward(self._docket, key, name, offered_at)
            if generation is None:
                await gate.drop(notice.id)
            elif generation:
                self.remember(key, name, generation)
        except (RedisError, StoreError) as error:
            logger.warning("could not wake %s, it is offered again: %s", key, error)

    async def _hear_cancels(self) -> None:
        """Drop the tickets of tasks that are cancelled while they wait."""
        docket = self._docket
        while True:
            try:
                async with docket._pubsub() as pubsub:  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
                    await pubsub.psubscribe(docket.cancel_channel("*"))
                    async for message in pubsub.listen():
                        if message["type"] == "pmessage":
                            data = message["data"]
                            key = data.decode() if isinstance(data, bytes) else data
                            if await was_cancelled(docket, key):
                                await self.drop_ticket(key)
            except (RedisError, StoreError) as error:
                # What it misses meanwhile is dropped when its turn comes.
                logger.warning("docket %s: cannot hear cancels: %s", docket.name, error)
            await asyncio.sleep(1)


def ticket_of(docket: Docket, key: str, name: str) -> str:
    """Return the ticket of one attempt: named by the message that first brought it."""
    return f"{docket.name}:{key}#{name}"


async def _store_of(docket: Docket) -> Store:
    """Return the store in the docket's own Redis, or for `memory://` one in this process."""
    scheme = docket.url.partition("://")[0]
    if scheme == "memory":
        from limiter_memory import MemoryStore  # noqa: PLC0415

        stores = _memory.setdefault(asyncio.get_running_loop(), {})
        return stores.setdefault((docket.url, docket.name), MemoryStore())
    if scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError(
            f"limits cannot use {scheme}:// yet: give them a store of their own with "
            "limiter_docket.set_store(docket, ...)"
        )
    from limiter_redis import RedisStore  # noqa: PLC0415

    async with docket.redis() as client:
        return RedisStore(client=cast(Any, client), namespace=_namespace(docket.name))


def _namespace(name: str) -> str:
    """Return the namespace of a docket's limits, whatever its name is made of."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:40]
    if plain != name:
        plain += "." + hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    return f"{plain}.limits"
