"""Many processes, simulated in seconds: a discrete-event simulation around the real state machine.

The rules are not simulated: each operation is a step of `limiter_memory`'s state machine, on a
clock of the simulation. The rest is simulated: processes that call, bodies that take time, the
network, and one server that executes one operation after another. Each operation takes the time
that was measured on a real server. (This is a queue with a single server, M/G/1 if the calls arrive
at random.)

An operation travels for half a round trip, waits until the server has done the operations before
it, and is executed; its reply travels for the other half. If an operation frees a slot for which
another process waits, the server publishes a message, and the waiter then claims its slot.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from limiter_core.requests import Demand, Granted, Queued, Request
from limiter_memory._machine import Machine

Step = Callable[[float], "tuple[Operation, Callable[[float], None]]"]
"""The effect of an operation on the server: its kind, and the action of its reply."""

Operation = Literal["acquire", "queue", "claim", "release", "hand over", "renew"]
"""The operations of the server: grant at once, queue, claim a slot, release a slot without or with
a waiter, and renew one lease or ticket of a batch."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The load: what the processes do.

    Attributes:
        name: for the report.
        processes: how many there are; each renews its own leases and tickets.
        keys: how many keys there are.
        calls: calls per second, of all processes together.
        body: average seconds of a body.
        limit: the slots of each key.
        lease: seconds of a lease.
        skew: 0 for keys that are equally popular; 1 for Zipf's law: the n-th is called 1/n as often
            as the first.
        tenants: fair groups; the first makes half of all calls, the others share the rest.
        fair: whether the tenants of a key are served in turn.
    """

    name: str
    processes: int
    keys: int
    calls: float
    body: float
    limit: int
    lease: float = 30.0
    skew: float = 0.0
    tenants: int = 1
    fair: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """The costs of server and network.

    Attributes:
        costs: seconds of the server, per operation.
        round_trip: seconds from a process to the server and back, without the server's time.
    """

    costs: dict[Operation, float]
    round_trip: float = 0.0005


@dataclass(slots=True)
class Call:
    """One call, from its arrival to its end."""

    request: Request
    process: int
    tenant: int
    arrived: float
    freed: float = 0.0
    """When the slot was handed to it, on the server."""


@dataclass(slots=True)
class Report:
    """The results, from the end of the warm-up on.

    Attributes:
        operations: how many of each kind.
        busy: seconds that the server worked.
        seconds: the length of the observed time.
        idle: for each hand-off, the seconds from the release at the server to the next body.
        waits: for each tenant, the total wait of each of its calls, in seconds.
        holders, waiters: the highest numbers at once.
        keys: the highest number of keys in use at once.
        over: the number of moments at which a key had more holders than its limit allows.
    """

    seconds: float
    operations: Counter[Operation] = field(default_factory=Counter[Operation])
    busy: float = 0.0
    idle: list[float] = field(default_factory=list[float])
    waits: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    holders: int = 0
    waiters: int = 0
    keys: int = 0
    over: int = 0

    @property
    def load(self) -> float:
        """The part of the time in which the server worked."""
        return self.busy / self.seconds

    @property
    def operations_per_second(self) -> float:
        """All operations; a lease or ticket renewed in a batch counts as one."""
        return self.operations.total() / self.seconds

    @property
    def renewals_per_second(self) -> float:
        """Heartbeats: leases and tickets renewed."""
        return self.operations["renew"] / self.seconds


class Simulation:
    """One workload with one set of costs.

    Args:
        workload: what the processes do.
        world: the costs of server and network.
        seed: the same seed gives the same run.
    """

    def __init__(self, workload: Workload, world: World, *, seed: int = 1) -> None:
        self._workload = workload
        self._world = world
        self._random = random.Random(seed)
        self._machine = Machine()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._free_at = 0.0
        self._live: dict[int, dict[str, Call]] = {}
        self._keepers: set[int] = set()
        self._calls: dict[str, Call] = {}
        self._in_use: Counter[str] = Counter()
        self._report = Report(math.inf)
        self._harmonic = math.log(workload.keys) if workload.skew else 0.0

    def run(self, seconds: float, warm_up: float) -> Report:
        """Simulate the warm-up and then so many seconds; return the results of those seconds."""
        self._at(0.0, self._arrive)
        for process in range(self._workload.processes):
            self._live[process] = {}
        until = warm_up + seconds
        counting = False
        while self._events and self._events[0][0] < until:
            now, _, event = heapq.heappop(self._events)
            if not counting and now >= warm_up:
                counting, self._report = True, Report(seconds)
            event(now)
        return self._report

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, event))

    # -- the network and the server ----------------------------------------------------------------

    def _send(self, now: float, step: Step) -> None:
        """Let the server execute a step, which returns its kind and the action of its reply."""
        self._at(now + self._world.round_trip / 2, lambda at: self._serve(at, step))

    def _serve(self, now: float, step: Step) -> None:
        begin = max(now, self._free_at)
        operation, reply = step(begin)
        took = self._world.costs[operation]
        self._free_at = begin + took
        self._report.operations[operation] += 1
        self._report.busy += took
        self._at(self._free_at + self._world.round_trip / 2, reply)

    # -- a call ------------------------------------------------------------------------------------

    def _arrive(self, now: float) -> None:
        load, draw = self._workload, self._random
        self._at(now + draw.expovariate(load.calls), self._arrive)
        tenant = 0 if load.tenants < 2 or draw.random() < 0.5 else draw.randrange(1, load.tenants)
        demand = Demand(
            f"key={self._some_key()}", load.limit, group=f"={tenant}" if load.fair else None
        )
        self._number += 1
        # Durable, so that the machine names the granted ticket: this process has no listener.
        request = Request(f"{self._number}", (demand,), load.lease, payload=b"")
        call = Call(request, draw.randrange(load.processes), tenant, now)
        self._calls[request.id] = call
        self._live_with(call, now)
        self._send(now, lambda at: self._acquire(call, at))

    def _some_key(self) -> int:
        load, draw = self._workload, self._random
        if not load.skew:
            return draw.randrange(load.keys)
        return int(math.exp(draw.random() * self._harmonic))  # Zipf with exponent 1

    def _acquire(self, call: Call, at: float) -> tuple[Operation, Callable[[float], None]]:
        answer = self._machine.acquire(call.request, _micro(at))
        report, table = self._report, self._machine.table
        report.holders = max(report.holders, len(table.holders))
        report.waiters = max(report.waiters, len(table.tickets))
        report.keys = max(report.keys, len(table.keys))
        if isinstance(answer, Queued):
            return "queue", lambda _: None
        assert isinstance(answer, Granted)
        if call.freed:
            return "claim", lambda now: self._begin(call, now)
        return "acquire", lambda now: self._begin(call, now)

    def _begin(self, call: Call, now: float) -> None:
        if call.freed:
            self._report.idle.append(now - call.freed)
        key = call.request.demands[0].key
        self._in_use[key] += 1
        self._report.over += self._in_use[key] > self._workload.limit
        self._report.waits.setdefault(call.tenant, []).append(now - call.arrived)
        ends = now + self._random.expovariate(1 / self._workload.body)
        self._at(ends, lambda at: self._end(call, at))

    def _end(self, call: Call, now: float) -> None:
        key = call.request.demands[0].key
        self._in_use[key] -= 1
        if not self._in_use[key]:
            del self._in_use[key]
        del self._live[call.process][call.request.id], self._calls[call.request.id]
        self._send(now, lambda at: self._release(call, at))

    def _release(self, call: Call, at: float) -> tuple[Operation, Callable[[float], None]]:
        self._machine.release(call.request.id, _micro(at))
        notices = self._machine.notices[:]
        self._machine.notices.clear()
        for notice in notices:
            self._wake(self._calls[notice.id], at)
        return ("hand over" if notices else "release"), lambda _: None

    def _wake(self, call: Call, at: float) -> None:
        """Deliver the message of a hand-off to the waiting process, which then claims its slot."""
        call.freed = at
        there = at + self._world.round_trip / 2
        self._at(there, lambda now: self._send(now, lambda then: self._acquire(call, then)))

    # -- heartbeats --------------------------------------------------------------------------------

    def _live_with(self, call: Call, now: float) -> None:
        """Keep a call alive; the renewer of a process runs only while it has any."""
        live = self._live[call.process]
        live[call.request.id] = call
        if call.process not in self._keepers:
            self._keepers.add(call.process)
            self._at(now + self._interval(), lambda at: self._renew(call.process, at))

    def _interval(self) -> float:
        return self._workload.lease / 3 * self._random.uniform(0.8, 1.0)

    def _renew(self, process: int, now: float) -> None:
        live = self._live[process]
        if not live:
            self._keepers.discard(process)
            return
        for request_id, call in list(live.items()):
            if now - call.arrived > 0.25 * self._workload.lease:
                self._send(now, lambda at, it=request_id: self._renewed(it, at))
        self._at(now + self._interval(), lambda at: self._renew(process, at))

    def _renewed(self, request_id: str, at: float) -> tuple[Operation, Callable[[float], None]]:
        self._machine.renew([request_id], _micro(at))
        return "renew", lambda _: None


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
