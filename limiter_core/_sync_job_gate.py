"""The gate for job queues of threaded frameworks; see `jobs`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from limiter_core._engine import OnStoreError
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
    is_over,
    is_parked,
    look_request,
    outage_of_gate,
)
from limiter_core._notice_router import subscribe, unsubscribe
from limiter_core._observed_call import ObservedCall
from limiter_core._prepare import check_limits, demands_of, run_now, terms_of
from limiter_core._refusals import wait_timeout
from limiter_core._sync_calls import SyncCall
from limiter_core._sync_engine import SyncEngine
from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.lease import SyncLease
from limiter_core.requests import Answer, Granted, Held, Request
from limiter_core.store import Store
from limiter_core.system_clock import system_clock as time


class _JobCall(LossCallback, SyncCall):
    """A job that runs, under a worker's thread or process."""


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
        adapter: str | None = None,
    ) -> None:
        self._engine = SyncEngine(store, on_store_error=on_store_error, label=label)
        self._face = self._engine.face
        self._state = GateState(name, claim)
        self._wake = wake
        self._events = JobEvents(adapter or name.partition(":")[0], self._face.now)
        self._outage = outage_of_gate(name, self._engine.store, admits=on_store_error == "admit")
        subscribe(self._engine.store, self._face, self._state, wake)

    @property
    def store(self) -> Store:
        """The store behind the gate."""
        return self._engine.store

    def admit(
        self, job: Job, on_lost: OnLost | None = None, *, confirmed: bool = True
    ) -> SyncLease | Waiting | Held:
        """Ask for the slots of a job that was just delivered; see `JobGate.admit`."""
        observed = self._events.of(job)
        try:
            outcome = self._admit(job, on_lost, observed)
        except BaseException as error:
            self._events.ended(observed, job.ticket, error)
            raise
        if confirmed:
            self._events.confirmed(outcome)
        return outcome

    def confirm(self, outcome: SyncLease | Waiting) -> None:
        """Send the events of what `admit` returned with `confirmed=False`; see `JobGate`."""
        self._events.confirmed(outcome)

    def _admit(
        self, job: Job, on_lost: OnLost | None, observed: ObservedCall | None
    ) -> SyncLease | Waiting | Held:
        engine = self._engine
        limits = check_limits(job.limits)
        demands = job.demands or run_now(demands_of(limits, job.arguments))
        terms = terms_of(limits, None)
        call = _JobCall(terms, self._face.now)
        request = self._state.request(job, demands, terms, engine.label, call)
        call.id, call.demands, call.request = request.id, demands, request
        call.observed = observed
        if observed is not None:
            observed.describe(request)
        try:
            outcome = self._state.outcome(
                request, self._ask(request, call, job), terms, time.time()
            )
            if isinstance(outcome, Waiting) and outcome.patience is not None:
                if outcome.patience <= 0:
                    self._face.withdraw(request.id, outcome.keys)
                    if observed is not None and terms.timeout is not None:
                        observed.note_wait(terms.timeout - outcome.patience)
                    raise wait_timeout(demands, outcome, self._state.advice, time.time())
        except StoreUnavailable as error:
            call.settled = True
            if not engine.admits(error, call.keys[0]):
                raise
            return SyncLease(call, engine)
        if isinstance(outcome, Granted):
            call.set_on_lost(on_lost)
            call.waited = outcome.waited or 0.0
            return SyncLease(call, engine)
        return outcome

    def _ask(self, request: Request, call: _JobCall, job: Job) -> Answer:
        try:
            if earlier := earlier_request(request, job.keys):
                answer = self._face.acquire(earlier)
                if not is_over(answer) and not self._face.withdraw(request.id, job.keys):
                    answer = self._face.acquire(earlier)  # it may have begun meanwhile
                if is_over(answer):
                    return answer
            sent_at = call.now()
            answer = self._face.acquire(request)
            if isinstance(answer, Granted):
                call.grant(answer, sent_at)
                call.granted_at = sent_at
        except StoreError as error:
            self._outage.began(error, call.keys[0])
            raise
        self._outage.over(call.keys[0])
        return answer

    def handed_over(self, waiting: Waiting) -> bool:
        """Look whether the slot was handed over while the job was parked; see `JobGate`."""
        return not is_parked(self._face.acquire(look_request(waiting)))

    def drop(
        self,
        ticket: str,
        keys: tuple[str, ...] = (),
        *,
        error: Exception | None = None,
        function: str | None = None,
    ) -> bool:
        """Remove a ticket whose job is gone, and hand on; see `JobGate.drop`."""
        ticket = bounded_ticket(ticket)
        limits = self._state.limits_of(ticket, keys)
        if self._events.lack_names(limits):
            limits = tuple((key, name or self._face.inspect(key).name) for key, name in limits)
        removed = self._face.withdraw(ticket, [key for key, _ in limits])
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

    def looked_up(self, job: Job) -> Job:
        """Return a job with what its limits demand: `admit` asks for that, whenever it is called.

        Raises what `admit` would raise of its strategies.
        """
        return replace(job, demands=run_now(demands_of(check_limits(job.limits), job.arguments)))

    def take_back(self, outcome: SyncLease | Waiting) -> None:
        """Give back what `admit` returned with `confirmed=False`, and send nothing."""
        if isinstance(outcome, Waiting):
            self._face.withdraw(outcome.request.id, outcome.keys)
        else:
            outcome.release()

    def sweep(self) -> None:
        """Wake overlooked jobs; see `JobGate.sweep`. An outage is raised, and logged once."""
        state = self._state
        try:
            self._face.sweep(state.presence()) if state.sends_presence else self._face.sweep()
        except StoreError as error:
            self._outage.began(error)
            raise
        self._outage.over()

    def arrive(self) -> None:
        """Fetch jobs again; see `JobGate.arrive`."""
        self._state.fetches = True

    def leave(self) -> None:
        """Fetch no more jobs; see `JobGate.leave`."""
        self._state.fetches = False
        if self._state.was_present and self._state.sends_presence:
            with suppress(StoreError):
                self._face.sweep(self._state.presence())
                self._state.was_present = False

    def close(self) -> None:
        """Unsubscribe from notices; a store that was made from a URL is closed."""
        engine = self._engine
        self.leave()
        unsubscribe(engine.store, self._face, self._state, self._wake)
        if engine.owns_store and not engine.closed:
            engine.closed = True
            self._face.close()
