"""What the state machine remembers: keys, holders, tickets, fair rounds. Times in microseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from limiter_core.requests import Demand, Request
from limiter_memory._heap import Heap


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

    def due(self) -> int | None:
        """Return when it lapses unless renewed."""
        return self.expires_at

    def older_than(self, other: Ticket) -> bool:
        """Whether it arrived before the other."""
        return (self.order, self.sequence) < (other.order, other.sequence)


class FairRounds:
    """Round-robin over the groups of one queue, as a number that each ticket is given.

    A group's first waiter is served in the round after the present one, its second in the next,
    and so on; so a thousand waiters of one group stand a thousand rounds deep, and another group's
    first one only one. Each priority counts rounds of its own. (This is start-time fair queuing
    with equal weights: Goyal, Vin and Cheng, SIGCOMM 1996.)
    """

    __slots__ = ("_groups", "_present")

    def __init__(self) -> None:
        self._present: dict[int, int] = {}
        self._groups: dict[tuple[int, str], list[int]] = {}  # its last round, its waiters

    def next_round(self, priority: int, group: str | None) -> int:
        """Return the round in which a newcomer of the group would be served."""
        present = self._present.get(priority, 0)
        if group is None:
            return present + 1
        known = self._groups.get((priority, group))
        return (present if known is None else max(present, known[0])) + 1

    def enter(self, priority: int, group: str | None, round_: int) -> None:
        """Count a waiter in."""
        if group is not None:
            known = self._groups.setdefault((priority, group), [round_, 0])
            known[0] = max(known[0], round_)
            known[1] += 1

    def leave(self, priority: int, group: str | None) -> None:
        """Count a waiter out; a group without waiters is forgotten."""
        if group is not None:
            known = self._groups[priority, group]
            known[1] -= 1
            if not known[1]:
                del self._groups[priority, group]

    def without_waiters(self) -> FairRounds:
        """Return rounds that stand where these do, with nobody counted in."""
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
    elsewhere: dict[str, Ticket] = field(default_factory=dict[str, Ticket])
    """Tickets that wait on several keys, this one among them, and do not sit in its queue."""
    rounds: FairRounds | None = None
    expiries: Heap[Holder | Ticket] = field(default_factory=Heap["Holder | Ticket"])
    override: int | None = None
    paused: bool = False
    watcher: Ticket | None = None
    """The waiter that knows of the next end on this key, and will look then."""
    watched: int = 0

    def limit_for(self, demand: Demand) -> int:
        """Return the limit by which the demand is judged (S12)."""
        return demand.limit if self.override is None else self.override

    def fits(self, demand: Demand) -> bool:
        """Whether the slots are free, whoever waits for them."""
        return self.in_use + demand.cost <= self.limit_for(demand)

    def next_round(self, demand: Demand) -> int:
        """Return the round in which a newcomer would be served; 1 where nobody has a group."""
        if self.rounds is None:
            return 1
        return self.rounds.next_round(demand.priority, demand.group)

    def fair_rounds(self) -> FairRounds:
        """Return the rounds, from now on counted."""
        if self.rounds is None:
            self.rounds = FairRounds()
        return self.rounds

    def stands_before(self, ticket: Ticket, demand: Demand, order: int, sequence: int) -> bool:
        """Whether a ticket in the queue is ahead of a call that would come in now (S3, S7)."""
        home = ticket.home
        if home.priority != demand.priority:
            return home.priority > demand.priority
        round_ = self.next_round(demand)
        return (ticket.round, ticket.order, ticket.sequence) < (round_, order, sequence)

    def waiting(self) -> Iterator[Ticket]:
        """Yield all tickets that wait on this key, wherever they sit."""
        yield from self.queue.smallest(len(self.queue))
        yield from self.elsewhere.values()

    def idle(self) -> bool:
        """Whether nothing needs this key to be remembered (S14)."""
        return not (
            self.holders
            or self.queue.live
            or self.elsewhere
            or self.paused
            or self.override is not None
        )
