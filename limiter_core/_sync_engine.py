"""The engine of `SyncLimiter`: carries out, in a thread, what `_call` decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from logging import DEBUG

from limiter_core._call import Call, could_not_release, is_in_doubt, logger
from limiter_core._collected import has_work
from limiter_core._engine import (
    CLOSING_PATIENCE,
    Engine,
    OnStoreError,
)
from limiter_core._held_calls import check_self_deadlock, check_until, demands_held_already
from limiter_core._long_waits import look_now
from limiter_core._observers import Observer, of_process, release_later
from limiter_core._patience import patience, without_frames
from limiter_core._prepare import (
    Arguments,
    Limits,
    check_limits,
    demands_of,
    fixed_demand,
    run_now,
    terms_of,
    view_of,
)
from limiter_core._store_methods import (
    bounded_inspect,
    methods_in_background,
    release_of_jobs,
)
from limiter_core._sync_calls import SyncCall
from limiter_core.errors import LimiterError, StoreError, StoreUnavailable
from limiter_core.lease import SyncLease
from limiter_core.limits import ConcurrencyLimit
from limiter_core.requests import Answer, Demand, Granted, Mode, Queued
from limiter_core.store import Store
from limiter_core.system_clock import system_clock as time


class SyncEngine(Engine):
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
        self.face = self.store.sync_face()
        self._abandon, self.let_expire = methods_in_background(self.face)
        self._release_claim = release_of_jobs(self.face)

    def take(
        self, limits: Limits, arguments: Arguments, timeout: float | None, mode: Mode
    ) -> SyncCall:
        """Get the slots, waiting for them if need be, or raise and leave nothing behind."""
        observed = None
        if of_process.observers.registered or self.registrations or logger.isEnabledFor(DEBUG):
            observed = self.observed_call(limits, arguments, self.face.now)
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
                demands = run_now(demands_of(check_limits(limits), view_of(arguments)))
                terms = terms_of(limits, timeout)
            call = SyncCall(terms, self.face.now)
            request = self.prepare(call, demands, terms, mode)
            if observed is not None:
                call.observed = observed
                observed.describe(request)
            around = self.calls_around(call) if self._holding else ()
            held_already: Sequence[tuple[Demand, int]] = ()
            if around and mode is Mode.WAIT:
                held_already = demands_held_already(request, around)
            deadline = request.deadline
            try:
                try:
                    answer = (
                        self._ask_without_effects(call, held_already)
                        if held_already
                        else self._ask(call)
                    )
                    if not isinstance(answer, Granted) or (call.ends_at and call.came_late()):
                        self._wait(call, answer, deadline, around)
                    # A process that stood still reads of a grant when its lease is over.
                    if call.loss is not None or (call.ends_at is not None and call.is_lost()):
                        raise call.loss_error()
                except LimiterError as error:
                    if not is_in_doubt(error):
                        self.release_call(call)
                        raise
                    if not self.admits_in_doubt(call, error):
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

    def lease(
        self, limits: Limits, arguments: Arguments, timeout: float | None, mode: Mode
    ) -> SyncLease:
        """Get the slots; the caller releases the lease."""
        call: SyncCall | None = None
        try:
            call = self.take(limits, arguments, timeout, mode)
            return SyncLease(call, self)
        except BaseException:
            if call is not None:
                self.abandon(call)
            raise

    def _wait(
        self,
        call: SyncCall,
        answer: Answer | StoreUnavailable,
        deadline: float | None,
        around: Sequence[Call],
    ) -> None:
        """Wait until the slots are granted."""
        self.begin_waiting(call)
        while not isinstance(answer, Granted) or call.came_late():
            if isinstance(answer, Granted):
                answer = self._ask(call)
                continue
            seconds = patience(call, answer, deadline, around, self.advice)
            if call.observed is not None and isinstance(answer, Queued):
                call.observed.queued(answer)
            call.wait_for_news(seconds)
            if self.closed:
                self.check_waiting()
            delivered = call.take_delivery()
            if delivered is not None:
                answer = delivered
            else:
                if call.rings is not None:
                    call.rings.announce(call, call.now())
                answer = self._ask(call)
                if call.now() >= call.look_at:
                    look_now(call, answer, self.face)
        self.end_waiting(call)

    def _ask_without_effects(
        self, call: SyncCall, held_already: Sequence[tuple[Demand, int]]
    ) -> Answer | StoreUnavailable:
        """Ask for slots of keys of which the caller holds some already.

        First without effects on others, since a call that waits for itself is to be refused
        before it has superseded or preempted others.
        """
        request, asked_at = call.request, call.now()
        call.request = request._replace(mode=Mode.TRY)
        answer = self._ask(call)
        call.request = request
        if isinstance(answer, Granted | StoreUnavailable):
            return answer
        inspect, until = bounded_inspect(self.face), check_until(call, asked_at)
        for demand, held in held_already:
            try:
                state = inspect(demand.key, until)
            except StoreError:
                break  # without an answer in time it is not refused
            check_self_deadlock(demand, held, state)
        return self._ask(call)

    def _ask(self, call: SyncCall) -> Answer | StoreUnavailable:
        call.clear_news()
        if call.order is not None:  # keep the place in line, whatever happened to the ticket
            call.request = call.request._replace(order=call.order)
        sent_at = call.now()
        try:
            answer = self.face.acquire(call.request)
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

    def close_and_wait(self) -> None:
        """Close, and wait until the waiters have left, and what was collected is released."""
        self.close()
        until = time.monotonic() + CLOSING_PATIENCE
        while (self.waiting or has_work()) and time.monotonic() < until:
            time.sleep(0.005)

    def release_call(self, call: Call) -> None:
        """Release, once. Closed locally first: what the store answers later is not a loss."""
        try:
            if call.closed and not call.forgotten:
                return
            if self.must_release_later():
                self.release_later(call)
                return
            call.closed = True
            call.watch = None
            if call.granted_at is not None:
                self.note_hold(call, call.granted_at)
            if call.block:
                self.ended(call)
            if not call.settled:
                if call.request.claimant:
                    self._release_claim(call.id, call.keys, call.request.claimant)
                else:
                    self.face.release(call.id, call.keys)
                call.settle()
        except StoreError as error:
            self.abandon(call)
            could_not_release(call, error)
        except BaseException:
            self.abandon(call)
            raise
        finally:
            if call.observed is not None:
                call.observed.released()

    def release_later(self, call: Call) -> None:
        """Have a call released in the background, by code that the garbage collector called."""
        # As of a collected lease, which it is; but its code has ended, so it is released.
        call.closed = call.forgotten = True
        release_later(partial(self.release_call, call))

    def abandon(self, call: Call) -> None:
        """Give back without waiting; whatever was done of it before an exception was thrown in."""
        self.waiting.discard(call)  # first: else it is kept for ever if this is interrupted, too
        call.closed = True
        call.watch = None
        if self.must_release_later():
            release_later(partial(self.abandon, call))
            return
        self.ended(call)
        if not call.settled:
            self._abandon(call.id, call.keys, call.request.claimant)
            call.settle()
        if call.observed is not None:
            call.observed.released()
