"""What the state machine remembers: keys, holders, tickets, fair rounds. Times in microseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from limiter_core.requests import Demand, Request
from limiter_memory._heap import Heap
from limiter_memory._presence import Presences


@dataclass(slots=True, eq=False)
class Holder:
    """A lease. `claimed` is False between the hand-off and the moment the waiter takes it up."""

    request: Request
    fencing_token: int
    since: int
    order: int
    sequence: int
    claimed: bool
    expires_at: int | None = None
    ends_at: int | None = None
    preempted: bool = False
    ticket: Ticket | None = None
    """That was handed the slot, and waits as before if that is not claimed; None without one."""

    def due(self) -> int | None:
        """Return when it ends unless renewed: the lease's end or the hold's, whichever is first."""
        if self.ends_at is None or self.expires_at is None:
            return self.expires_at if self.ends_at is None else self.ends_at
        return min(self.expires_at, self.ends_at)


@dataclass(slots=True, eq=False)
class Ticket:
    """A place in a queue. It waits on all keys of its request, and sits in the queue of `home`."""

    request: Request
    order: int
    sequence: int
    since: int
    expires_at: int | None
    home: Demand
    round: int = 0
    offers: int = 0
    """Offers of a slot that were not claimed."""
    deferred_until: int | None = None
    """When it takes its place again; until then it is behind all others."""
    evicted: bool = False
    """Whether its waiting is over, and its gate's workers have to be notified yet."""
    replaced: bool = False
    """Whether that is because a newer call took its place, and not by an operator."""
    declared: tuple[Demand, ...] | None = None
    """The demands as the code declares them; None: the request has them, no policy was applied."""
    policy_ends: int | None = None
    """When the next policy ends by which it is judged; None: none does by itself."""

    name: str = field(init=False)
    """The gate whose workers can wake it, empty if it needs none."""

    def __post_init__(self) -> None:
        presence = self.request.presence
        self.name = "" if presence is None or self.request.payload is None else presence.name

    def rank(self) -> tuple[bool, int, int, int, int]:
        """Return its place in a queue (S7)."""
        deferred = self.deferred_until is not None
        return deferred, -self.home.priority, self.round, self.order, self.sequence

    def due(self) -> int | None:
        """Return when it lapses unless renewed, takes its place again, or is judged anew."""
        due = self.expires_at if self.deferred_until is None else self.deferred_until
        if self.policy_ends is None:
            return due
        return self.policy_ends if due is None else min(due, self.policy_ends)

    def older_than(self, other: Ticket) -> bool:
        """Whether it arrived before the other."""
        return (self.order, self.sequence) < (other.order, other.sequence)


class FairRounds:
    """Round-robin over the groups of one queue, as a number that each ticket is given.

    A group's first waiter is served in the round after the present one, its second in the next,
    and so on; so a thousand waiters of one group stand a thousand rounds deep, and another group's
    first one only one. Each priority counts rounds of its own. (This is start-time fair queuing
    with equal weights: Goyal, Vin and Cheng, SIGCOMM 1996.) Rounds of dormant tickets do not count:
    what is known of a group is known by the names of gates.
    """

    __slots__ = ("_groups", "_present")

    def __init__(self) -> None:
        self._present: dict[int, int] = {}
        # By priority, group and gate: its last round, its waiters.
        self._groups: dict[tuple[int, str], dict[str, list[int]]] = {}

    def next_round(self, priority: int, group: str | None, presences: Presences, now: int) -> int:
        """Return the round in which a newcomer of the group would be served."""
        last = self._present.get(priority, 0)
        if group is not None:
            for name, known in self._groups.get((priority, group), {}).items():
                if known[0] > last and presences.has(name, now):
                    last = known[0]
        return last + 1

    def enter(self, ticket: Ticket) -> None:
        """Count a waiter in."""
        group = ticket.home.group
        if group is not None:
            names = self._groups.setdefault((ticket.home.priority, group), {})
            known = names.setdefault(ticket.name, [ticket.round, 0])
            known[0] = max(known[0], ticket.round)
            known[1] += 1

    def leave(self, ticket: Ticket) -> None:
        """Count a waiter out; a group without waiters is forgotten."""
        group = ticket.home.group
        if group is not None:
            names = self._groups[ticket.home.priority, group]
            known = names[ticket.name]
            known[1] -= 1
            if not known[1]:
                del names[ticket.name]
                if not names:
                    del self._groups[ticket.home.priority, group]

    def without_waiters(self) -> FairRounds:
        """Return the same rounds, without any waiter."""
        rounds = FairRounds()
        rounds._present = dict(self._present)
        return rounds

    def served(self, priority: int, group: str | None, round_: int) -> None:
        """Note that the waiter of this round was served. Those without a group turn no round."""
        if group is not None:
            self._present[priority] = max(self._present.get(priority, 0), round_)


@dataclass(slots=True, eq=False)
class KeyState:
    """One key in use."""

    key: str
    in_use: int = 0
    holders: dict[str, Holder] = field(default_factory=dict[str, Holder])  # oldest first
    queue: Heap[Ticket] = field(default_factory=Heap[Ticket])
    """The tickets that need no worker to be woken."""
    jobs: dict[str, Heap[Ticket]] = field(default_factory=dict[str, Heap[Ticket]])
    """Those of job queues, by the name of their gate; none of the heaps is empty. While a worker of
    the name is there they are one queue with the others, else they are dormant."""
    evicted: dict[str, dict[str, Ticket]] = field(default_factory=dict[str, dict[str, Ticket]])
    """Tickets whose waiting is over, by the gate that has no worker to be notified."""
    evicted_elsewhere: int = 0
    """How many such tickets want this key, but waited on another one."""
    recheck: int = 0
    """When to look whether the gate still has a worker whose ticket is the head; 0: no need to."""
    elsewhere: dict[str, Ticket] = field(default_factory=dict[str, Ticket])
    """Tickets that wait on several keys, this one among them, and do not sit in its queue."""
    rounds: FairRounds | None = None
    expiries: Heap[Holder | Ticket] = field(default_factory=Heap["Holder | Ticket"])
    override: int | None = None
    paused: bool = False
    name: str = ""
    """Of the limit with which the last new request was admitted or queued."""
    watcher: Ticket | None = None
    """The waiter that looks at this key when the next lease or ticket ends."""
    watched: int = 0

    def limit_for(self, demand: Demand) -> int:
        """Return the limit by which the demand is judged (S12)."""
        return demand.limit if self.override is None else self.override

    def fits(self, demand: Demand) -> bool:
        """Whether the slots are free, whether or not others wait for them."""
        return self.in_use + demand.cost <= self.limit_for(demand)

    def heap_of(self, ticket: Ticket) -> Heap[Ticket]:
        """Return the part of the queue in which a ticket sits."""
        name = ticket.name
        return self.jobs[name] if name else self.queue

    def head(self, presences: Presences, now: int) -> Ticket | None:
        """Return the ticket that is served next; the dormant are not."""
        first = self.queue.first()
        if not self.jobs:
            return first
        for name, heap in self.jobs.items():
            if presences.has(name, now):
                other = heap.first()
                assert other is not None
                if first is None or other.rank() < first.rank():
                    first = other
        return first

    def in_line(self, presences: Presences, now: int) -> list[Heap[Ticket]]:
        """Return the parts of the queue that are not dormant."""
        heaps = [heap for name, heap in self.jobs.items() if presences.has(name, now)]
        return [self.queue, *heaps]

    def next_round(self, demand: Demand, presences: Presences, now: int) -> int:
        """Return the round in which a new waiter would be served; 1 if no waiter has a group."""
        if self.rounds is None:
            return 1
        return self.rounds.next_round(demand.priority, demand.group, presences, now)

    def fair_rounds(self) -> FairRounds:
        """Return the rounds, from now on counted."""
        if self.rounds is None:
            self.rounds = FairRounds()
        return self.rounds

    def next_event(self) -> int | None:
        """Return when something ends here, or may change without a step."""
        due: int | None = self.expiries.first_rank() if self.expiries.live else None
        if self.recheck and (due is None or self.recheck < due):
            return self.recheck
        return due

    def waiting(self) -> Iterator[Ticket]:
        """Yield all tickets that wait on this key, wherever they sit."""
        yield from self.queue.smallest(len(self.queue))
        for heap in self.jobs.values():
            yield from heap.smallest(len(heap))
        yield from self.elsewhere.values()

    def idle(self) -> bool:
        """Whether nothing needs this key to be remembered (S14)."""
        return not (
            self.holders
            or self.queue.live
            or self.jobs
            or self.evicted
            or self.evicted_elsewhere
            or self.elsewhere
            or self.paused
            or self.override is not None
        )
