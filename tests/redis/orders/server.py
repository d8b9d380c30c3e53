"""The server of the simulation: the memory store's machine, and what Redis does beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from limiter_core import ConflictResolution
from limiter_core.requests import Answer, Demand, Granted, Loss, Replaced, Request
from limiter_memory._machine import Machine
from limiter_redis.session.entries import Event

from .callers import LEASE, OtherProcess
from .network import Labels

T = TypeVar("T")

OTHER = "other"
"""The id of what another process asks for."""


class News(NamedTuple):
    """What the server says beside its replies.

    Attributes:
        label: tells it apart.
        caller: the number of the caller that it is about.
        said: the answer to one who waits, or a loss; None: the answer has changed.
        token: of the lease that is lost, 0 if that is not known.
        sent_at: when it was sent.
    """

    label: str
    caller: int
    said: Answer | Loss | None
    token: int
    sent_at: float


class Server:
    """One server.

    Attributes:
        machine: its data.
        now: the time.
        news: what it has said to the process, and what has not arrived there yet.
        ends: when leases and tickets end, by the ids; now, if it is not known.
        tokens: of the leases that there are, by the ids.
        ended: leases that were lost, and why: what a renewal is told.
        withdrawn: requests and claimants whose asks are refused, for they were released for good.
        other: what another process has done: "", "holds", "left".
    """

    def __init__(self, requests: Sequence[Request], now: float) -> None:
        self._requests = requests
        self._process = object()
        self._labels = Labels()
        self.now = now
        self.news: list[News] = []
        self.ends: dict[str, float] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """Begin without data, as a server that had crashed."""
        self.machine = Machine()
        self.machine._last_token = self._clock
        self.tokens: dict[str, int] = {}
        self.ended: dict[str, Loss] = {}
        self.withdrawn: set[str] = set()
        self.other = ""
        self.news.clear()

    @property
    def _clock(self) -> int:
        return int(self.now * 1_000_000)

    def has(self, request: Request) -> str:
        """Return what there is of a request: "holds", "waits", or ""."""
        holder = self.machine.table.holders.get(request.id)
        if holder is not None:
            return "holds" if holder.request.claimant == request.claimant else ""
        return "waits" if request.id in self.machine.table.tickets else ""

    # -- operations -------------------------------------------------------------------------------

    def acquire(self, request: Request, *, is_late: bool) -> Answer:
        """Carry out an ask. Is it late, then nobody waits for the reply any more."""
        if (request.claimant or request.id) in self.withdrawn:
            return Replaced(request.demands[0].key)
        if not is_late:
            self.ended.pop(request.id, None)
        request = request._replace(listener=self._process)
        answer = self.machine.acquire(request, self._clock)
        self._send_news()
        if not isinstance(answer, Granted):
            self.ends[request.id] = self.now + LEASE
            return answer
        self.machine.table.holders[request.id].request = request
        return self._granted(request, answer)

    def release(self, request: Request, *, for_good: bool) -> bool:
        """Carry out a release: of a job, only of that delivery which has the lease."""
        if for_good:
            self.withdrawn.add(request.claimant or request.id)
        holder = self.machine.table.holders.get(request.id)
        is_its = holder is not None and holder.request.claimant == request.claimant
        if request.payload is None or (is_its and holder is not None and holder.claimed):
            self.machine.release(request.id, self._clock)
        self._send_news()
        return True

    def renew(self, request: Request) -> tuple[Event, Loss]:
        """Carry out a renewal; returns what `LocalRequests.renewed` is told."""
        holder = self.machine.table.holders.get(request.id)
        if holder is not None and holder.request.claimant != request.claimant:
            return Event.LOST, Loss.EXPIRED
        renewal = self.machine.renew([request.id], self._clock)
        self._send_news()
        if request.id in self.machine.table.tickets:
            self.ends[request.id] = self.now + LEASE
        elif request.id not in renewal.gone and holder is not None and holder.claimed:
            self.ends[request.id] = self._end_of(request)
        if request.id in renewal.preempted:
            return Event.PREEMPTED, Loss.PREEMPTED
        if request.id in renewal.gone:
            loss = self.ended.get(request.id)
            return (Event.UNKNOWN, Loss.FORGOTTEN) if loss is None else (Event.LOST, loss)
        if holder is not None and not holder.claimed:
            return Event.LOOK, Loss.FORGOTTEN
        holds = request.id in self.machine.table.holders
        return (Event.ALIVE if holds else Event.WAITS), Loss.FORGOTTEN

    # -- what happens to it -----------------------------------------------------------------------

    def evict(self, request: Request, loss: Loss | None = None) -> None:
        """End a lease; the loss is said in place of the eviction."""
        self.machine.evict(request.id, self._clock)
        self._send_news(loss=loss)

    def expire(self, now: float) -> None:
        """End the leases and tickets that nobody renewed in time. Tickets of jobs stay."""
        table = self.machine.table
        for request_id, ticket in [*table.tickets.items()]:
            if ticket.request.payload is None and self.ends.get(request_id, now) <= now:
                self.machine.release(request_id, self._clock)
                # Some holder may have overrun: the slot was not for one whose ticket had ended.
                calls = self.machine.calls
                self.machine.calls = [each for each in calls if each[0].id != request_id]
                self._send_news()
        for request_id in [*table.holders]:
            if self.ends.get(request_id, now) <= now:
                self.machine.evict(request_id, self._clock)
                self._send_news(loss=Loss.EXPIRED)

    def other_asks(self, on_conflict: ConflictResolution) -> None:
        """Have another process ask for the key."""
        self.other = "holds"
        demand = Demand("k", 1, on_conflict=on_conflict)
        request = Request(OTHER, (demand,), LEASE, listener=OtherProcess())
        self.machine.acquire(request, self._clock)
        self._send_news()

    def other_leaves(self) -> None:
        """Have the other process release what it has."""
        self.other = "left"
        self.machine.release(OTHER, self._clock)
        self._send_news(by_other=True)

    def _granted(self, request: Request, granted: Granted) -> Granted:
        self.ends[request.id] = end = self._end_of(request)
        return Granted(granted.fencing_token, end - self.now)

    def _end_of(self, request: Request) -> float:
        """Return when a lease ends that is renewed now."""
        return self.now + min(LEASE, self.hold_left(request, math.inf))

    def hold_left(self, request: Request, default: T) -> float | T:
        """Return how long a lease may be held still."""
        holder = self.machine.table.holders.get(request.id)
        if holder is None or holder.ends_at is None:
            return default
        return holder.ends_at / 1_000_000 - self.now

    def _send_news(self, *, loss: Loss | None = None, by_other: bool = False) -> None:
        """Send what the last step of the machine has to say to this process.

        Args:
            loss: what is said in place of an eviction.
            by_other: whether the step was of another process: then a waiter has to come for its
                slot.
        """
        calls, self.machine.calls = self.machine.calls, []
        self.machine.notices = []
        for request, what in calls:
            if request.listener is not self._process:
                continue
            said: Any = what
            token = 0
            if isinstance(said, Loss):
                token = self.tokens.get(request.id, 0)
                if said is not Loss.PREEMPTED:
                    self.ended[request.id] = said = loss or said
            elif isinstance(said, Granted) and by_other:
                self.machine.table.holders[request.id].claimed = False
                said = None
            elif isinstance(said, Granted):
                said = self._granted(request, said)
            self._add_news(request, said, token)
        self.tokens = {
            request_id: holder.fencing_token
            for request_id, holder in self.machine.table.holders.items()
        }

    def _add_news(self, request: Request, said: Answer | Loss | None, token: int) -> None:
        name = request.id, request.claimant
        caller = [(each.id, each.claimant) for each in self._requests].index(name)
        what = "look" if said is None else type(said).__name__
        what = said.name if isinstance(said, Loss) else what
        label = self._labels.next(what.lower(), caller)
        self.news.append(News(label, caller, said, token, self.now))
