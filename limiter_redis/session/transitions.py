"""What each event does to a request in each state: the table, and the actions that it names."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from limiter_core.backoff import backoff
from limiter_core.jitter import jitter
from limiter_core.requests import Answer, Granted, Listener, Loss, Mode, Request, from_fields
from limiter_redis.connection.backoff import FIRST, LONGEST
from limiter_redis.session.entries import NOW, Entry, Event, ListenerCall, State

MARGIN = 0.1
"""The part of a lease by which a holder stops before the store does: for the way, and for clocks
that do not run equally fast."""

LOOK_EVERY = 5.0
"""Seconds after which even an undisturbed ticket is looked at, at the latest."""


# The members of an enum take their time to be looked up.
HELD, RELEASING, GONE = State.HELD, State.RELEASING, State.GONE
LOOK = Mode.LOOK

UNSURE = {Event.LOST: Event.LOST_UNSURE, Event.DEADLINE: Event.OVER_UNSURE}
"""What the end of a lease is if an ask of its holder may still arrive."""


def with_margin(granted: Granted, lease: float) -> Granted:
    """Return a grant as its holder gets it: it stops before the store does."""
    token, expires_in, _, waited = granted
    if expires_in is None:
        return granted
    # With a `max_hold` shorter than the lease, what is left is shorter, too.
    margin = MARGIN * min(lease, expires_in)
    return from_fields(Granted, (token, expires_in - margin, margin, waited))


def is_over(granted: Granted, age: float) -> bool:
    """Whether a lease that was asked for so many seconds ago has ended, for its holder."""
    expires_in = granted.expires_in
    return expires_in is not None and age >= (1 - MARGIN) * expires_in


class EntryTable:
    """The entries of one store in one process, and how the table changes them."""

    def __init__(self, jitter: Callable[[], float] = jitter.random) -> None:
        self.entries: dict[str, Entry] = {}
        """Requests that a caller here waits for or holds, by their ids."""
        self.rivals: dict[Listener, Entry] = {}
        """Other deliveries of jobs whose ids are in `entries`, until the store has answered."""
        self.releasing: dict[Entry, Entry] = {}
        """Requests that nobody wants any more."""
        self.outbox: deque[ListenerCall] = deque()
        """What is to be said, the oldest first."""
        self.looks: dict[str, float] = {}
        """Keys that a caller here waits for, and when their next lease ends (local clock)."""
        self.closing = False
        """Whether the store was closed."""
        self.shortest = math.inf
        """The shortest lease of those that are here (or were, until nobody is)."""
        self._jitter = jitter
        self._next_due = self._next_deadline = math.inf

    def _step(  # noqa: PLR0917  (by position: this is done for every call)
        self,
        entry: Entry,
        event: Event,
        now: float,
        sent_at: float = 0.0,
        answer: Answer | None = None,
        loss: Loss = Loss.FORGOTTEN,
        token: int = 0,
    ) -> None:
        # In this order: an exception may be thrown into the thread at any line, and then the event
        # comes once more. Each action may be done twice.
        state, actions = TABLE[entry.state][event]
        for action in actions:
            action(self, entry, now, sent_at, answer, loss, token)
        if state is not entry.state:
            self._enter(entry, state)
            if state is HELD:
                entry.held_at = now
        if entry.early is not None and state is HELD:
            self._take_early(entry, now)

    def _ended(
        self,
        entry: Entry,
        now: float,
        loss: Loss = Loss.FORGOTTEN,
        token: int = 0,
        event: Event = Event.LOST,
    ) -> None:
        """A lease has ended."""
        if entry.state is HELD and (entry.asking or entry.unsure):
            event = UNSURE[event]
        self._step(entry, event, now, loss=loss, token=token)

    def _enter(self, entry: Entry, state: State) -> None:
        """Put an entry into the table of its state."""
        if state is RELEASING:
            self.releasing[entry] = entry
        elif entry.state is RELEASING:
            self.releasing.pop(entry, None)
        elif state is not GONE:
            entry.state = state
            return
        if entry.state is not RELEASING:
            request_id = entry.request.id
            if self.entries.get(request_id) is entry:
                del self.entries[request_id]
            elif entry.listener is not None:
                self.rivals.pop(entry.listener, None)
        entry.state = state

    def _entry_of(self, request: Request) -> Entry | None:
        """Return the entry of the sender of a request; None if it is in no table."""
        listener = request.listener
        if listener is None or request.mode is LOOK:
            return None
        entry = self.entries.get(request.id)
        if entry is None or entry.listener is not listener:
            return self.rivals.get(listener)
        return entry

    def _take_over(self, entry: Entry, token: int, now: float) -> None:
        """Another delivery of a job is granted: no two of them have a lease at once (S18)."""
        first = self.entries.get(entry.request.id)
        if first is entry:
            return
        if first is not None and first.state is HELD:
            if first.token >= token:  # the reply is older: its lease was over before the other's
                entry.early = (Loss.EXPIRED, token)
                return
            self._ended(first, now, Loss.EXPIRED)
        elif first is not None and first.listener is not None:
            self.rivals[first.listener] = first
        if entry.listener is not None:
            self.rivals.pop(entry.listener, None)
        self.entries[entry.request.id] = entry

    def _all_of(self, request_id: str) -> Iterator[Entry]:
        entry = self.entries.get(request_id)
        others = [each for each in self.rivals.values() if each.request.id == request_id]
        return iter(others if entry is None else [entry, *others])

    def _pause(self, lease: float, *, waiting: bool) -> float:
        """Return the seconds until the next renewal: a third of the lease, at the most."""
        interval = lease / 3
        if waiting and interval > LOOK_EVERY:
            interval = LOOK_EVERY
        return interval * (0.8 + 0.2 * self._jitter())

    # -- time -------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Entry]:
        """Return what has to be renewed; the caller renews it now, or notes a gap."""
        if now < self._next_due:
            return []
        self._next_due = math.inf
        if not self.entries:
            self.shortest = math.inf
        due: list[Entry] = []
        for entry in self.entries.values():
            if entry.renew_at <= now:
                due.append(entry)
                # Until it is known that this worked; but not in place of what comes meanwhile.
                entry.renew_at = now
            self._next_due = min(self._next_due, entry.renew_at)
        return due

    def deadlines(self, now: float) -> None:
        """Leases that could not be renewed in time are over."""
        if now < self._next_deadline:
            return
        soonest = math.inf
        for entry in [entry for entry in self.entries.values() if entry.state is State.HELD]:
            if entry.expires_at > now:
                soonest = min(soonest, entry.expires_at)
            else:
                self._ended(entry, now, event=Event.DEADLINE)
        self._next_deadline = soonest  # last: interrupted, it is looked at once more

    def releases_due(self, now: float) -> list[Entry]:
        """Return what is to be released, and was not sent; what is over by itself is forgotten."""
        if not self.releasing:
            return []
        for entry in [each for each in self.releasing.values() if each.expires_at <= now]:
            self._step(entry, Event.DEADLINE, now)
        return [entry for entry in self.releasing.values() if entry.renew_at <= now]

    def look_at(self, key: str, after: float | None, now: float) -> None:
        """Note when the next lease of a key ends that a caller here waits for."""
        if after is not None:
            # A little late, and not all processes at once.
            at = now + after + 0.001 + 0.049 * self._jitter()
            if at < self.looks.get(key, at + 1.0):
                self.looks[key] = at

    def looks_due(self, now: float) -> list[str]:
        """Return the keys that are to be looked at, and forget them."""
        due = [key for key, at in list(self.looks.items()) if at <= now]
        for key in due:
            self.looks.pop(key, None)
        return due

    # -- the actions of the table -----------------------------------------------------------------

    def _hold(self, entry: Entry, _: float, sent_at: float, answer: Any, *__: Any) -> None:
        """Note the lease, from when the step was asked for."""
        entry.token = answer.fencing_token
        entry.granted_at = entry.granted_at or sent_at
        entry.expires_at = sent_at + answer.expires_in
        if entry.renew_at != NOW:
            entry.renew_at = sent_at + self._pause(entry.request.lease, waiting=False)
        self._next_due = min(self._next_due, entry.renew_at)
        self._next_deadline = min(self._next_deadline, entry.expires_at)

    def _take_early(self, entry: Entry, now: float) -> None:
        """Do what follows from news of a loss that came before the grant was read."""
        assert entry.early is not None
        loss, token = entry.early
        if not token or token > entry.token:  # the grant that was read may be an older one
            self._look_now(entry)
        elif token == entry.token and loss is Loss.PREEMPTED:
            self._notify_preempted(entry)
        elif token == entry.token:
            self._ended(entry, now, loss, token)
        entry.early = None

    def _keep(self, entry: Entry, *news: Any) -> None:
        """Keep news of a lease whose grant was not read yet."""
        loss, token = news[-2:]
        if entry.early is None or token >= entry.early[1]:
            entry.early = loss, token

    def _renewed(self, entry: Entry, _: float, sent_at: float, *__: Any) -> None:
        """Note the new end, and say it."""
        request = entry.request
        entry.expires_at = sent_at + (1 - MARGIN) * request.lease
        if request.max_hold is not None:
            entry.expires_at = min(entry.expires_at, entry.granted_at + request.max_hold)
        self._next_deadline = min(self._next_deadline, entry.expires_at)
        self._notify_end(entry)

    def _notify_end(self, entry: Entry, *_: Any) -> None:
        self.outbox.append(ListenerCall(entry, renewed_until=entry.expires_at))

    def _over(self, entry: Entry, now: float, *_: Any) -> None:
        """Say that nobody renewed it in time, or that it was held too long."""
        max_hold = entry.request.max_hold
        overran = max_hold is not None and now - entry.granted_at >= max_hold * (1 - 2 * MARGIN)
        self.outbox.append(ListenerCall(entry, loss=Loss.OVERRAN if overran else Loss.CUT_OFF))

    def _look_now(self, entry: Entry, *_: Any) -> None:
        """Have it renewed at once, whatever a renewal that is on its way will say."""
        entry.renew_at = self._next_due = NOW

    def _notify_lost(self, entry: Entry, *news: Any) -> None:
        self.outbox.append(ListenerCall(entry, loss=news[-2]))

    def _notify_preempted(self, entry: Entry, *_: Any) -> None:
        if not entry.preempted:
            self.outbox.append(ListenerCall(entry, loss=Loss.PREEMPTED))
            entry.preempted = True

    def _deliver(self, entry: Entry, _: float, __: float, answer: Any, *___: Any) -> None:
        self.outbox.append(ListenerCall(entry, answer=answer))

    def _wake(self, entry: Entry, *_: Any) -> None:
        self.outbox.append(ListenerCall(entry))

    def _send(self, entry: Entry, now: float, *_: Any) -> None:
        """Have it released with the next renewals."""
        self._sent(entry, now)
        entry.renew_at = NOW

    def _retry(self, entry: Entry, now: float, *_: Any) -> None:
        """Have it released after a pause."""
        entry.renew_at = now + backoff(entry.failures, FIRST, LONGEST)
        entry.failures += 1

    def _sent(self, entry: Entry, now: float, *_: Any) -> None:
        """Leave the release to the caller."""
        entry.unsure |= entry.asking
        entry.renew_at = math.inf
        entry.expires_at = now + entry.request.lease


Cell = tuple[State, tuple[Callable[..., None], ...]]

# What an event leads to, by the state in which it finds a request: the new state, and the actions
# (methods above). A dash: it does not happen, and changes nothing.
_TEXT = """
EVENT        | ASKED             | WAITING           | HELD                       | RELEASING
ASK          | ASKED             | ASKED             | HELD                       | -
GRANTED      | HELD hold         | -                 | HELD hold notify_end       | -
QUEUED       | WAITING           | -                 | HELD                       | -
REFUSED      | GONE              | -                 | GONE notify_lost           | -
NO_REPLY     | WAITING           | -                 | -                          | -
NEWS_GRANTED | HELD hold deliver | HELD hold deliver | HELD                       | -
NEWS_REFUSED | GONE deliver      | GONE deliver      | HELD                       | -
NEWS_LOOK    | ASKED wake        | WAITING wake      | HELD                       | -
LOOK         | ASKED             | WAITING wake      | -                          | -
LOST         | ASKED keep        | WAITING keep wake | GONE notify_lost           | -
LOST_UNSURE  | -                 | -                 | RELEASING notify_lost send | -
PREEMPTED    | ASKED keep        | WAITING keep wake | HELD notify_preempted      | -
ALIVE        | ASKED             | WAITING wake      | HELD renewed               | -
WAITS        | ASKED             | WAITING           | GONE notify_lost           | -
UNKNOWN      | ASKED             | WAITING wake      | HELD                       | -
DEADLINE     | -                 | -                 | GONE over                  | GONE
OVER_UNSURE  | -                 | -                 | RELEASING over send        | -
COLLECTED    | -                 | -                 | GONE                       | -
NOT_SENT     | GONE              | -                 | -                          | -
RELEASE      | RELEASING sent    | RELEASING sent    | RELEASING sent             | -
CALLER_GONE  | RELEASING send    | RELEASING send    | RELEASING send             | RELEASING send
RELEASED     | -                 | -                 | -                          | GONE
FAILED       | -                 | -                 | -                          | RELEASING retry
SILENCE      | ASKED look_now    | WAITING look_now  | HELD look_now              | -
WAKE         | ASKED wake        | WAITING wake      | HELD wake                  | -
"""


def _read(text: str) -> list[list[Cell]]:
    """Return the cells by state, then by event."""
    head, *rows = [re.split(r" *\| *", line) for line in text.strip().splitlines()]
    table: list[list[Cell]] = [[(state, ())] * len(Event) for state in State]
    for name, *cells in rows:
        for column, cell in zip(head[1:], cells, strict=True):
            if cell != "-":
                state, *actions = cell.split(" ")
                does = tuple(getattr(EntryTable, "_" + action) for action in actions)
                table[State[column]][Event[name]] = State[state], does
    return table


TABLE = _read(_TEXT)
