"""The state of a gate for job queues: its name, its presence, and the keys of its tickets."""

from __future__ import annotations

from collections import OrderedDict

from limiter_core._checks import check_seconds, short_label
from limiter_core._identity import new_id
from limiter_core._job_parts import MAX_NAME_LENGTH, Job, Waiting
from limiter_core._packed_limits import packed_limits
from limiter_core._refusals import refusal_error
from limiter_core._retry_advice import RetryAdvice
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.limits import Terms
from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    Held,
    Listener,
    Presence,
    Queued,
    Request,
)
from limiter_core.tracing import in_trace_of, with_trace

REMEMBERED = 10_000
"""Tickets of which a gate remembers a key."""


class GateState:
    """What a gate knows of itself, and of its tickets.

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
        """Return the keys of a ticket, as this process asked for them last, or was notified."""
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
