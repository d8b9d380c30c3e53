"""What both gates for job queues share, without I/O: tickets, outcomes, routing of notices."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from limiter_core._names import name_at
from limiter_core._prepare import Limits, view_of
from limiter_core._refusals import refusal_error
from limiter_core.arguments import ArgumentView
from limiter_core.errors import LeaseLost, WaitTimeout
from limiter_core.keys import bounded
from limiter_core.lease import Lease, SyncLease
from limiter_core.outage import Outage
from limiter_core.requests import (
    Answer,
    Demand,
    Held,
    Loss,
    Mode,
    Notice,
    Queued,
    Refusal,
    Refused,
    Replaced,
    Request,
)
from limiter_core.store import Store
from limiter_core.tracing import Headers, trace_headers

logger = logging.getLogger("limiter")

MAX_NAME_LENGTH = 500
"""Characters of a ticket, and of a gate's name, at the most."""

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
