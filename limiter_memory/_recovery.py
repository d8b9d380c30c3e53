"""How the state machine comes right again when an exception was thrown into one of its steps.

A thread may be interrupted at any line: by a signal handler that raises, or by another thread
(`PyThreadState_SetAsyncExc`). To undo a step would have every step pay for it. Instead all that is
derived is made anew from a few facts, each of which a step changes by one operation of a dict:

- `tickets` and `holders`. A request that is in both was amid a move, which is undone in favour of
  the slot: one that was handed over is held, one that lapsed is not passed over yet.
- What was remembered of a ticket's bad end. It is noted, and told, before the ticket goes: so who
  is remembered has ended.
- The overrides and pauses of an operator, and the rounds that were served.

Then whatever is free is handed on. The request of the interrupted step is in one of two states, as
if the step was made or not, and its caller, who knows its id, releases it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limiter_memory._answers import granted
from limiter_memory._key_table import KeyTable

if TYPE_CHECKING:
    from limiter_memory._queues import Queues


def recover(queues: Queues, now: int) -> None:
    """Make all that is derived anew, and tell again those whose news may be lost."""
    queues.settle_ends(now)
    old = queues.table
    for request_id in [each for each in old.tickets if each in old.holders]:
        holder = old.holders[request_id]
        queues.notify(holder.request, granted(holder, now))
        del old.tickets[request_id]
    queues.table = rebuilt(old)


def rebuilt(old: KeyTable) -> KeyTable:
    """Return a board of the same holders and tickets, with all that is derived made anew."""
    table = KeyTable()
    table.presences = old.presences
    for key, state in old.keys.items():
        if state.paused or state.override is not None or state.rounds is not None:
            anew = table.state(key)
            anew.paused, anew.override = state.paused, state.override
            anew.rounds = None if state.rounds is None else state.rounds.without_waiters()
    for holder in old.holders.values():
        table.add_holder(holder)
    for ticket in old.tickets.values():
        table.add_ticket(ticket)
        if ticket.evicted:
            table.keep_evicted(ticket)
        else:  # one that never sat yet has no round
            table.enqueue(ticket, ticket.home, 0, ticket.round or None)
    for state in table.keys.values():
        if not state.queue.live and not state.jobs:
            state.rounds = None
    return table
