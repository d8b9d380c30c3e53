"""What observers are sent of one call: one outcome, and one end for a grant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

from limiter_core import events
from limiter_core._collected import is_collecting, notify_later
from limiter_core._event_sender import EventSender
from limiter_core._names import counted_name, counted_names
from limiter_core._observers import (
    ObserverSet,
    Registration,
    Waits,
    begin_waits,
    end_waits,
    of_process,
)
from limiter_core.errors import LimiterError, LimitReached, Superseded
from limiter_core.events import Event, RefusedReason
from limiter_core.limits import ConcurrencyLimit
from limiter_core.requests import Demand, Granted, Loss, Request
from limiter_core.tracing import Headers, split_label


class QueuedAnswer(Protocol):
    """The part of the answer to a call that waits, or to a job, which matters here."""

    @property
    def key(self) -> str: ...
    @property
    def max_concurrent(self) -> int: ...
    @property
    def in_use(self) -> int: ...
    @property
    def blocker(self) -> str: ...


class BegunCall(Protocol):
    """The part of a call that matters here."""

    granted: Granted | None
    waited: float
    loss: Loss | None


class ObservedCall(EventSender):
    """One call, or one delivery of a job, as its observers see it.

    Args:
        observers: the observers.
        now: the clock of the call.
        function: the full name of the function, if it is known.
        adapter: the framework that runs the job.
        limits: what it asks for; checked later, so it may be anything.
        is_job: whether it is a delivery of a job: its wait may end in another process.
        headers: those of the job's message: its events are sent in the trace that they have.
    """

    __slots__ = (
        "_adapter",
        "_began",
        "_demands",
        "_end",
        "_fields",
        "_function",
        "_granted_at",
        "_id",
        "_is_job",
        "_label",
        "_limits",
        "_names",
        "_now",
        "_outcome",
        "_queued",
        "_waits",
    )

    _queued: events.Queued | None
    """Of a call that waits, so that the event is collected with it: see `Queued`."""
    _end: list[None]
    _id: str
    _label: str

    def __init__(
        self,
        observers: ObserverSet,
        now: Callable[[], float],
        function: str | None,
        adapter: str | None,
        limits: object,
        *,
        is_job: bool = False,
        headers: Headers | None = None,
    ) -> None:
        self._observers = observers
        self._headers = headers
        self._forks = of_process.forks
        self._now = now
        self._function = function
        self._adapter = adapter
        self._limits = limits
        self._is_job = is_job
        self._outcome = [None]
        self._demands: tuple[Demand, ...] = ()
        self._fields: dict[str, Any] | None = None
        self._waits: Waits = ()
        self._names: tuple[str, ...] = ()
        self._began: float | None = None
        self._queued = self._pending = self._late = None
        self._granted_at: float | None = None

    def describe(self, request: Request) -> None:
        """Note the request, once it is known; not itself, since it refers to the call."""
        self._id = request.id
        self._label = request.label
        demands = request.demands
        if len(demands) == 1:
            self._names = counted_names(demands[0].name)
        else:
            self._names = tuple(counted_name(demand.name) for demand in demands)
        self._demands = demands  # last: an event has all of these, or none

    def describe_ticket(self, ticket: str, limits: Sequence[tuple[str, str]]) -> None:
        """Note what is known of a job that waited, and was not delivered in this process.

        Args:
            ticket: names its attempt.
            limits: its keys, each with the name of its limit or an empty text.
        """
        self._fields = {
            "id": ticket,
            "names": tuple(counted_name(name) for _, name in limits if name),
            "keys": tuple(key for key, _ in limits),
            "function": self._function,
            "adapter": self._adapter,
            "is_job": self._is_job,
        }

    def _common(self) -> dict[str, Any]:
        """Return the fields that all its events have."""
        fields = self._fields
        if fields is not None:
            return fields
        demands = self._demands
        if not demands:  # the call failed before its keys were known
            limits = self._limits
            given = cast("Sequence[object]", limits if isinstance(limits, Sequence) else (limits,))
            named = [each for each in given if isinstance(each, ConcurrencyLimit)]
            return {
                "names": tuple(counted_name(each.name_for(self._function)) for each in named),
                "function": self._function,
                "adapter": self._adapter,
                "is_job": self._is_job,
            }
        costs = tuple(demand.cost for demand in demands)
        fields = self._fields = {
            "id": self._id,
            "names": self._names,
            "keys": tuple(demand.key for demand in demands),
            "function": self._function,
            "cost": max(costs),
            "costs": costs,
            "adapter": self._adapter,
            "is_job": self._is_job,
            "label": split_label(self._label)[0],
        }
        return fields

    def note_wait(self, seconds: float) -> None:
        """Note for how long a job waited before this delivery of it."""
        if self._began is None:
            self._began = self._now() - seconds

    def queued(self, answer: QueuedAnswer) -> None:
        """Send that it waits from now on; once."""
        if self._began is not None:
            return
        self._began = self._now()
        observers: Sequence[Registration] = self._observers.registered
        if self._observers.counters and not self._is_job:
            name = self._names[0] if len(self._names) == 1 else self._name_of(answer.key)
            self._waits, observers = begin_waits(observers, name, self._adapter)
        if observers:
            waits = events.Queued(
                **self._common(),
                key=answer.key,
                max_concurrent=answer.max_concurrent,
                in_use=answer.in_use,
                blocker=split_label(answer.blocker)[1],
            )
            if not self._is_job:
                self._queued = waits
            self._send_to(observers, waits)

    def _name_of(self, key: str) -> str:
        """Return the name of the limit that demands slots of a key; of the first if none does."""
        keys = [demand.key for demand in self._demands]
        return self._names[keys.index(key) if key in keys else 0]

    def waiting_for_each_other(self, ring: tuple[str, ...], ring_keys: tuple[str, ...]) -> None:
        """Send that it is in a ring of calls that wait for each other."""
        self._send(events.WaitingForEachOther(**self._common(), ring=ring, ring_keys=ring_keys))

    # -- the outcome -------------------------------------------------------------------------------

    def begun(self, call: BegunCall) -> None:
        """Send that the call runs: it was granted its slots, or admitted without. Once.

        Args:
            call: what is known of the call. Its loss may be reported at any time; one that came
                before the grant was sent is sent now.
        """
        try:
            self._outcome.pop()
        except IndexError:  # as in `_claim`, which costs one more call of Python's
            return
        if self._forks != of_process.forks:
            return
        waits = self._waits
        if waits:
            end_waits(waits)
        if call.granted is None:
            self._send(events.AdmittedWithoutStore(**self._common(), waited=self.waited))
            return
        counters: Sequence[Registration]
        observers: Sequence[Registration]
        if self._began is None and not call.waited:
            counters, observers = self._observers.counters, self._observers.others
        else:
            counters = [counter for counter, _ in waits]
            observers = self._observers.registered
            if counters:
                observers = [each for each in observers if each not in counters]
        granted_at = self._now()
        self._end = [None]
        try:
            for each in counters:
                each.count_grant(self._names, self._adapter)
            if observers:
                self._send_to(observers, events.Granted(**self._common(), waited=call.waited))
        finally:  # whatever interrupted an observer, the end is to follow
            self._granted_at = granted_at
            if self._queued is not None and not self._late:
                self._queued = None
        if call.loss is not None:
            self._lost_before(call.loss)

    def _lost_before(self, loss: Loss) -> None:
        """Send a loss that came before the grant was sent."""
        if loss is Loss.PREEMPTED:
            self.preempted(None)
        else:
            self.lost(loss, None)

    def ended(self, error: BaseException) -> None:
        """Send the outcome that an error stands for, unless there was one."""
        waited = self.waited
        reason = refused_reason(error)
        if reason is not None:
            outcome: Event = events.Refused(**self._common(), reason=reason, waited=waited)
        elif isinstance(error, LimiterError) or (
            isinstance(error, Exception) and not self._demands and self._fields is None
        ):
            outcome = events.Failed(**self._common(), error=error, waited=waited)
        else:
            outcome = events.Cancelled(**self._common(), waited=waited)
        self._send_outcome(outcome)

    def cancelled(self) -> None:
        """Send that the caller left the queue."""
        self._send_outcome(events.Cancelled(**self._common(), waited=self.waited))

    # -- the end -----------------------------------------------------------------------------------

    def preempted(self, later: Callable[[Callable[[], object]], object] | None) -> None:
        """Send that a newer call asked for the slot.

        Args:
            later: has a function called where an observer may be called; None: that is here.
        """
        if self._granted_at is not None and self._end and self._claim(self._once("preempted")):
            self._report(events.Preempted(**self._common()), later)

    def lost(
        self, loss: Loss | None, later: Callable[[Callable[[], object]], object] | None
    ) -> None:
        """Send that the slots are gone, unless they were released, or the grant was not sent yet.

        Args:
            loss: why; None: the lease object was collected.
            later: as for `preempted`.
        """
        if self._granted_at is not None and self._claim(self._end):
            self._report(events.Lost(**self._common(), reason=loss, held=self._held()), later)

    def released(self) -> None:
        """Send that the slots were released, unless they were lost, or the grant was not sent."""
        if self._granted_at is not None:
            try:
                self._end.pop()
            except IndexError:  # as in `_claim`
                return
            if self._forks != of_process.forks:
                return
            if self._pending:
                self._flush()
            held = self._now() - self._granted_at
            if held < 0.0:  # noqa: PLR1730  (`max` takes ten times as long)
                held = 0.0
            observers = self._observers
            for each in observers.counters:
                if is_collecting():  # it may have interrupted code with a lock that a counter takes
                    notify_later(partial(each.count_release, self._names, self._adapter, held))
                else:
                    each.count_release(self._names, self._adapter, held)
            if observers.others:
                end = events.Released(**self._common(), held=held)
                self._send_to(observers.others, end)

    # -- sending -----------------------------------------------------------------------------------

    @property
    def waited(self) -> float:
        """Seconds since it began to wait; 0 if it did not."""
        return 0.0 if self._began is None else max(0.0, self._now() - self._began)

    def _held(self) -> float:
        assert self._granted_at is not None
        return max(0.0, self._now() - self._granted_at)

    def _send_outcome(self, event: Event) -> None:
        if self._claim(self._outcome):
            end_waits(self._waits)
            self._send(event)
            if not self._late:
                self._queued = None


def refused_reason(error: BaseException) -> RefusedReason | None:
    """Return why a call was refused, None if an error is no refusal."""
    if isinstance(error, LimitReached | Superseded):
        return RefusedReason(error.reason)
    return None
