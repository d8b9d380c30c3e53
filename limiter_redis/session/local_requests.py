"""What this process holds and waits for, as a state machine: no I/O, clock, lock or thread.

An entry is there from the moment a caller asks until the store has confirmed that nothing of the
request is left. So news that come before the reply that they belong to are kept in it, and what
nobody wants any more is released until that has worked. The transports, the background thread and
the operations of the store say what happened (`Event`); the table in `transitions.py` says what
follows; calls of listeners that are due stand in `outbox` until they are made.

The invariants, each tested in every order of events (`tests/redis/test_local_requests.py`):

- L1  A loss reaches its holder at once, whether it or the grant is read first.
- L2  A waiter that has its slot is woken at once.
- L3  What is renewed has a holder or a waiter here.
- L4  What nobody has is released, until that is confirmed or its lease is over.
- L5  An entry ends when its caller is gone.
- L6  A look (`Mode.LOOK`) changes nothing.
- L7  A call is notified of one outcome, once.
- L8  After a gap (messages or replies may be lost) all entries are looked at, at once.
- L9  A closed store keeps renewing what is still held, and asks for nothing that was lost.

News of a loss carry the fencing token of the lease that they are about, so that those of an older
lease of the same id do no harm. Where it is missing, the store is asked.
"""

from __future__ import annotations

from collections.abc import Callable

from limiter_core.requests import Answer, Demand, Granted, Loss, Mode, Queued, Request, from_fields
from limiter_redis.session.entries import NOW, Entry, Event, State
from limiter_redis.session.transitions import LOOK, UNSURE, EntryTable, with_margin

# The members of an enum take their time to be looked up.
ASK, GRANTED = Event.ASK, Event.GRANTED

LONGEST_WAY = 0.2
"""The part of a lease that news of its grant may take."""

UNKNOWN_LEASE = 60.0
"""Seconds that a lease is taken to live whose own time is not known."""


class LocalRequests(EntryTable):
    """The entries of one store in one process.

    Its methods are events. The caller makes sure that one runs at a time, and afterwards
    says what stands in `outbox`.

    Args:
        jitter: returns numbers from 0 to 1: so that processes do not renew at the same moment.
    """

    def __bool__(self) -> bool:
        """Whether there is anything to be kept alive, or to be released."""
        return bool(self.entries or self.releasing or self.rivals or self.outbox)

    def clear(self) -> None:
        """Forget all."""
        self.entries.clear()
        self.rivals.clear()
        self.releasing.clear()
        self.outbox.clear()

    # -- what callers do --------------------------------------------------------------------------

    def asked(self, request: Request, now: float) -> None:
        """A request is about to be sent."""
        listener = request.listener
        if listener is None or request.mode is LOOK:
            return
        entry = self.entries.get(request.id)
        if entry is None or entry.listener is not listener:
            lease = request.lease
            new = Entry(request, listener, now + self._pause(lease, waiting=True))
            self.shortest = min(self.shortest, lease)
            if entry is None:
                self.entries[request.id] = new
                self._next_due = min(self._next_due, new.renew_at)
            else:
                self.rivals[listener] = new
        else:
            entry.request = request
            entry.asking = True
            self._step(entry, ASK, now)

    def answered(
        self,
        request: Request,
        answer: Answer,
        sent_at: float,
        now: float,
        hold_left: float | None = None,
    ) -> Answer:
        """The reply to a request was read; returns the answer for its caller.

        Args:
            request: the request.
            answer: what the store said.
            sent_at: when it was asked.
            now: the time.
            hold_left: of a lease with a `max_hold` that it had before: the seconds until then.
        """
        entry = self._entry_of(request)
        durable = request.payload is not None
        if isinstance(answer, Granted):
            answer = with_margin(answer, request.lease)
            event = GRANTED
            if self.rivals and entry is not None:
                self._take_over(entry, answer.fencing_token, now)
        elif isinstance(answer, Queued):
            if not durable:
                self.look_at(answer.key, answer.look_again, now)
            key, limit, in_use, order, _, *rest = answer  # it is looked at for all waiters
            answer = from_fields(Queued, (key, limit, in_use, order, None, *rest))
            event = Event.REFUSED if durable else Event.QUEUED
        else:
            event = Event.REFUSED
        if entry is not None:
            entry.known = True
            entry.asking = False
            if hold_left is not None and entry.request.max_hold is not None:
                entry.granted_at = sent_at + hold_left - entry.request.max_hold
            self._step(entry, event, now, sent_at, answer)
        return answer

    def not_answered(self, request: Request, now: float, *, unsure: bool) -> Granted | None:
        """There is no reply to a request; returns the grant that news brought meanwhile.

        Args:
            request: the request.
            now: the time.
            unsure: whether it may arrive still.
        """
        entry = self._entry_of(request)
        if entry is None:
            return None
        entry.asking = False
        entry.unsure |= unsure
        if entry.state is State.HELD:
            return Granted(entry.token, max(0.0, entry.expires_at - now))
        # A job is delivered again: then another asks for it.
        durable = request.payload is not None
        self._step(entry, Event.CALLER_GONE if durable else Event.NO_REPLY, now)
        return None

    def not_sent(self, request: Request, now: float) -> None:
        """A request could not be sent."""
        entry = self._entry_of(request)
        if entry is None or entry.known or entry.unsure:  # it was asked before
            self.not_answered(request, now, unsure=False)
        else:
            self._step(entry, Event.NOT_SENT, now)

    def release(
        self, request_id: str, now: float, key: str | None = None, claimant: str = ""
    ) -> None:
        """Nobody wants a request any more, and nobody sends a release.

        Args:
            request_id: its id.
            now: the time.
            key: the first of its keys, for one that may be in no table here.
            claimant: which delivery of a job it is: another one may run by now.
        """
        entry = self.entries.get(request_id)
        if entry is not None and entry.claimant == claimant:
            gone = [entry]
        else:
            gone = [
                each
                for each in (*self.rivals.values(), *self.releasing)
                if each.request.id == request_id and each.claimant == claimant
            ]
        if not gone and key is not None:
            # Of a job it is released only if that delivery has it (S18).
            payload = b"" if claimant else None
            request = Request(request_id, (Demand(key, 1),), UNKNOWN_LEASE)
            request = request._replace(payload=payload, claimant=claimant)
            gone = [Entry(request, None, NOW)]
            gone[0].asking = False
        for each in gone:
            self._step(each, Event.CALLER_GONE, now)

    def happened(self, entry: Entry, event: Event, now: float) -> None:
        """Something happened to a request that says no more than the event."""
        self._step(entry, event, now)

    def unfinished_releases(self, request: Request) -> list[Entry]:
        """Return what is to be released before a job is asked for again."""
        return [entry for entry in self.releasing if entry.request.id == request.id]

    # -- what the store says ----------------------------------------------------------------------

    def answer_received(
        self, request_id: str, answer: Answer | None, sent_at: float, now: float
    ) -> None:
        """A message: the answer to a waiter has changed; None: the message does not say to what."""
        entry = self.entries.get(request_id)
        if entry is None:
            return
        if isinstance(answer, Granted) and answer.expires_in is not None:
            # The lease counts from when the step was asked for. News that took long are only a
            # hint, for the slot may be another's soon, or by now: it asks. So it does if news of
            # the loss were faster.
            known_as_lost = entry.early is not None and entry.early[1] >= answer.fencing_token
            if known_as_lost or now - sent_at > LONGEST_WAY * answer.expires_in:
                self._step(entry, Event.NEWS_LOOK, now)
                return
            entry.known = True
            answer = with_margin(answer, entry.request.lease)
            self._step(entry, Event.NEWS_GRANTED, now, sent_at, answer)
        elif answer is None or isinstance(answer, Granted | Queued):
            self._step(entry, Event.NEWS_LOOK, now)
        else:
            self._step(entry, Event.NEWS_REFUSED, now, sent_at, answer)

    def loss_received(self, request_id: str, loss: Loss, token: int, now: float) -> None:
        """A message: a lease has ended, or (`Loss.PREEMPTED`) is to be released.

        Args:
            request_id: the id.
            loss: why.
            token: of the lease; 0 if it is not said.
            now: the time.
        """
        for entry in self._all_of(request_id):
            if entry.state is State.HELD and token > entry.token:
                self._ended(entry, now, Loss.EXPIRED)  # it is about one that came after this one
            elif entry.state is State.HELD and 0 < token < entry.token:
                pass  # it is about one that had ended before
            elif loss is Loss.PREEMPTED:
                self._step(entry, Event.PREEMPTED, now, loss=loss, token=token)
            else:
                self._ended(entry, now, loss, token)

    def renewed(
        self, entry: Entry, event: Event, sent_at: float, now: float, loss: Loss = Loss.FORGOTTEN
    ) -> Request | None:
        """The reply to a renewal was read; returns the request of a lease that the store lost.

        It is to be asked for again, by its id (S10).

        Args:
            entry: as `due` returned it.
            event: what the store said.
            sent_at: when it was asked.
            now: the time.
            loss: with `Event.LOST`: why.
        """
        if self.entries.get(entry.request.id) is not entry:
            return None  # released meanwhile: whatever the store says is no loss
        if sent_at < entry.held_at:  # it may be about what was before the grant
            self._look_now(entry)
            return None
        if entry.renew_at != NOW:  # else it is to be looked at again, whatever this said
            pause = self._pause(entry.request.lease, waiting=entry.waiting)
            entry.renew_at = sent_at + pause
            self._next_due = min(self._next_due, entry.renew_at)
        reclaims = event is Event.UNKNOWN and entry.state is State.HELD
        if reclaims and entry.expires_at <= now:
            event = Event.DEADLINE
        elif reclaims and self.closing:
            event = Event.LOST
        elif event is Event.PREEMPTED and entry.state is State.HELD:
            self._step(entry, Event.ALIVE, now, sent_at)
        if event in UNSURE:
            self._ended(entry, now, loss, event=event)
        else:
            self._step(entry, event, now, sent_at, loss=loss)
        if not reclaims or entry.state is not State.HELD:
            return None
        entry.unsure = True  # its release may overtake this
        hold = entry.request.max_hold
        if hold is not None:
            hold = max(0.001, hold - (now - entry.granted_at))
        return entry.request._replace(mode=Mode.RECLAIM, fencing_token=entry.token, max_hold=hold)

    # -- all at once ------------------------------------------------------------------------------

    def happened_to_all(
        self, event: Event, now: float, concerned: Callable[[Entry], bool] | None = None
    ) -> None:
        """Something happened to all that a caller here waits for or holds.

        Args:
            event: what it was.
            now: the time.
            concerned: says to which entries; None for all.
        """
        for entry in [*self.entries.values(), *self.rivals.values()]:
            if concerned is None or concerned(entry):
                self._step(entry, event, now)

    def close(self, now: float) -> None:
        """The store is closed: each waiter asks again, which opens it."""
        self.closing = True
        self.happened_to_all(Event.WAKE, now)
