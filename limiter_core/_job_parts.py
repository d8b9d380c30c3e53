"""What both gates for job queues share, without I/O: tickets, outcomes, routing of notices."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from limiter_core._checks import check_seconds, short_label
from limiter_core._identity import new_id
from limiter_core._names import name_at
from limiter_core._packed_limits import packed_limits
from limiter_core._prepare import Limits, view_of
from limiter_core._refusals import refusal_error
from limiter_core._retry_advice import RetryAdvice
from limiter_core.arguments import ArgumentView
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError, LeaseLost, WaitTimeout
from limiter_core.keys import bounded
from limiter_core.lease import Lease, SyncLease
from limiter_core.limits import Terms
from limiter_core.outage import Outage
from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    Held,
    Listener,
    Loss,
    Mode,
    Notice,
    Presence,
    Queued,
    Refusal,
    Refused,
    Replaced,
    Request,
)
from limiter_core.store import Store
from limiter_core.tracing import Headers, in_trace_of, trace_headers, with_trace

logger = logging.getLogger("limiter")

MAX_NAME_LENGTH = 500
"""Characters of a ticket, and of a gate's name, at the most."""

REMEMBERED = 10_000
"""Tickets of which a gate remembers a key."""

CLAIM = 30.0
"""Seconds that a woken job has to reach a worker: more than a poll and a backlog take."""

Wake = Callable[[Notice], object]
OnLost = Callable[[Loss], object]


@dataclass(frozen=True, slots=True)
class Job:
    """One delivery of a job, as a queue hands it to a worker.

    Attributes:
        ticket: names one *attempt* of the job. A redelivery of the attempt has the same; a retry,
            or the next run of a repeated job, another, or it would find the lease of the run
            before it. The tail of one with more than `MAX_NAME_LENGTH` characters is replaced by a
            digest: that is what notices name.
        limits: the limits of the job's function.
        arguments: what their strategies look at; of a mapping of names to values the view is made.
        payload: all that is needed to wake the job later, or the job itself.
        order: the place in line: when the job was enqueued, in microseconds since the epoch; None
            for "now".
        label: names the holder or waiter in `inspect`.
        headers: those of its message; of them is kept what may have the trace of its producer.
        keys: those on which it waited, or was granted, as far as the adapter knows. If its limits
            have others by now, the job leaves the old ones.
        demands: what its limits demand, if that was looked up before; see `SyncJobGate.looked_up`.
    """

    ticket: str
    limits: Limits
    arguments: ArgumentView
    payload: bytes = b""
    order: int | None = None
    label: str = ""
    headers: Headers | None = field(default=None, repr=False, compare=False)
    keys: tuple[str, ...] = ()
    demands: tuple[Demand, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Bound what users may give: many queues take ids from them, and all take headers.

        Raises:
            ConfigurationError: the arguments are no mapping.
        """
        object.__setattr__(self, "arguments", view_of(self.arguments))
        object.__setattr__(self, "headers", trace_headers(self.headers))
        if len(self.ticket) > MAX_NAME_LENGTH:
            object.__setattr__(self, "ticket", bounded_ticket(self.ticket))


def bounded_ticket(ticket: str) -> str:
    """Return a ticket as stores know it."""
    return bounded(ticket, MAX_NAME_LENGTH)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The job has a ticket: its queue parks it until it is woken, and then asks again.

    Attributes:
        request: what the store was asked.
        key: the key on which the ticket waits.
        max_concurrent: the limit in force there, 0 while the key is paused.
        in_use: the slots in use there.
        patience: seconds until the limit's `timeout` is over; None without one.
        blocked_by: all keys that block it; empty if that is `key` alone.
        blocker: as of `Queued`.
    """

    request: Request
    key: str
    max_concurrent: int
    in_use: int
    patience: float | None
    blocked_by: tuple[str, ...] = ()
    blocker: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that it wants slots of; for `drop`."""
        return tuple(demand.key for demand in self.request.demands)


class LossCallback:
    """The part of a `Call` of a job: no caller waits in this process; the adapter gets a loss.

    Mixed into the calls of both worlds.
    """

    loss: Loss | None
    on_lost: Literal["cancel", "warn"]

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._callbacks: list[OnLost] = []

    def set_on_lost(self, on_loss: OnLost | None) -> None:
        """Call the adapter at a loss, once; also at one that came before it had the lease."""
        if on_loss is not None:
            self._callbacks.append(on_loss)
            # In this order: `lease_lost` notes the loss before it looks for a callback.
            if self.loss is not None and self.on_lost == "cancel":
                self.interrupt()

    def look_again(self, answer: Answer | None = None) -> bool:  # noqa: ARG002
        """Do nothing: a job is woken by its queue."""
        return True

    def interrupt(self) -> None:
        """Have the adapter stop the body."""
        try:
            on_loss = self._callbacks.pop()
        except IndexError:  # there is no callback, or not yet, or it was called
            return
        try:
            on_loss(self.loss or Loss.EXPIRED)
        except Exception:  # a listener never raises
            logger.exception("the adapter could not stop a job whose lease is lost")


class GateState:
    """The books of a gate: its name, whether it fetches jobs, and keys of its tickets.

    Attributes:
        name: the workers that can wake these jobs.
        family: what begins the names of other gates whose jobs can be woken here as well.
        claim: seconds that a woken job has to come for its slot.
        fetches: whether this worker fetches jobs, so that those of its name are served.
        was_seen: whether the store may count it as there.
        sends_presence: whether the store takes part: one that was written before `sweep` got a
            presence knows no dormant tickets, and no gate's name but in a payload.
    """

    def __init__(self, name: str, claim: float, family: str | None = None) -> None:
        if not name or "\0" in name:
            raise ConfigurationError(f"a gate needs a name, of one line of text, got {brief(name)}")
        if len(name) > MAX_NAME_LENGTH:
            raise ConfigurationError(
                f"a gate's name has at most {MAX_NAME_LENGTH} characters, got {len(name)}: "
                f"{brief(name)}"
            )
        self.name = name
        self.family = family
        self.advice = RetryAdvice()
        self.fetches = True
        self.was_present = False
        self.sends_presence = True
        self._worker = new_id()
        self.claim = check_seconds(claim, "claim")
        self._limits: OrderedDict[str, tuple[tuple[str, str], ...]] = OrderedDict()
        self._names: OrderedDict[str, str] = OrderedDict()

    def presence(self) -> Presence:
        """Return the presence of this worker for its next step."""
        self.was_present |= self.fetches
        return Presence(self.name, self._worker, leaving=not self.fetches)

    def wakes(self, name: str) -> bool:
        """Whether jobs of a gate's name can be woken here."""
        return name == self.name or bool(self.family and name.startswith(self.family))

    def request(
        self,
        job: Job,
        demands: tuple[Demand, ...],
        terms: Terms,
        label: str,
        listener: Listener,
    ) -> Request:
        """Return the request of a delivery."""
        named = tuple((demand.key, demand.name) for demand in demands)
        payload = packed_limits(named), job.payload
        self.remember(job.ticket, named)
        with in_trace_of(job.headers):
            traced_label = with_trace(short_label(job.label or label))
        return Request(
            id=job.ticket,
            demands=demands,
            lease=terms.lease,
            max_hold=terms.max_hold,
            claim=self.claim,
            order=job.order,
            payload=b"\0".join(payload if self.sends_presence else (self.name.encode(), *payload)),
            # Each delivery is one of its own, so that a second one never shares the slot of the
            # first (S18).
            claimant=new_id(),
            label=traced_label,
            listener=listener,
            presence=self.presence() if self.sends_presence else None,
        )

    def remember(self, ticket: str, limits: tuple[tuple[str, str], ...]) -> None:
        """Note the keys of a ticket, each with the name of its limit.

        A store that has to find it by its id alone has much to do.
        """
        self._limits[ticket] = limits
        if len(self._limits) > REMEMBERED:
            self._limits.popitem(last=False)
        for key, name in limits:
            self._names[key] = name
        while len(self._names) > REMEMBERED:
            self._names.popitem(last=False)

    def remembered(self, ticket: str) -> tuple[tuple[str, str], ...]:
        """Return the keys of a ticket, as this process asked for them last, or was told."""
        return self._limits.get(ticket, ())

    def limits_of(self, ticket: str, keys: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
        """Return what is known of a ticket's keys, each with the name of its limit.

        Args:
            ticket: names the attempt.
            keys: what the caller knows of its keys; their limits may have been seen here.
        """
        known = self.remembered(ticket)
        if keys and {key for key, _ in known} != set(keys):  # another worker asked meanwhile
            return tuple((key, self._names.get(key, "")) for key in keys)
        return known

    def forget(self, ticket: str) -> None:
        """Forget the keys of a ticket that is gone: not before the store has said so."""
        self._limits.pop(ticket, None)

    def outcome(
        self, request: Request, answer: Answer, terms: Terms, now: float
    ) -> Granted | Waiting | Held:
        """Return what follows from an answer.

        Raises:
            LimitReached, Superseded: the job is not to run.
            ConfigurationError: its cost is above its limit.
        """
        if isinstance(answer, Granted | Held):
            return answer
        if isinstance(answer, Queued):
            patience = None if terms.timeout is None else answer.order / 1e6 + terms.timeout - now
            return Waiting(
                request,
                answer.key,
                answer.max_concurrent,
                answer.in_use,
                patience,
                answer.blocked_by,
                answer.blocker,
            )
        raise refusal_error(answer, request.demands, self.advice, now)


def timeout_error(waiting: Waiting) -> WaitTimeout:
    """Return the error of a job whose waiting an adapter ended, since its `timeout` is over."""
    name = name_at(waiting.request.demands, waiting.key)
    slots, in_use = waiting.max_concurrent, waiting.in_use
    return WaitTimeout(waiting.key, slots, in_use, None, name, waiting.blocked_by)


def is_parked(answer: Answer) -> bool:
    """Whether nothing has to be done for a job that was parked meanwhile."""
    return isinstance(answer, Queued | Held)


def look_request(waiting: Waiting) -> Request:
    """Return the request that only looks where a ticket stands."""
    return waiting.request._replace(mode=Mode.LOOK)


def earlier_request(request: Request, keys: tuple[str, ...]) -> Request | None:
    """Return what asks where a ticket stands on the keys that it had; None if it has them still.

    A place that is left there would be offered to the job again and again, and where the two have a
    key in common, the job would wait behind itself.
    """
    if not keys or set(keys) == {demand.key for demand in request.demands}:
        return None
    demands = tuple(Demand(key, 1) for key in keys)
    return request._replace(demands=demands, mode=Mode.LOOK)


def is_over(found: Answer) -> bool:
    """Whether what was found on the keys that a job had is the answer: it runs, or is not to."""
    if isinstance(found, Refused):
        return found.reason is not Refusal.UNKNOWN
    return isinstance(found, Held | Replaced)


def error_of(notice: Notice) -> Exception | None:
    """Return why a job that was noticed is not to run, None if it may claim its slot."""
    if isinstance(notice.answer, Refused | Replaced):
        demands = tuple(Demand(key, 1, name=name) for key, name in notice.limits)
        return refusal_error(notice.answer, demands)
    return None


def loss_text(lease: Lease | SyncLease) -> str:
    """Return why a lease is lost, for the result of its job: the keys, and the reason."""
    try:
        lease.check()
    except LeaseLost as error:
        return str(error)
    return "lost the lease"


def outage_of_gate(name: str, store: Store, *, admits: bool) -> Outage:
    """Return what logs that the store of a gate is unavailable, and that it is back."""
    meanwhile = "run without a slot" if admits else "wait"
    return Outage(
        f"{name}: the store cannot be used, jobs {meanwhile} until it can",
        f"{name}: the store is back",
        repr(store),
    )
