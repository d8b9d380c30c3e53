"""The log lines of events, on the logger `limiter`.

What happens to a job is logged at INFO, a slot that is taken from it at WARNING: its worker's log
is where people look. What happens to a call is logged at DEBUG, since its caller gets the error.
Each line has its fields in `extra`, so that structlog and JSON formatters show them: `limit` (the
names), `key`, `function`, `adapter`, `waited` or `held`, `outcome`, `lease_id`.
"""

from __future__ import annotations

import logging

from limiter_core import events
from limiter_core._checks import printable
from limiter_core._observers import Registration
from limiter_core.errors import named_key, slots_text
from limiter_core.events import Event

logger = logging.getLogger("limiter")


def log_event(event: Event) -> None:
    """Log what happened to a call or a job."""
    if isinstance(event, events.WaitingForEachOther):
        return  # it is logged where it is found, whether it is observed or not
    level = _level_of(event)
    if not logger.isEnabledFor(level):
        return
    outcome, what = _described(event)
    keys = ", ".join(event.keys)
    extra: dict[str, object] = {
        "outcome": outcome,
        "limit": ",".join(event.names),
        "key": keys,
        "function": event.function,
        "adapter": event.adapter,
        "lease_id": event.id,
    }
    for name in ("waited", "held"):
        seconds = getattr(event, name, None)
        if seconds is not None:
            extra[name] = round(seconds, 6)
    subject = event.label or (f"{event.function}[{event.id}]" if event.function else event.id)
    # The ids of jobs may come from a request, and a line break in one would begin another line.
    logger.log(level, "%s %s", printable(subject), what, extra=extra)


def _level_of(event: Event) -> int:
    if event.adapter is None:
        return logging.DEBUG
    if isinstance(event, events.Preempted | events.Lost | events.AdmittedWithoutStore):
        return logging.WARNING
    if isinstance(event, events.Granted | events.Released):
        waited = isinstance(event, events.Granted) and event.waited > 0
        return logging.INFO if waited else logging.DEBUG
    return logging.INFO


def _described(event: Event) -> tuple[str, str]:
    """Return the outcome in a word, and in words."""
    names = event.names if len(event.names) == len(event.keys) else ("",) * len(event.keys)
    on = " and ".join(map(named_key, event.keys, names)) or "its limit"
    match event:
        case events.Queued():
            use = slots_text(event.in_use, event.max_concurrent)
            name = dict(zip(event.keys, names, strict=True)).get(event.key, "")
            return "queued", f"waits for {named_key(event.key, name)}: {use}"
        case events.Granted(waited=waited) if waited:
            return "granted", f"got its slot of {on} after {waited:.3f} s"
        case events.Granted():
            return "granted", f"got its slot of {on}"
        case events.Refused():
            return event.reason.value, f"is not run: {_REFUSALS[event.reason]} on {on}"
        case events.Cancelled():
            after = f" after {event.waited:.3f} s" if event.waited else ""
            return "cancelled", f"left the queue of {on}{after}"
        case events.Failed():
            return "failed", f"got no answer for {on}: {event.error}"
        case events.AdmittedWithoutStore():
            return "admitted", f"runs without a slot of {on}, since the store is unavailable"
        case events.Preempted():
            return "preempted", f"has to end: a newer call took its slot of {on}"
        case events.Lost(reason=loss):
            why = "it was collected unreleased" if loss is None else loss.value
            return "lost", f"lost its slot of {on}: {why}"
        case events.Released():
            return "released", f"released its slot of {on} after {event.held:.3f} s"
        case _:
            return "event", repr(event)


_REFUSALS = {
    events.RefusedReason.FULL: "all slots are in use",
    events.RefusedReason.QUEUE_FULL: "the most that may wait do so already",
    events.RefusedReason.TIMEOUT: "its timeout was over before a slot was free",
    events.RefusedReason.SUPERSEDED: "a newer call took its place",
    events.RefusedReason.EVICTED: "an operator ended its waiting",
}

LOG = Registration(log_event)
"""Registered beside the observers, where the logger is enabled for what may be logged."""
