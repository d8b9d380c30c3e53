"""What can happen next in a simulation."""

from __future__ import annotations

from collections.abc import Iterator

from .callers import WANTS, Caller, Status
from .simulation import Simulation


def events_of(simulation: Simulation) -> Iterator[str]:
    """Yield what can happen now."""
    used = simulation.used
    for caller in simulation.callers:
        yield from _events_of_caller(simulation, caller)
    for message in simulation.network.messages:
        if message.reply is not None:
            yield f"read {message.label}"
        else:
            yield f"arrive {message.label}"
            if not used["break"] and message.by_caller and message.what == "ask":
                yield f"late {message.label}"
        if used["break"] < 2:
            yield f"break {message.label}"
    for news in simulation.server.news:
        yield f"hear {news.label}"
        if not used["miss"]:
            yield f"miss {news.label}"
    if simulation.due():
        if all(message.what != "renew" for message in simulation.network.messages):
            yield "renew"
    elif not used["renewal time"] and simulation.requests.entries:
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
    if not used["close"] and simulation.requests.entries:
        yield "close"
    if not used["away"] and simulation.requests:
        yield "away"


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
    if status in WANTS and used["leave"] < 2:
        yield "leave " + name
        yield "interrupt " + name
    if status in {Status.ASKING, Status.WAITING, Status.WOKEN}:
        if not used["die"]:
            yield "die " + name
        if not used["hint"]:
            yield "hint " + name
    if status is Status.ASKING and not used["skip"]:
        yield "skip " + name
    if has == "holds" and not used["end"]:
        yield "evict " + name
        yield "expire " + name
