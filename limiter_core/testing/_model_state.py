"""The state of the model of the rules, in plain lists that are searched from end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from limiter_core.policies import Policy, number_of
from limiter_core.requests import PRESENCE, Demand, Presence, Refused, Replaced, Request

Notification = tuple[str, str, object]
"""What a store has to send: ("woken", id, whether with the grant), ("lost", id, the loss),
("notice", id, the type of the answer)."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease. `claimed` is False from the hand-off until its caller claims it."""

    request: Request
    order: int
    sequence: int
    since: float
    claimed: bool
    expires_at: float | None
    ends_at: float | None
    preempted: bool = False
    offers: int = 0
    deferred_until: float | None = None
    declared: tuple[Demand, ...] = ()
    """The demands as the code declares them; those of the request are as they were granted."""

    def arrival(self) -> tuple[int, int]:
        """Return what arrivals are sorted by."""
        return self.order, self.sequence

    def waiting_request(self) -> Request:
        """Return the request with which a slot that was not claimed waits again."""
        return self.request._replace(demands=self.declared)

    def due(self) -> float | None:
        """Return when it ends unless renewed."""
        ends = [end for end in (self.expires_at, self.ends_at) if end is not None]
        return min(ends, default=None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticket, in the queue of the key `home`; in none while it is moved to another queue."""

    request: Request
    order: int
    sequence: int
    since: float
    expires_at: float | None
    home: str = ""
    round: int = 0
    offers: int = 0
    deferred_until: float | None = None
    evicted: bool = False
    replaced: bool = False
    """Whether it was evicted since a newer call superseded it."""

    def arrival(self) -> tuple[int, int]:
        """Return what arrivals are sorted by."""
        return self.order, self.sequence

    def waiting_request(self) -> Request:
        """Return the request with which it waits; see `Holding.waiting_request`."""
        return self.request

    def rank(self) -> tuple[bool, int, int, int, int]:
        """Return its rank in the queue (S7)."""
        demand = demand_of(self.request, self.home)
        deferred = self.deferred_until is not None
        return deferred, -demand.priority, self.round, self.order, self.sequence


def keys_of(request: Request) -> list[str]:
    """Return the keys that a request demands slots of."""
    return [demand.key for demand in request.demands]


def demand_of(request: Request, key: str) -> Demand:
    """Return what a request demands of one of its keys."""
    return next(demand for demand in request.demands if demand.key == key)


def gate_of(request: Request) -> str:
    """Return the gate whose workers can wake a job; empty if it needs none."""
    durable = request.payload is not None
    return request.presence.name if durable and request.presence is not None else ""


class ModelState:
    """The state of a store at one moment. Times are seconds."""

    def __init__(self) -> None:
        self.holders: list[Holding] = []
        """The oldest grant first."""
        self.waiters: list[Waiting] = []
        self.overrides: dict[str, int] = {}
        self.paused: set[str] = set()
        self.names: dict[str, str] = {}
        """Those of the limits with which the last new requests were admitted or queued (S20)."""
        self.policies: dict[tuple[str, str], Policy] = {}
        """By name, and "limit" or "pause" (S22)."""
        self.ended: dict[str, tuple[Refused | Replaced, float]] = {}
        """Answers for waiters that were dismissed, and when that was."""
        self.served_rounds: dict[tuple[str, int], int] = {}
        self.group_rounds: dict[tuple[str, int, str, str], int] = {}
        """By key, priority, group and gate."""
        self.presences: dict[tuple[str, str], float] = {}
        """Until when each worker counts as present, by its gate's name and its own."""
        self.sequence = 0
        self.last_order = 0
        self.notifications: list[Notification] = []
        """What was sent since the last comparison."""
        self.choose: Callable[[int], int] = lambda _: 0
        """Chooses one of so many, where the rules leave a choice."""

    def copy_from(self, other: ModelState) -> None:
        """Take over the state of another."""
        self.holders, self.waiters = list(other.holders), list(other.waiters)
        self.overrides, self.paused = dict(other.overrides), set(other.paused)
        self.names, self.policies = dict(other.names), dict(other.policies)
        self.ended, self.notifications = dict(other.ended), list(other.notifications)
        self.served_rounds = dict(other.served_rounds)
        self.group_rounds = dict(other.group_rounds)
        self.presences = dict(other.presences)
        self.sequence, self.last_order = other.sequence, other.last_order

    def same_as(self, other: ModelState) -> bool:
        """Whether both are the same state."""
        return {**vars(self), "choose": None} == {**vars(other), "choose": None}

    def holder(self, request_id: str) -> Holding | None:
        """Return the lease of this id."""
        return next((h for h in self.holders if h.request.id == request_id), None)

    def waiter(self, request_id: str) -> Waiting | None:
        """Return the ticket of this id."""
        return next((w for w in self.waiters if w.request.id == request_id), None)

    def holders_of(self, key: str) -> list[Holding]:
        """Return the holders of a key, the oldest grant first."""
        return [holder for holder in self.holders if key in keys_of(holder.request)]

    def is_used(self, key: str) -> bool:
        """Whether a key has a holder, a waiter, an override or a pause (S14)."""
        requests = [each.request for each in self.holders]
        requests += [each.request for each in self.waiters]
        changed = key in self.overrides or key in self.paused
        return changed or any(key in keys_of(request) for request in requests)

    def note_name(self, key: str, name: str = "") -> None:
        """Note the name of the limit of a new request; forget it if nothing uses the key (S20)."""
        if not self.is_used(key):
            self.names.pop(key, None)
        if name:
            self.names[key] = name

    def in_use(self, key: str) -> int:
        """Return the slots of a key that are held."""
        return sum(demand_of(holder.request, key).cost for holder in self.holders_of(key))

    def queue(self, key: str) -> list[Waiting]:
        """Return the tickets in a key's queue, the dormant ones too, in their order."""
        sitting = (w for w in self.waiters if w.home == key and not w.evicted)
        return sorted(sitting, key=Waiting.rank)

    def served_queue(self, key: str, now: float) -> list[Waiting]:
        """Return the tickets that are not dormant, in the order in which they will be served."""
        return [w for w in self.queue(key) if self.is_present(gate_of(w.request), now)]

    def is_present(self, name: str, now: float) -> bool:
        """Whether a gate has a worker (S17)."""
        return not name or any(
            until > now for (gate, _), until in self.presences.items() if gate == name
        )

    def update_presence(self, presence: Presence, now: float) -> bool:
        """Note that a worker is present, or leaves; return whether its gate's presence changed."""
        was_present = self.is_present(presence.name, now)
        worker = presence.name, presence.worker
        if not presence.leaving:
            self.presences[worker] = now + PRESENCE
        else:
            self.presences[worker] = min(self.presences.get(worker, now), now)
        return self.is_present(presence.name, now) is not was_present

    def in_force(self, now: float) -> list[Policy]:
        """Return the policies in force; of a name the pause last."""
        in_order = [self.policies[place] for place in sorted(self.policies)]
        return [each for each in in_order if each.ends_at is None or each.ends_at > now]

    def judged(self, demand: Demand, now: float) -> Demand:
        """Return a demand with the number that the policies of its name make of it (S22)."""
        if demand.cost > demand.limit > 0:  # it can never be admitted (S8)
            return demand
        number = number_of(self.in_force(now), demand.name, demand.limit)
        return demand._replace(limit=number if number >= demand.cost else 0)

    def limit(self, demand: Demand, now: float) -> int:
        """Return the limit that applies to a demand as it is declared (S12, S22)."""
        return self.overrides.get(demand.key, self.judged(demand, now).limit)

    def fits(self, demand: Demand, now: float) -> bool:
        """Whether the slots are free."""
        return self.in_use(demand.key) + demand.cost <= self.limit(demand, now)

    def blocks(self, demand: Demand, arrival: tuple[int, int], now: float) -> bool:
        """Whether a call of this arrival has to wait for what it demands (S3)."""
        if demand.key in self.paused or not self.fits(demand, now):
            return True
        rank = (False, -demand.priority, self.next_round(demand, now), *arrival)
        return any(waiter.rank() < rank for waiter in self.served_queue(demand.key, now))

    def next_round(self, demand: Demand, now: float) -> int:
        """Return the fair round of a waiter that enters now (S7)."""
        key, priority, group = demand.key, demand.priority, demand.group
        served = self.served_rounds.get((key, priority), 0)
        if group is None:
            return served + 1
        given = [
            last
            for (*place, name), last in self.group_rounds.items()
            if place == [key, priority, group] and self.is_present(name, now)
        ]
        return max(served, *given, 0) + 1
