"""The engine of `Limiter`: carries out, in an event loop, what `_call` decides."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from datetime import timedelta
from logging import DEBUG
from typing import Any

import anyio

from limiter_core._async_calls import AsyncCall, Client, ClientGone
from limiter_core._async_releases import AsyncReleases
from limiter_core._call import Call, is_in_doubt
from limiter_core._collected import has_work
from limiter_core._engine import CLOSING_PATIENCE, OnStoreError, logger
from limiter_core._held_calls import check_self_deadlock, check_until, demands_held_already
from limiter_core._long_waits import look
from limiter_core._loop_ticker import TICK, LoopTickers
from limiter_core._observed_call import ObservedCall
from limiter_core._observers import Observer, of_process
from limiter_core._patience import patience, without_frames
from limiter_core._prepare import (
    Arguments,
    Limits,
    check_limits,
    demands_of,
    fixed_demand,
    run_async,
    terms_of,
    view_of,
)
from limiter_core._running_task import new_call
from limiter_core._store_methods import bounded_inspect, methods_in_background, release_of_jobs
from limiter_core.errors import StoreError, StoreUnavailable, WaitTimeout
from limiter_core.lease import Lease
from limiter_core.limits import ConcurrencyLimit
from limiter_core.requests import Answer, Demand, Granted, Mode, Queued
from limiter_core.store import Store, SyncStore


class AsyncEngine(AsyncReleases):
    """Takes slots and gives them back."""

    def __init__(
        self,
        store: str | Store,
        *,
        on_store_error: OnStoreError,
        label: str | None,
        observe: Observer | None = None,
        warn_after: float | timedelta | None = None,
    ) -> None:
        super().__init__(
            store,
            on_store_error=on_store_error,
            label=label,
            observe=observe,
            warn_after=warn_after,
        )
        self.face = self.store.async_face()
        self._abandon, self.let_expire = methods_in_background(self.face)
        self._release_claim = release_of_jobs(self.face)
        # A store that never suspends need not be awaited: that is a quarter of a call's time.
        self._sure_release = self.store.capabilities.sure_release
        self._tickers = LoopTickers(self.waiting)
        self._ticks = self.warn_after is not None and self.warn_after > TICK
        self._direct = None if self.suspends else self.store.sync_face()

    def take(
        self,
        limits: Limits,
        arguments: Arguments,
        timeout: float | None,
        mode: Mode,
        client: Client | None = None,
    ) -> Coroutine[Any, Any, AsyncCall]:
        """Get the slots, waiting for them if need be, or raise and leave nothing behind."""
        observed = None
        if of_process.observers.registered or self.registrations or logger.isEnabledFor(DEBUG):
            observed = self.observed_call(limits, arguments, self.face.now)
        return self._take(limits, arguments, timeout, mode, client, observed=observed)

    async def _take(
        self,
        limits: Limits,
        arguments: Arguments,
        timeout: float | None,
        mode: Mode,
        client: Client | None,
        *,
        observed: ObservedCall | None,
    ) -> AsyncCall:
        try:
            if self.closed:
                self.check_open()
            demands: tuple[Demand, ...]
            if (
                type(limits) is ConcurrencyLimit
                and timeout is None
                and (fixed := limits.fixed) is not None
            ):
                demands, terms = (fixed_demand(fixed, arguments),), fixed.terms
            else:
                demands = await run_async(demands_of(check_limits(limits), view_of(arguments)))
                terms = terms_of(limits, timeout)
            call = new_call(terms, self.face.now)
            request = self.prepare(call, demands, terms, mode)
            if observed is not None:
                call.observed = observed
                observed.describe(request)
            around = self.calls_around(call) if self._holding else ()
            held_already = (
                demands_held_already(request, around) if around and mode is Mode.WAIT else ()
            )
            answer: Answer | StoreUnavailable
            try:
                try:
                    if held_already:
                        answer = await self._ask_without_effects(call, held_already)
                    elif self._direct is not None:
                        answer = self._ask_directly(self._direct, call)
                    else:
                        answer = await self._ask(call)
                    if not isinstance(answer, Granted) or (call.ends_at and call.came_late()):
                        await self._wait(call, answer, request.deadline, around, client)
                    # A process that stood still reads of a grant when its lease is over.
                    if call.loss is not None or (call.ends_at is not None and call.is_lost()):
                        raise call.loss_error()
                except (StoreError, WaitTimeout) as error:
                    if not is_in_doubt(error):
                        await self.release_call(call)
                        raise
                    if not self.admits_in_doubt(call, error):
                        raise
                except BaseException:
                    await self.release_call(call)
                    raise
                if observed is not None:
                    observed.begun(call)
                return call  # noqa: TRY300  (an exception may be thrown in here, too)
            except BaseException:
                self.abandon(call)
                raise
        except BaseException as error:
            if observed is not None:
                observed.ended(error)
            raise

    async def lease(
        self, limits: Limits, arguments: Arguments, timeout: float | None, mode: Mode
    ) -> Lease:
        """Get the slots; the caller releases the lease."""
        call: AsyncCall | None = None
        try:
            call = await self.take(limits, arguments, timeout, mode)
            return Lease(call, self)
        except BaseException:
            if call is not None:
                self.abandon(call)
            raise

    async def _wait(
        self,
        call: AsyncCall,
        answer: Answer | StoreUnavailable,
        deadline: float | None,
        around: Sequence[Call],
        client: Client | None,
    ) -> None:
        """Wait until the slots are granted."""
        self.begin_waiting(call)
        if client is not None and isinstance(answer, Queued | StoreUnavailable):
            client.begin_waiting(call.wake)
        if self._ticks:
            self._tickers.watch(call)
        while not isinstance(answer, Granted) or call.came_late():
            if isinstance(answer, Granted):
                answer = await self._ask(call)
                continue
            seconds = patience(call, answer, deadline, around, self.advice)
            if call.observed is not None and isinstance(answer, Queued):
                call.observed.queued(answer)
            await call.wait_for_news(seconds)
            if self.closed:
                self.check_waiting()
            if client is not None and client.is_gone:
                raise ClientGone
            delivered = call.take_delivery()
            if delivered is not None:
                answer = delivered
            else:
                if call.rings is not None:
                    call.rings.announce(call, call.now())
                answer = await self._ask(call)
                if call.now() >= call.look_at:
                    await look(call, answer, self.face)
        if client is not None:
            if client.is_gone:
                raise ClientGone
            client.end_waiting()
        self.end_waiting(call)

    async def _ask_without_effects(
        self, call: AsyncCall, held_already: Sequence[tuple[Demand, int]]
    ) -> Answer | StoreUnavailable:
        """Ask for slots of keys of which the caller holds some already.

        First without effects on others, since a call that waits for itself is to be refused
        before it has superseded or preempted others.
        """
        request, asked_at = call.request, call.now()
        call.request = request._replace(mode=Mode.TRY)
        answer = await self._ask(call)
        call.request = request
        if isinstance(answer, Granted | StoreUnavailable):
            return answer
        inspect, until = bounded_inspect(self.face), check_until(call, asked_at)
        for demand, held in held_already:
            try:
                state = await inspect(demand.key, until)
            except StoreError:
                break  # without an answer in time it is not refused
            check_self_deadlock(demand, held, state)
        return await self._ask(call)

    def _ask_directly(self, store: SyncStore, call: AsyncCall) -> Answer:
        answer = store.acquire(call.request)
        if isinstance(answer, Granted):
            call.grant(answer)
            self.until_measured -= 1
            if self.until_measured <= 0:
                call.granted_at = call.now()
        return answer

    async def _ask(self, call: AsyncCall) -> Answer | StoreUnavailable:
        call.clear_news()
        if call.order is not None:  # keep the place in line, whatever happened to the ticket
            call.request = call.request._replace(order=call.order)
        sent_at = call.now()
        try:
            answer = await self.face.acquire(call.request)
        except StoreUnavailable as error:
            if self.on_store_error == "admit":
                raise
            if call.request.mode is Mode.WAIT and not call.is_late():
                self.outage.began(error, call.keys[0])
            failure = error
        else:
            if self.outage.since is not None:
                self.outage.over(call.keys[0])
            if isinstance(answer, Granted):
                call.grant(answer, sent_at)
                self.until_measured -= 1
                if self.until_measured <= 0:
                    call.granted_at = sent_at
            return answer
        return without_frames(failure)

    async def close_and_wait(self) -> None:
        """Close, and wait until the waiters have left, and what was collected is released."""
        self.close()
        with anyio.move_on_after(CLOSING_PATIENCE):
            while self.waiting or has_work():  # noqa: ASYNC110  (they may be in other loops)
                await anyio.sleep(0.005)
