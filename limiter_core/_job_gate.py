"""The gate for job queues of asyncio frameworks; see `jobs`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from inspect import iscoroutinefunction as is_async
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from limiter_core._async_engine import AsyncEngine
from limiter_core._async_releases import RELEASE_PATIENCE
from limiter_core._asyncio_calls import AsyncioCall
from limiter_core._background import BackgroundTasks
from limiter_core._engine import OnStoreError
from limiter_core._gate_presence import GatePresence
from limiter_core._gate_state import GateState
from limiter_core._job_events import JobEvents
from limiter_core._job_parts import (
    CLAIM,
    Job,
    LossCallback,
    OnLost,
    Waiting,
    Wake,
    bounded_ticket,
    earlier_request,
    error_of,
    is_over,
    is_parked,
    look_request,
    outage_of_gate,
)
from limiter_core._notice_router import subscribe, unsubscribe
from limiter_core._observed_call import ObservedCall
from limiter_core._prepare import check_limits, demands_of, run_async, terms_of
from limiter_core._refusals import wait_timeout
from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.lease import Lease
from limiter_core.requests import Answer, Granted, Held, Notice, Request
from limiter_core.store import Store
from limiter_core.system_clock import system_clock as time

R = TypeVar("R")
AsyncWake = Callable[[Notice], Awaitable[bool]]

ANSWER_PATIENCE = RELEASE_PATIENCE * 2
"""Seconds that the store may take to answer a job's request; then it counts as unavailable."""

CLOSE_PATIENCE = 5.0
"""Seconds that jobs which are being woken may take when the gate is closed."""


class _JobCall(LossCallback, AsyncioCall):
    """A job that runs, in an event loop."""

    def look_again(self, answer: Answer | None = None) -> bool:  # noqa: ARG002
        """Do nothing: a job is woken by its queue. Says whether its event loop is still there."""
        return self.granted is not None or self.is_there()

    def interrupt(self) -> None:
        """Have the adapter stop the body, in its event loop."""
        self.in_loop(super().interrupt)


class JobGate(GatePresence):
    """Admits the jobs of one queue; for adapters of asyncio frameworks.

    As a context manager it sweeps in the background, and is closed at the end.

    Args:
        store: a store, or its URL.
        name: of the workers that can wake these jobs, such as `"docket:shop"`. Workers with the
            same name wake each other's jobs.
        wake: called with each notice of a job of this name. A function is called from any thread. A
            coroutine function runs in the event loop in which the gate was made or entered, one
            notice after the other, and returns whether there is such a job; if not, its ticket is
            dropped.
        claim: seconds that a woken job has to come for its slot.
        on_store_error: what `admit` does when the store cannot be reached: "raise", or "admit".
        label: names the holders and waiters in `inspect`.
        owns_store: whether closing the gate closes the store; so it does if that is a URL.
        fetches: whether this worker fetches jobs from the start, or only from `arrive` on.
        family: what begins the names of gates whose jobs `wake` can wake as well; whether they are
            served depends on their own workers all the same.
        adapter: the framework that runs the jobs, as events name it; default what stands before
            the colon in `name`.

    Raises:
        ConfigurationError: no installed store knows the URL, or the name is none.
    """

    def __init__(
        self,
        store: str | Store,
        name: str,
        wake: Wake | AsyncWake,
        *,
        claim: float = CLAIM,
        on_store_error: OnStoreError = "raise",
        label: str | None = None,
        owns_store: bool = False,
        fetches: bool = True,
        family: str | None = None,
        adapter: str | None = None,
    ) -> None:
        super().__init__()
        self._engine = AsyncEngine(store, on_store_error=on_store_error, label=label)
        self._face = self._engine.face
        self._state = GateState(name, claim, family)
        self._state.fetches = fetches
        self._engine.owns_store |= owns_store
        self._background = BackgroundTasks()
        self._wake_lock = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None
        self._wake: Wake = self._one_at_a_time(wake) if is_async(wake) else cast(Wake, wake)
        self._events = JobEvents(adapter or name.partition(":")[0], self._face.now)
        self._outage = outage_of_gate(name, self._engine.store, admits=on_store_error == "admit")
        subscribe(self._engine.store, self._face, self._state, self._wake)

    @property
    def store(self) -> Store:
        """The store behind the gate."""
        return self._engine.store

    async def admit(
        self, job: Job, on_lost: OnLost | None = None, *, confirmed: bool = True
    ) -> Lease | Waiting | Held:
        """Ask for the slots of a job that was just delivered.

        Safe from cancellation: a grant without a caller is released, a ticket stays.

        Args:
            job: the delivery.
            on_lost: called, in this event loop, when the lease is lost and the limit's `on_lost` is
                "cancel"; the adapter stops the body in its framework's way.
            confirmed: whether a grant, or a place in line, counts as the outcome of the job at
                once. False: from `confirm` on; for an adapter that may give it back unused.

        Returns:
            A lease: run the body, then `release` it, however the body ends. `Waiting`: park it.
            `Held`: another delivery of this attempt runs; come again when its lease may be over.

        Raises:
            LimitReached: refused: full under `CANCEL`, `QueueFull`, or `WaitTimeout`.
            Superseded: a newer job took its place.
            KeyDerivationError, ConfigurationError: the job can never be admitted.
            StoreError: the store could not be used; keep the job, and ask again.
        """
        observed = self._events.of(job)
        try:
            outcome = await self._admit(job, on_lost, observed)
        except BaseException as error:
            self._events.ended(observed, job.ticket, error)
            raise
        if confirmed:
            self._events.confirmed(outcome)
        return outcome

    def confirm(self, outcome: Lease | Waiting) -> None:
        """Send the events of what `admit` returned with `confirmed=False`; again does nothing.

        A lease that is released before sends none: the job is delivered again, or has run already.
        """
        self._events.confirmed(outcome)

    async def _admit(
        self, job: Job, on_lost: OnLost | None, observed: ObservedCall | None
    ) -> Lease | Waiting | Held:
        engine = self._engine
        limits = check_limits(job.limits)
        demands = job.demands or await run_async(demands_of(limits, job.arguments))
        terms = terms_of(limits, None)
        call = _JobCall(asyncio.current_task(), terms, self._face.now, asyncio.get_running_loop())
        before = self._state.remembered(job.ticket)
        request = self._state.request(job, demands, terms, engine.label, call)
        call.id, call.demands, call.request = request.id, demands, request
        call.observed = observed
        if observed is not None:
            observed.describe(request)
        try:
            outcome = self._state.outcome(
                request, await self._ask(request, call, job, before), terms, time.time()
            )
            if isinstance(outcome, Waiting) and outcome.patience is not None:
                if outcome.patience <= 0:
                    with suppress(StoreError):  # else it is dropped when it is offered a slot
                        await self._face.withdraw(request.id, outcome.keys)
                    if observed is not None and terms.timeout is not None:
                        observed.note_wait(terms.timeout - outcome.patience)
                    raise wait_timeout(demands, outcome, self._state.advice, time.time())
        except StoreUnavailable as error:
            call.settled = True
            if not engine.admits(error, call.keys[0]):
                raise
            return Lease(call, engine)
        if isinstance(outcome, Granted):
            call.set_on_lost(on_lost)
            call.waited = outcome.waited or 0.0
            return Lease(call, engine)
        return outcome

    async def _ask(
        self, request: Request, call: _JobCall, job: Job, before: tuple[tuple[str, str], ...]
    ) -> Answer:
        """Ask, and wait for the answer, even if the caller is cancelled."""
        answer: list[Answer] = []
        keys = job.keys or tuple(key for key, _ in before)

        async def ask() -> None:
            try:
                if earlier := earlier_request(request, keys):
                    # Until it has left them, these are the keys at which it is to be looked for.
                    asked = self._state.remembered(request.id)
                    self._state.remember(request.id, before)
                    found = await self._face.acquire(earlier)
                    if not is_over(found) and not await self._face.withdraw(request.id, keys):
                        found = await self._face.acquire(earlier)  # it may have begun meanwhile
                    if is_over(found):
                        answer.append(found)
                        return
                    self._state.remember(request.id, asked)
                sent_at = call.now()
                answer.append(await self._face.acquire(request))
                if isinstance(answer[0], Granted):
                    call.grant(answer[0], sent_at)
                    call.granted_at = sent_at
            except StoreError as error:
                self._outage.began(error, call.keys[0])
                raise

        try:
            await call.finish(ask(), ANSWER_PATIENCE)
        except asyncio.CancelledError:
            if answer and isinstance(answer[0], Granted):
                await self._engine.release_call(call)
            raise
        except TimeoutError as error:
            raise StoreUnavailable("the store did not answer in time") from error
        self._outage.over(call.keys[0])
        return answer[0]

    async def handed_over(self, waiting: Waiting) -> bool:
        """Look whether the slot was handed over, or refused, while the job was being parked.

        Returns:
            True if the caller has to wake the job: when it asks again it gets the answer.
        """
        answer = await self._face.acquire(look_request(waiting))
        return not is_parked(answer)

    async def drop(
        self,
        ticket: str,
        keys: tuple[str, ...] = (),
        *,
        error: Exception | None = None,
        function: str | None = None,
    ) -> bool:
        """Remove a ticket whose job is gone, and hand on what it was given.

        One that was admitted keeps its lease: only `release` gives that back. Its id is enough;
        if a notice named it, or it was asked for here, it is found at once.

        Args:
            ticket: names the attempt.
            keys: its keys, as far as they are known.
            error: why the job is not to run; None if it was cancelled, or is gone.
            function: the full name of its function, if it is known.

        Returns:
            Whether there was one.
        """
        ticket = bounded_ticket(ticket)
        limits = self._state.limits_of(ticket, keys)
        if self._events.lack_names(limits):  # the store knows what the workers of the job call them
            limits = tuple(
                [(key, name or (await self._face.inspect(key)).name) for key, name in limits]
            )
        removed = await self._face.withdraw(ticket, [key for key, _ in limits])
        self._state.forget(ticket)
        if removed:
            self._events.removed(ticket, limits, error, function)
        return removed

    def report_removed(
        self, ticket: str, error: Exception | None = None, *, function: str | None = None
    ) -> None:
        """Send the outcome of a job that the adapter ended by itself, not by `admit` or `drop`.

        Args:
            ticket: names the attempt.
            error: why it was refused, as `error_of` returns it; None if it was cancelled.
            function: the full name of its function, if it is known.
        """
        ticket = bounded_ticket(ticket)
        self._events.removed(ticket, self._state.limits_of(ticket), error, function)
        self._state.forget(ticket)

    async def take_back(self, outcome: Lease | Waiting) -> None:
        """Give back what `admit` returned with `confirmed=False`, and send nothing."""
        if isinstance(outcome, Waiting):
            await self._face.withdraw(outcome.request.id, outcome.keys)
        else:
            await outcome.release()

    async def __aenter__(self) -> Self:
        """Sweep from now on."""
        self._sweeper = self._background.begin(self.keep_sweeping())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the gate."""
        await self.aclose()

    def _one_at_a_time(self, wake: AsyncWake) -> Wake:
        async def woken(notice: Notice) -> None:
            async with self._wake_lock:  # jobs come in the order in which they were served
                if await wake(notice):
                    return
            error = error_of(notice)
            if not await self.drop(notice.id) and error is not None:
                self._events.removed(bounded_ticket(notice.id), notice.limits, error)

        return lambda notice: self._background.begin_soon(lambda: woken(notice))

    async def finish(self, work: Coroutine[Any, Any, R]) -> R:
        """Do some work to its end even if the caller is cancelled; closing waits for it."""
        return await self._background.finish(work)

    async def aclose(self) -> None:
        """Wake the jobs that were granted, then unsubscribe; close a store that the gate owns."""
        engine = self._engine
        try:
            if self._sweeper is not None:
                self._sweeper.cancel()
                await asyncio.gather(self._sweeper, return_exceptions=True)
            await self.leave()
            await self._background.done(CLOSE_PATIENCE)
        finally:
            unsubscribe(engine.store, self._face, self._state, self._wake)
        if engine.owns_store and not engine.closed:
            engine.closed = True
            await self._face.aclose()
