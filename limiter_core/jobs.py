"""Gates for job queues: what every adapter puts between its framework and a store.

A job that has to wait does not sit in a worker: it gets a *durable ticket* (S17), its queue parks
it, and whoever frees the slot is handed the ticket's payload and wakes it. One way through::

    outcome = await gate.admit(Job(ticket, limits, arguments, payload, order), on_lost)
    if isinstance(outcome, Waiting):
        park()                                   # 1. in the framework's own queue
        if await gate.handed_over(outcome):      # 2. look again: a grant may have crossed 1.
            wake_it_ourselves()
    elif isinstance(outcome, Held): ...          # a redelivery: the job runs already; come later
    else:
        try: run the body
        finally: await outcome.release()         # wakes the next

`wake` gets a `Notice` for each ticket whose waiting ended by a step of this process: from any
thread, so it hands the work on and returns. A job that is gone is dropped (`gate.drop`), which
hands its slot on; `error_of(notice)` says whether the job is to run at all.
"""

from __future__ import annotations

import asyncio
import random
import time

from limiter_core._async_calls import AsyncioCall
from limiter_core._async_engine import RELEASE_PATIENCE, AsyncEngine
from limiter_core._engine import OnStoreError
from limiter_core._errands import Errands
from limiter_core._job_parts import (
    CLAIM,
    Desk,
    Job,
    Lost,
    OnLost,
    Outage,
    Waiting,
    Wake,
    error_of,
    is_parked,
    listen,
    look_request,
    out_of_patience,
    unlisten,
)
from limiter_core._prepare import demands_of, limits_of, run_async, run_now, terms_of
from limiter_core._sync_engine import SyncCall, SyncEngine
from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.lease import Lease, SyncLease
from limiter_core.requests import Answer, Granted, Held, Request
from limiter_core.store import Store

__all__ = ("CLAIM", "Errands", "Held", "Job", "JobGate", "SyncJobGate", "Waiting", "error_of")

SWEEP_EVERY = 1.0
"""Seconds between two looks for tickets that nobody claimed and leases that nobody renewed."""


class _AsyncJobCall(Lost, AsyncioCall):
    """A job that runs, in an event loop."""


class _SyncJobCall(Lost, SyncCall):
    """A job that runs, under a worker's thread or process."""


class JobGate:
    """Admits the jobs of one queue; for adapters of asyncio frameworks.

    Args:
        store: a store, or its URL.
        name: who can wake these jobs, such as `"docket:shop"`. Workers that give the same name
            wake each other's jobs.
        wake: called with each notice of a job of this name.
        claim: seconds that a woken job has to come for its slot.
        on_store_error: what `admit` does when the store cannot be reached: "raise", or "admit".
        label: says in `inspect` who holds and who waits.

    Raises:
        ConfigurationError: no installed store knows the URL, or the name is none.
    """

    def __init__(
        self,
        store: str | Store,
        name: str,
        wake: Wake,
        *,
        claim: float = CLAIM,
        on_store_error: OnStoreError = "raise",
        label: str | None = None,
    ) -> None:
        self._engine = AsyncEngine(store, on_store_error=on_store_error, label=label)
        self._face = self._engine.face
        self._desk = Desk(name, claim)
        self._wake = wake
        self._outage = Outage(name)
        listen(self._engine.store, self._face, self._desk, wake)

    @property
    def store(self) -> Store:
        """The store behind the gate."""
        return self._engine.store

    async def admit(self, job: Job, on_lost: OnLost | None = None) -> Lease | Waiting | Held:
        """Ask for the slots of a job that was just delivered.

        Safe from cancellation: what was granted to nobody is given back, a ticket stays.

        Args:
            job: the delivery.
            on_lost: called, from any thread, when the lease is lost and the limit's `on_lost` is
                "cancel"; the adapter stops the body in its framework's way.

        Returns:
            A lease: the body may run, then `release` it, on every way out. `Waiting`: park it.
            `Held`: another delivery of this attempt runs; come again when its lease may be over.

        Raises:
            LimitReached: refused: full under `CANCEL`, `QueueFull`, or `WaitTimeout`.
            Superseded: a newer job took its place.
            KeyDerivationError, ConfigurationError: the job can never be admitted.
            StoreError: the store could not be used; keep the job, and ask again.
        """
        engine = self._engine
        limits = limits_of(job.limits)
        demands = await run_async(demands_of(limits, job.arguments))
        terms = terms_of(limits, None)
        call = _AsyncJobCall(asyncio.current_task(), terms, self._face.now)
        call.on_loss = on_lost
        call.request = request = self._desk.request(job, demands, terms, engine.label, call)
        try:
            outcome = self._desk.outcome(
                request, await self._ask(request, call), terms, time.time()
            )
            if isinstance(outcome, Waiting) and outcome.patience is not None:
                if outcome.patience <= 0:
                    await self._face.release(request.id, [demand.key for demand in demands])
                    raise out_of_patience(outcome)
        except StoreUnavailable as error:
            call.settled = True
            if not engine.admits(error):
                raise
            return Lease(call, engine.give_back)
        if isinstance(outcome, Granted):
            return Lease(call, engine.give_back)
        return outcome

    async def _ask(self, request: Request, call: _AsyncJobCall) -> Answer:
        """Ask, and learn the answer, whoever cancels."""
        answer: list[Answer] = []

        async def ask() -> None:
            try:
                sent_at = call.now()
                answer.append(await self._face.acquire(request))
                if isinstance(answer[0], Granted):
                    call.grant(answer[0], sent_at)
            except StoreError as error:
                self._desk.unsure(request)
                self._outage.began(error)
                raise

        try:
            await call.finish(ask(), RELEASE_PATIENCE * 2)
        except asyncio.CancelledError:
            if answer and isinstance(answer[0], Granted):
                await self._engine.give_back(call)
            raise
        except TimeoutError as error:
            self._desk.unsure(request)
            raise StoreUnavailable("the store did not answer in time") from error
        self._outage.over()
        return answer[0]

    async def handed_over(self, waiting: Waiting) -> bool:
        """Look whether the slot was handed over, or refused, while the job was being parked.

        Returns:
            True if the job is to be woken by whoever parked it: asking again tells what it got.
        """
        answer = await self._face.acquire(look_request(waiting))
        return not is_parked(answer)

    async def drop(self, ticket: str, keys: tuple[str, ...] = ()) -> bool:
        """Remove a ticket whose job is gone, and hand on what it was given.

        One that was admitted keeps its lease: only `release` gives that back. Its id is enough;
        where a notice told of it, or it was asked for here, it is found at once.

        Returns:
            Whether there was one.
        """
        return await self._face.withdraw(ticket, keys or self._desk.keys_of(ticket))

    async def sweep(self) -> None:
        """Wake what nobody woke: jobs of dead workers, slots that nobody claimed."""
        await self._face.sweep()

    async def keep_sweeping(self, every: float = SWEEP_EVERY) -> None:
        """Sweep until cancelled; for each worker's background. Outlives an outage."""
        while True:
            await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self.sweep()
            except StoreError as error:
                self._outage.began(error)
            else:
                self._outage.over()

    async def aclose(self) -> None:
        """Hear no more notices; a store that was made from a URL is closed."""
        engine = self._engine
        unlisten(engine.store, self._face, self._desk, self._wake)
        if engine.owns_store and not engine.closed:
            engine.closed = True
            await self._face.aclose()


class SyncJobGate:
    """Admits the jobs of one queue; for adapters of threaded frameworks.

    Args, Raises: as `JobGate`. Its methods are called from any thread.
    """

    def __init__(
        self,
        store: str | Store,
        name: str,
        wake: Wake,
        *,
        claim: float = CLAIM,
        on_store_error: OnStoreError = "raise",
        label: str | None = None,
    ) -> None:
        self._engine = SyncEngine(store, on_store_error=on_store_error, label=label)
        self._face = self._engine.face
        self._desk = Desk(name, claim)
        self._wake = wake
        self._outage = Outage(name)
        listen(self._engine.store, self._face, self._desk, wake)

    @property
    def store(self) -> Store:
        """The store behind the gate."""
        return self._engine.store

    def admit(self, job: Job, on_lost: OnLost | None = None) -> SyncLease | Waiting | Held:
        """Ask for the slots of a job that was just delivered; see `JobGate.admit`."""
        engine = self._engine
        limits = limits_of(job.limits)
        demands = run_now(demands_of(limits, job.arguments))
        terms = terms_of(limits, None)
        call = _SyncJobCall(terms, self._face.now)
        call.on_loss = on_lost
        call.request = request = self._desk.request(job, demands, terms, engine.label, call)
        try:
            outcome = self._desk.outcome(request, self._ask(request, call), terms, time.time())
            if isinstance(outcome, Waiting) and outcome.patience is not None:
                if outcome.patience <= 0:
                    self._face.release(request.id, [demand.key for demand in demands])
                    raise out_of_patience(outcome)
        except StoreUnavailable as error:
            call.settled = True
            if not engine.admits(error):
                raise
            return SyncLease(call, engine.give_back)
        if isinstance(outcome, Granted):
            return SyncLease(call, engine.give_back)
        return outcome

    def _ask(self, request: Request, call: _SyncJobCall) -> Answer:
        try:
            sent_at = call.now()
            answer = self._face.acquire(request)
            if isinstance(answer, Granted):
                call.grant(answer, sent_at)
        except StoreError as error:
            self._desk.unsure(request)
            self._outage.began(error)
            raise
        self._outage.over()
        return answer

    def handed_over(self, waiting: Waiting) -> bool:
        """Look whether the slot was handed over while the job was parked; see `JobGate`."""
        return not is_parked(self._face.acquire(look_request(waiting)))

    def drop(self, ticket: str, keys: tuple[str, ...] = ()) -> bool:
        """Remove a ticket whose job is gone, and hand on; see `JobGate.drop`."""
        return self._face.withdraw(ticket, keys or self._desk.keys_of(ticket))

    def sweep(self) -> None:
        """Wake what nobody woke. An outage is logged once, and raised."""
        try:
            self._face.sweep()
        except StoreError as error:
            self._outage.began(error)
            raise
        self._outage.over()

    def close(self) -> None:
        """Hear no more notices; a store that was made from a URL is closed."""
        engine = self._engine
        unlisten(engine.store, self._face, self._desk, self._wake)
        if engine.owns_store and not engine.closed:
            engine.closed = True
            self._face.close()
