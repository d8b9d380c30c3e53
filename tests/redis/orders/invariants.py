"""The invariants of `LocalRequests`, and what distinguishes one simulation from another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from limiter_core.requests import Granted, Loss
from limiter_redis.session.entries import NOW, Entry, State
from limiter_redis.session.local_requests import LocalRequests

from .callers import LEASE, Caller, Status
from .simulation import Simulation


def broken_on_the_way(simulation: Simulation) -> Iterator[str]:
    """Yield the invariants that are broken now, while more is on its way."""
    looked_at: LocalRequests | None = None
    content: object = None
    for caller in simulation.callers:
        entry = caller.requests.entries.get(caller.request.id)
        its = entry if entry is not None and entry.listener is caller else None
        if caller.status is Status.WAITING and its is None:
            yield f"L3: caller {caller.number} waits, and is in no book"
        expected = State.HELD
        waits = {Status.WAITING} if caller.was_granted else {Status.WAITING, Status.WOKEN}
        if caller.status in waits:
            expected = State.WAITING
        elif caller.status is Status.ASKING and not caller.was_granted:
            expected = State.ASKED
        if its is not None and caller.is_there and its.state is not expected:
            yield f"L5: caller {caller.number} is {caller.status.value}, its entry {its.state.name}"
        if looked_at is not caller.requests:
            looked_at, content = caller.requests, _content(caller.requests)
        _look(caller, simulation.now)
        before, content = content, _content(looked_at)
        if content != before:
            yield f"L6: a look at the request of caller {caller.number} changes the books"


def _look(caller: Caller, now: float) -> None:
    """Look whether its slot was handed over, as a gate may at any moment."""
    requests, look = caller.requests, caller.look
    requests.asked(look, now)
    requests.not_answered(look, now, unsure=True)
    requests.answered(look, Granted(int(now * 1_000_000) + 1, LEASE), now, now)


def _content(requests: LocalRequests) -> object:
    books = (requests.entries, requests.rivals, requests.releasing)
    entries = [(entry, vars(entry).copy()) for book in books for entry in book.values()]
    return [*map(len, books)], entries, len(requests.outbox), requests.looks.copy()


def broken_at_rest(simulation: Simulation) -> Iterator[str]:
    """Yield the invariants that were broken, or are now that all has settled."""
    yield from simulation.failures
    for caller in simulation.callers:
        yield from _broken_by_caller(simulation, caller)
    yield from _broken_by_books(simulation)


def _broken_by_caller(simulation: Simulation, caller: Caller) -> Iterator[str]:
    name, status, request = f"caller {caller.number}", caller.status, caller.request
    has = simulation.server.has(request)
    holder = simulation.server.machine.table.holders.get(request.id)
    entry = caller.requests.entries.get(request.id)
    its = entry if entry is not None and entry.listener is caller else None
    state = None if its is None else its.state
    if status is Status.HOLDING:
        knows = caller.goes_on and caller.loss is Loss.PREEMPTED
        if has != "holds" or holder is None or (holder.preempted and not knows):
            yield f"L1: {name} holds, and was not told of its loss"
        elif its is None or state is not State.HELD:
            yield f"L3: the lease of {name} is not renewed"
        else:
            yield from _broken_by_times(simulation, caller, its)
    elif status is Status.WAITING and has != "waits":
        yield f"L2: {name} waits for nothing: {has or 'no ticket'}"
    elif status is Status.WAITING and state is not State.WAITING:
        yield f"L3: the ticket of {name} is not renewed"
    elif caller.was_collected and has == "holds":
        pass  # it ends by itself
    elif status is not Status.WAITING and has == "holds" and holder and holder.claimed:
        yield f"L4: nobody has the lease of {name}, which is {status.value}"
    elif status is Status.GONE and has == "waits" and not caller.is_job:
        yield f"L4: nobody has the ticket of {name}"
    if its is not None and status not in {Status.HOLDING, Status.WAITING}:
        yield f"L5: {name} is {status.value}, its entry {its.state.name}"
    if len(caller.outcomes) > 1:
        yield f"L7: {name} was told {caller.outcomes}"


def _broken_by_times(simulation: Simulation, caller: Caller, entry: Entry) -> Iterator[str]:
    ends_at = simulation.server.ends[caller.request.id]
    # A bound on the hold counts from when it was asked for, which may have arrived much later, or
    # in that very moment.
    is_bounded = entry.request.max_hold is not None
    early, late = (LEASE, 1e-6) if is_bounded else (LEASE / 5, 0.0)
    if not simulation.now < entry.expires_at < ends_at + late < entry.expires_at + early:
        yield f"L3: caller {caller.number} counts on a wrong end"
    if entry.renew_at > entry.expires_at and not is_bounded:
        yield f"L3: the lease of caller {caller.number} is renewed too late"
    if abs(caller.ends_at - entry.expires_at) > 1:
        yield f"L7: caller {caller.number} was told another end"


def _broken_by_books(simulation: Simulation) -> Iterator[str]:
    books = simulation.processes.all
    alive = [e for each in books for e in (*each.entries.values(), *each.rivals.values())]
    released = simulation.processes.releasing()
    for entry in simulation.entries:
        is_right = (entry in alive) == (entry.state <= State.HELD)
        if not is_right or (entry in released) != (entry.state is State.RELEASING):
            yield f"L5: an entry that is {entry.state.name} is in the wrong book"
    if released:
        yield "L4: a release was not confirmed, and is not sent again"
    if any(each.rivals for each in books):
        yield "L5: a second delivery is still in the books"


def fingerprint(simulation: Simulation) -> object:
    """Return what tells this simulation from others, whatever times and numbers are."""
    books, server = simulation.processes.all, simulation.server
    table = server.machine.table
    ids = [caller.request.id for caller in simulation.callers]
    return (
        tuple(
            (c.status, c.asks_again, _kind(c.delivered), c.loss, c.is_there, len(c.outcomes))
            for c in simulation.callers
        ),
        tuple(
            sorted(
                (m.what, m.caller, repr(_kind(m.reply)), m.by_caller, _entry(m.entry))
                for m in simulation.network.messages
            )
        ),
        tuple(
            (n.caller, _kind(n.said), n.token == server.tokens.get(ids[n.caller]))
            for n in server.news
        ),
        tuple(
            (
                tuple(map(_entry, each.entries.values())),
                tuple(map(_entry, each.releasing.values())),
                tuple(map(_entry, each.rivals.values())),
                each.closing,
            )
            for each in books
        ),
        tuple(
            (h.request.id, h.request.claimant, h.claimed, h.preempted)
            for h in table.holders.values()
        ),
        tuple(table.tickets),
        tuple(sorted(server.withdrawn)),
        tuple(sorted(server.ended)),
        tuple(sorted(simulation.used.items())),
        (simulation.unheard, simulation.loop_ended, server.other),
    )


def _kind(said: Any) -> object:
    """Return an answer without its numbers."""
    is_answer = hasattr(said, "_fields") or isinstance(said, bool)
    return type(said).__name__ if is_answer else said


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    early = entry.early and entry.early[0].name
    flags = entry.renew_at == NOW, entry.unsure, entry.preempted, bool(entry.token)
    return f"{entry.request.id} {entry.request.claimant} {entry.state.name} {early} {flags}"
