"""Recovery of the state machine when an exception was raised inside one of its steps.

A thread may be interrupted at any line: by a signal handler that raises, or by another thread
(`PyThreadState_SetAsyncExc`). To undo a step would slow every step down. Instead all that is
derived is made again from a few facts, each of which a step changes by one operation of a dict:

- `tickets` and `holders`. A request that is in both was being moved; the slot is kept: one that
  was handed over is held, one that lapsed has not lapsed yet.
- The refusals that are kept. A refusal is kept, and sent, before its ticket is removed: so a ticket
  with one has ended.
- The overrides and pauses of an operator, the rounds that were served, the names of limits.

Then free slots are handed on. The request of the interrupted step is in one of two states, as if
the step was made or not; its caller knows its id, and releases it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limiter_memory._answers import granted
from limiter_memory._key_table import KeyTable

if TYPE_CHECKING:
    from limiter_memory._queues import Queues


def recover(queues: Queues, now: int) -> None:
    """Make all that is derived again, and repeat the notifications that may be lost."""
    queues.settle_ends(now)
    old = queues.table
    for request_id in [each for each in old.tickets if each in old.holders]:
        holder = old.holders[request_id]
        queues.notify(holder.request, granted(holder, now))
        del old.tickets[request_id]
    queues.table = rebuilt(old)


def rebuilt(old: KeyTable) -> KeyTable:
    """Return a table of the same holders and tickets, with all that is derived made again."""
    table = KeyTable()
    table.presences = old.presences
    for key, state in old.keys.items():
        if state.name or state.paused or state.override is not None or state.rounds is not None:
            anew = table.state(key)
            anew.name = state.name
            anew.paused, anew.override = state.paused, state.override
            anew.rounds = None if state.rounds is None else state.rounds.without_waiters()
    for holder in old.holders.values():
        table.add_holder(holder)
    for ticket in old.tickets.values():
        table.add_ticket(ticket)
        if ticket.evicted:
            table.keep_evicted(ticket)
        else:  # one that was in no queue yet has no round
            home = next(each for each in ticket.request.demands if each.key == ticket.home.key)
            table.enqueue(ticket, home, 0, ticket.round or None)
    for state in table.keys.values():
        if not state.queue.live and not state.jobs:
            state.rounds = None
    return table
