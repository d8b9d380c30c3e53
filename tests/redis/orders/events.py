"""What can happen next in a simulation.

Of a caller (0 or 1):

- ask, wake: it asks; it was told to ask again, and asks next, whatever it is told meanwhile
- leave, interrupt, skip: it is cancelled, or its block ends; an exception is thrown in, and the
  release is left to the background; one is thrown in before it is noted that an ask has no reply
- stop: its event loop ends
- refuse: it cannot ask, since no thread can begin
- collect, forget: the garbage collector has its lease; the store is notified
- hint: news say that its answer may have changed
- evict, expire: the server ends its lease

Of a message ("ask 0", "release 1", and "ask 0 #2" for the second one):

- arrive, read: the server carries it out; the process reads the reply
- disconnect: it is lost, or its reply is
- delay: its connection is given up, and it arrives later all the same
- fail: the server answers a release with an error
- unsafe: too few replicas have what it grants; it is given back

Of news ("granted 0", "preempted 1"): receive, lose.

Of the process:

- renew, renewal time: what is due is renewed, and released; a third of a lease passes before
- subscribed: after news were lost
- loop end noticed, close
- deadlines: leases whose time is over are given up
- late: most of a lease passes, and what is on its way stays there

Of the server: data lost; away (for a lease). Of another process: other holds, other preempts, other
leaves.

How often most of these happen in one order is limited, so that orders end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from limiter_core.requests import Granted

from .callers import LEASE, WANTS, Caller, Status
from .network import Message
from .simulation import Simulation


def events_of(simulation: Simulation) -> Iterator[str]:
    """Yield what can happen now."""
    used = simulation.used
    for caller in simulation.callers:
        yield from _events_of_caller(simulation, caller)
    for message in simulation.network.messages:
        if message.reply is not None:
            yield f"read {message.label}"
            granted = message.what == "ask" and isinstance(message.reply, Granted)
            if granted and message.by_caller and not used["unsafe"]:
                yield f"unsafe {message.label}"
        else:
            yield f"arrive {message.label}"
            if not used["disconnect"] and message.by_caller and message.what == "ask":
                yield f"delay {message.label}"
        if used["disconnect"] < 2:
            yield f"disconnect {message.label}"
        if not used["fail"] and _is_of_the_background(message):
            yield f"fail {message.label}"
    for news in simulation.server.news:
        yield f"receive {news.label}"
        if not used["lose"]:
            yield f"lose {news.label}"
    processes = simulation.processes
    if processes.due(simulation.now):
        if all(message.what != "renew" for message in simulation.network.messages):
            yield "renew"
    elif not used["renewal time"] and processes.wants():
        yield "renewal time"
    if simulation.unheard:
        yield "subscribed"
    if simulation.loop_ended:
        yield "loop end noticed"
    if simulation.server.other == "holds":
        yield "other leaves"
    elif not used["other"]:
        yield "other holds"
        yield "other preempts"
    if not used["data lost"]:
        yield "data lost"
    if not used["close"] and processes.wants():
        yield "close"
    if not used["away"] and processes:
        yield "away"
    if processes and not used["late"] and _may_be_late(simulation):
        yield "late"
    if processes.overdue(simulation.now):
        yield "deadlines"


def _events_of_caller(simulation: Simulation, caller: Caller) -> Iterator[str]:
    used = simulation.used
    name, status, has = str(caller.number), caller.status, simulation.server.has(caller.request)
    asks_again = status is Status.WAITING and caller.asks_again
    if asks_again and not used["wake"]:
        yield "wake " + name
    if (
        status in {Status.IDLE, Status.WOKEN}
        or asks_again
        or (status is Status.PARKED and has != "waits")
    ):
        yield "ask " + name
        if not used["refuse"]:
            yield "refuse " + name
    if status is Status.HOLDING and not used["collect"]:
        yield "collect " + name
    if status is Status.COLLECTED:
        yield "forget " + name
    if status in WANTS and used["leave"] < 2:
        yield "leave " + name
        yield "interrupt " + name
    if status in {Status.ASKING, Status.WAITING, Status.WOKEN}:
        if not used["stop"]:
            yield "stop " + name
        if not used["hint"]:
            yield "hint " + name
    if status is Status.ASKING and not used["skip"]:
        yield "skip " + name
    if has == "holds" and not used["end"]:
        yield "evict " + name
        yield "expire " + name


def _is_of_the_background(message: Message) -> bool:
    """Whether it is a release, and of the background alone: no caller sent it as well."""
    if message.what != "release" or message.by_caller or message.entry is None:
        return False
    return message.entry.renew_at < math.inf


def _may_be_late(simulation: Simulation) -> bool:
    """Whether all that is on its way can stay there for most of a lease.

    What arrives later than that is released no more: it ends by itself.
    """
    sent = (each.sent_at for each in simulation.network.messages if each.reply is None)
    return all(simulation.now - at < LEASE / 4 for at in sent)


def next_to_settle(simulation: Simulation) -> str | None:
    """Return the next event of those that follow by themselves, in little time."""
    for message in simulation.network.messages:
        return f"{'arrive' if message.reply is None else 'read'} {message.label}"
    for news in simulation.server.news:
        return f"receive {news.label}"
    if simulation.unheard:
        return "subscribed"
    if simulation.loop_ended:
        return "loop end noticed"
    for caller in simulation.callers:
        asks_again = caller.status is Status.WAITING and caller.asks_again
        if asks_again or caller.status is Status.WOKEN:
            return f"ask {caller.number}"
        if caller.status is Status.COLLECTED:
            return f"forget {caller.number}"
    if simulation.processes.overdue(simulation.now):
        return "deadlines"
    if simulation.processes.due(simulation.now):
        return "renew"
    return "pause over" if simulation.processes.pauses() else None
