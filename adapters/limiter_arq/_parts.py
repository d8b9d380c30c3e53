"""What a `LimitedWorker` has from its start until it closes, put together."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, Literal, NamedTuple

from arq.worker import Worker

from limiter_arq._admission import Admission
from limiter_arq._decorator import Run
from limiter_arq._dispatcher import Wakes
from limiter_arq._job_fetcher import Intake
from limiter_arq._job_queue import Shelf, Taken
from limiter_core import ConfigurationError
from limiter_core.jobs import Errands, JobGate
from limiter_core.requests import Loss
from limiter_core.store import Store


class GateSettings(NamedTuple):
    """What a user says of the gate; see `LimitedWorker`."""

    limiter: str | Store | None
    on_store_error: Literal["raise", "admit"]
    claim: float
    wait_extends_expiry: bool


class Parts(NamedTuple):
    """The parts of a worker, with its Redis at hand."""

    shelf: Shelf
    intake: Intake
    wakes: Wakes
    admission: Admission
    gate: JobGate
    default_store: Any

    async def aclose(self) -> None:
        """Hear no more, and close the store if it is ours."""
        await self.gate.aclose()
        await self.shelf.aclose()
        if self.default_store is not None:
            await self.default_store.aclose()


async def open_parts(
    worker: Worker,
    settings: GateSettings,
    errands: Errands,
    *,
    run: Callable[[Taken], Coroutine[Any, Any, None]],
    lost: Callable[[Run, Loss], None],
    ending: Callable[[], int],
) -> Parts:
    """Put the parts of a worker together.

    Args:
        worker: the worker, connected to its Redis.
        settings: its user's.
        errands: its own.
        run: runs a job that was taken.
        lost: stops the body of a run whose lease is lost.
        ending: says how many of its jobs are about to leave it.

    Raises:
        ConfigurationError: see `LimitedWorker`.
    """
    shelf = Shelf(worker.pool, worker.queue_name)
    place = await shelf.place()
    default = None
    store = settings.limiter
    if store is None:
        store = default = _store_of(worker.pool)
    intake = Intake(worker, shelf, errands, run)
    wakes = Wakes(
        worker.pool,
        place,
        worker.queue_name,
        shelf,
        intake,
        errands,
        ending=ending,
        # Where jobs run without a slot, one may do so while its ticket comes to its turn.
        stale_after=None if settings.on_store_error == "admit" else settings.claim / 2,
    )
    gate = JobGate(
        store,
        # Those of all queues of this Redis can be woken here, by whatever address workers know it;
        # but they are served only while a worker of their own queue is there.
        f"arq:{place}:{worker.queue_name}",
        wakes.hear,
        family=f"arq:{place}:",
        claim=settings.claim,
        on_store_error=settings.on_store_error,
    )
    wakes.gate = gate
    intake.on_room = wakes.room_came
    admission = Admission(
        worker,
        gate,
        place,
        shelf,
        errands,
        lost=lost,
        handed_over=wakes.wake,
        wait_extends_expiry=settings.wait_extends_expiry,
    )
    return Parts(shelf, intake, wakes, admission, gate, default)


def _store_of(pool: Any) -> Any:
    if "Sentinel" in type(pool.connection_pool).__name__:
        raise ConfigurationError(
            "arq finds its Redis by Sentinel, which the Redis store does not: "
            "give the worker a store, limiter=..."
        )
    return import_module("limiter_redis").RedisStore(client=pool)
