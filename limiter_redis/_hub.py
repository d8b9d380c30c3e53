"""Who in this process waits or holds: the one place that news of the store goes to.

Shared by both transports and the keeper; no I/O. Its books are dicts whose single operations are
atomic; a lock guards what takes more than one.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from limiter_core.errors import StoreError
from limiter_core.outage import RepeatedWarning
from limiter_core.requests import Answer, Granted, Listener, Loss, Mode, Notice, Queued, Request
from limiter_core.store import log_deferred
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock
from limiter_redis import _protocol as protocol
from limiter_redis._backoff import Refusals
from limiter_redis._driver_errors import is_unreadable, may_be_on_its_way
from limiter_redis._names import names_of

MARGIN = 0.1
"""The part of a lease by which a holder stops before the store does: for the way, and for clocks
that do not run equally fast."""

_LEASE = 60.0
"""Seconds that a lease is taken to live whose own time is not known any more."""

_LOOK_EVERY = 5.0
"""Seconds after which even an undisturbed ticket is looked at, at the latest."""


@dataclass(slots=True, eq=False)
class Live:
    """A request that this process keeps alive: its ticket first, then its lease.

    Attributes:
        request: as it was sent last.
        listener: who hears.
        waiting: True while it is a ticket.
        renew_at: when it is to be renewed, on the local clock.
        expires_at: when the lease counts as lost unless renewed, on the local clock.
        token: the lease's fencing token.
        granted_at: when it was granted, on the local clock.
        preempted: whether it was told to let go.
        known: whether the store has answered for it: it has a lease, or a place in line.
        doubtful: whether news of a loss came before the grant itself was read.
    """

    request: Request
    listener: Listener
    waiting: bool
    renew_at: float
    expires_at: float = 0.0
    token: int = 0
    granted_at: float = 0.0
    preempted: bool = False
    doubtful: bool = False
    known: bool = False

    @property
    def key(self) -> str:
        """The first of its keys: where its records are."""
        return self.request.demands[0].key


class Abandoned(NamedTuple):
    """A request that nobody wants any more.

    Attributes:
        key: its first.
        until: when its lease has ended anyway, on the local clock.
        for_good: whether its id is never used again.
    """

    key: str
    until: float
    for_good: bool = False


class Hub:
    """The live requests of this process, and what to do at which time."""

    def __init__(self, namespace: str, *, database: int = 0, sharded: bool = False) -> None:
        self.names = names_of(namespace)
        # Channels belong to the server: so they name the database. (A cluster has one.)
        self.process = ("s" if sharded else f"{database}:") + secrets.token_hex(8)
        self.channel = f"{namespace}:process:{self.process}"
        self.live: dict[str, Live] = {}
        self.looks: dict[str, float] = {}
        """Keys that somebody here waits for, and when their next lease ends (local clock)."""
        self.unfinished: dict[str, None] = {}
        """Keys on which a step left work over (S16)."""
        self.abandoned: dict[str, Abandoned] = {}
        """Requests whose caller is gone: to be released (S15)."""
        self.unanswered: dict[str, Request] = {}
        """Requests that may be on their way still, over a connection that was given up."""
        self.queued: Callable[[str], object] | None = None
        """Is called with the key that somebody here begins to wait for."""
        self.closing = False
        """Whether the store was closed: what is lost then is not asked for again."""
        self.shortest = math.inf
        """The shortest lease of those alive (or that were, until nobody is)."""
        self._lock = new_lock()
        self._next_due = math.inf
        self._next_expiry = math.inf
        self.on_notice: Callable[[Notice], object] | None = None
        self.notices = (
            f"{self.names.common}:notices" if sharded else f"{namespace}:notices:{database}"
        )
        """The channel of notices that a process could not deliver; all that can wake jobs hear."""
        self.where = ""
        """Where the store lives, without secrets."""
        self.refusals = Refusals()
        """Whether the server takes the credentials of this process."""
        self._unreadable = RepeatedWarning("could not pass on what the store said")
        self._failures = RepeatedWarning("a listener could not be told what the store said")
        self.undelivered: list[str] = []
        self.on_undelivered: Callable[[], object] = lambda: None
        self.after_turn: Callable[[], object] = lambda: None
        """Is called by the keeper, as long as it runs, every fraction of a second."""

    # -- a request's way --------------------------------------------------------------------------

    def begin(self, request: Request, now: float) -> None:
        """Keep a request alive from now on, if anybody here listens."""
        if request.listener is None:
            return
        known = self.live.get(request.id)
        if known is not None and known.listener is not request.listener:
            return  # a second delivery of a job that runs here: it is told so, and changes nothing
        if known is not None:
            known.request = request
        else:
            renew_at = now + _renew_after(request.lease, waiting=True)
            with self._lock:
                self.live[request.id] = Live(request, request.listener, True, renew_at)
                self.shortest = min(self.shortest, request.lease)
                self._next_due = min(self._next_due, renew_at)

    def settle(self, request: Request, line: str, sent_at: float) -> Answer:
        """Return the answer that a reply stands for, and note what follows from it."""
        if self.unanswered:
            self.unanswered.pop(request.id, None)
        answer = protocol.parse_answer(line.split(" "), request.demands[0].key)
        live = self.live.get(request.id)
        if request.listener is None or (live and live.listener is not request.listener):
            return answer
        with self._lock:
            return self._note(request.id, request.lease, answer, sent_at)

    def withdraw(self, request: Request, error: BaseException | None = None) -> Granted | None:
        """Let go of a request that could not be sent, unless it turns out to be granted.

        Args:
            request: the request.
            error: why it could not be sent, or was not answered.

        Returns:
            The grant that the news brought while the request was on its way.
        """
        if error is None or may_be_on_its_way(error):
            self.doubt(request)
        with self._lock:
            live = self.live.get(request.id)
            if live is None or live.listener is not request.listener:
                return None
            if live.waiting:
                del self.live[request.id]
                return None
            return Granted(live.token, max(0.0, live.expires_at - time.monotonic()))

    def doubt(self, request: Request) -> None:
        """Note that a request may be on its way still."""
        if request.payload is None:  # the ticket of a job names each of its deliveries
            self.unanswered[request.id] = request

    def depends(self) -> bool:
        """Whether anybody here has a lease, or a place in line, that has to be kept alive."""
        return any(live.known for live in list(self.live.values()))

    def holds(self, request_id: str) -> bool:
        """Whether somebody in this process holds a lease of this id."""
        live = self.live.get(request_id)
        return live is not None and not live.waiting

    def end(self, request_id: str) -> Live | None:
        """Let go of a request: from now on nothing is renewed, and no loss is told."""
        if self.unanswered:
            self.unanswered.pop(request_id, None)
        return self.live.pop(request_id, None)

    def abandon(self, request_id: str, key: str) -> None:
        """Have a request released in the background, since nobody wants it any more."""
        live = self.live.pop(request_id, None)
        request = self.unanswered.pop(request_id, None)
        for_good = request is not None
        if live is not None:
            request = live.request
            for_good = live.waiting and request.payload is None
        known = self.abandoned.get(request_id)
        lease = _LEASE if request is None else request.lease
        self.abandoned[request_id] = Abandoned(
            key, time.monotonic() + lease, for_good or (known is not None and known.for_good)
        )

    def _note(self, request_id: str, lease: float, answer: Answer, sent_at: float) -> Answer:
        live = self.live.get(request_id)
        if live is not None:
            live.known = True
        if isinstance(answer, Granted) and answer.expires_in is not None:
            # With a `max_hold` shorter than the lease, what is left is shorter, too.
            margin = MARGIN * min(lease, answer.expires_in)
            answer = answer._replace(expires_in=answer.expires_in - margin, margin=margin)
            if live is not None:
                live.token = answer.fencing_token
                if live.waiting:
                    live.granted_at = sent_at
                # Of a loss that was told before this grant was read, it is not known whether it was
                # this grant's: so the store is asked at once.
                ahead = 0.0 if live.doubtful else _renew_after(lease, waiting=False)
                live.doubtful = False
                live.renew_at = sent_at + ahead
                live.expires_at = sent_at + (answer.expires_in or 0.0)
                self._next_due = min(self._next_due, live.renew_at)
                self._next_expiry = min(self._next_expiry, live.expires_at)
                live.waiting = False  # last: from now on the keeper looks at its end
        elif isinstance(answer, Queued):
            if live is not None and live.request.payload is not None:
                del self.live[request_id]  # it waits with nobody behind it
            else:
                self.look_at(answer.key, answer.look_again)
            answer = answer._replace(look_again=None)  # the keeper does, for all who wait
            if self.queued is not None:
                self.queued(answer.key)
        else:
            self.live.pop(request_id, None)
        return answer

    # -- news -------------------------------------------------------------------------------------

    def hear(
        self, lines: Iterable[str], sent_at: float, *, in_callers_thread: bool = False
    ) -> None:
        """Pass on what the store says beside its replies.

        Args:
            lines: the news, one by one. Any of them may be nonsense: the channel is open to all.
            sent_at: when the step that made them was asked for, or later they cannot have been
                made; on the local clock. Leases count from then.
            in_callers_thread: what is thrown into the thread meanwhile is then for its caller, or
                its event loop: it is raised, after the other news were passed on.
        """
        thrown: BaseException | None = None
        for line in lines:
            try:
                self._hear_line(line, sent_at)
            except StoreError as error:
                self._unreadable.note(error)  # anybody may write to the channel, and a lot
            except BaseException as error:
                if in_callers_thread and not is_unreadable(error):
                    thrown = error
                    self.hear([line], sent_at)  # once more: to be told twice does no harm
                elif isinstance(error, Exception):
                    self._failures.note(error, unknown=True)
                else:
                    raise
        if thrown is not None:
            raise thrown

    def _hear_line(self, line: str, sent_at: float) -> None:
        news = protocol.parse_news(line)
        if news.notice is None:
            self._hear(news, sent_at)
        elif not self.deliver(news.notice):
            self.undelivered.append(line)
            self.on_undelivered()

    def deliver(self, notice: Notice) -> bool:
        """Pass on a notice; whether somebody in this process can wake its job."""
        return self.on_notice is not None and self.on_notice(notice) is not False

    def hear_undelivered(self, line: str) -> None:
        """Pass on a notice that another process could not deliver."""
        try:
            notice = protocol.parse_news(line).notice
            if notice is not None:
                self.deliver(notice)
        except StoreError as error:
            self._unreadable.note(error)
        except Exception as error:  # noqa: BLE001
            self._failures.note(error, unknown=True)

    def _hear(self, news: protocol.News, sent_at: float) -> None:
        if news.more:
            self.unfinished[news.id] = None
        elif news.deferred is not None:
            log_deferred(news.id, *news.deferred)
        elif (live := self.live.get(news.id)) is not None:
            if news.loss is not None:
                self.lose(live, news.loss)
            else:
                self._wake(live, news.answer, sent_at)

    def lose(self, live: Live, loss: Loss) -> None:
        """Tell a holder that its lease is gone, or under `PREEMPTED` should be let go."""
        if live.waiting:
            # It was granted, and the word of it is still on its way, or was lost: it asks again.
            live.doubtful = True
            self._wake(live, None)
        elif self.live.get(live.request.id) is live:
            if loss is Loss.PREEMPTED:
                if live.preempted:
                    return
                live.preempted = True
            elif self.live.pop(live.request.id, None) is None:
                return  # another thread was faster
            live.listener.lease_lost(loss)

    def forgotten(self, live: Live) -> None:
        """Tell a holder that the store lost its lease and had no room for it again."""
        self.live.pop(live.request.id, None)
        live.listener.lease_lost(Loss.FORGOTTEN)

    def recheck_waiting(self) -> None:
        """Have the tickets of all who wait renewed at once: messages may have been missed."""
        for live in list(self.live.values()):
            if live.waiting:
                live.renew_at = 0.0
        self._next_due = 0.0

    def dismiss_waiting(self) -> None:
        """Have all who wait ask again, and forget them until they do."""
        for live in list(self.live.values()):
            if live.waiting and self.live.pop(live.request.id, None) is live:
                live.listener.look_again(None)

    def recheck(self, concerned: Callable[[Live], bool]) -> None:
        """Have tickets and leases renewed at once of which messages may have been missed."""
        for live in list(self.live.values()):
            if concerned(live):
                live.renew_at = 0.0
        self._next_due = 0.0

    def _wake(self, live: Live, answer: Answer | None, sent_at: float = 0.0) -> None:
        with self._lock:
            if self.live.get(live.request.id) is not live:
                return
            if isinstance(answer, Granted) and answer.expires_in is not None:
                # The lease counts from when the step was asked for. News that took long are only
                # a hint, for the slot may be another's by now: it asks.
                late = time.monotonic() - sent_at
                if late > MARGIN / 2 * answer.expires_in:
                    answer = None
            if answer is not None:
                answer = self._note(live.request.id, live.request.lease, answer, sent_at)
        if not live.listener.look_again(answer):
            self.abandon(live.request.id, live.key)

    # -- time -------------------------------------------------------------------------------------

    def look_at(self, key: str, after: float | None) -> None:
        """Note when the next lease of a key ends that somebody here waits for."""
        if after is not None:
            # A little late, and not all processes at once.
            at = time.monotonic() + after + random.uniform(0.001, 0.05)  # noqa: S311
            if at < self.looks.get(key, at + 1.0):
                self.looks[key] = at

    def due(self, now: float) -> list[Live]:
        """Return what has to be renewed."""
        if now < self._next_due:
            return []
        self._next_due = math.inf  # in this order: `begin` may lower it meanwhile
        lives = list(self.live.values())
        if not lives:
            self.shortest = math.inf
        # What is due now is renewed now; when next is known only then, so look again soon.
        soonest = min((max(live.renew_at, now) for live in lives), default=math.inf)
        with self._lock:
            self._next_due = min(self._next_due, soonest)
        return [live for live in lives if live.renew_at <= now]

    def due_looks(self, now: float) -> list[str]:
        """Return the keys that have to be looked at, once each."""
        keys = [key for key, at in list(self.looks.items()) if at <= now]
        for key in keys:
            self.looks.pop(key, None)
        while self.unfinished:
            keys.append(self.unfinished.popitem()[0])
        return keys

    def expire(self, now: float) -> None:
        """Give up the leases that could not be renewed in time."""
        if now < self._next_expiry:
            return
        self._next_expiry = math.inf
        holders = [live for live in list(self.live.values()) if not live.waiting]
        soonest = min((live.expires_at for live in holders), default=math.inf)
        with self._lock:
            self._next_expiry = min(self._next_expiry, soonest)
        for live in holders:
            if live.expires_at <= now:
                max_hold = live.request.max_hold
                held = now - live.granted_at
                overran = max_hold is not None and held >= max_hold * (1 - 2 * MARGIN)
                self.lose(live, Loss.OVERRAN if overran else Loss.CUT_OFF)

    def renewed(self, live: Live, line: str, sent_at: float) -> Request | None:
        """Note the reply to a renewal; returns the request of a lease to be reclaimed."""
        if self.live.get(live.request.id) is not live:
            return None  # released meanwhile: whatever the store says is no loss
        live.renew_at = sent_at + _renew_after(live.request.lease, waiting=live.waiting)
        kind, rest = protocol.parse_renewal(line, live.key)
        if kind in ("alive", "preempted"):
            if live.waiting:
                self._wake(live, None)  # granted, and the word of it was lost
                return None
            live.expires_at = sent_at + (1 - MARGIN) * live.request.lease
            if live.request.max_hold is not None:
                live.expires_at = min(live.expires_at, live.granted_at + live.request.max_hold)
            live.listener.lease_renewed(live.expires_at)
            if kind == "preempted":
                self.lose(live, Loss.PREEMPTED)
        elif kind == "waiting":
            key, _, after = rest.partition(" ")
            self.look_at(key, protocol.parse_duration(after, key))
        elif kind == "lost":
            self.lose(live, protocol.parse_loss(rest))
        elif live.waiting:
            self._wake(live, None)  # it asks again, and keeps its place in line
        elif live.expires_at <= (now := time.monotonic()):
            self.expire(now)
        elif self.closing:
            self.forgotten(live)
        else:  # the store lost its data: the slot is asked for again, by its id (S10)
            hold = live.request.max_hold
            if hold is not None:
                hold = max(0.001, hold - (now - live.granted_at))
            return live.request._replace(mode=Mode.RECLAIM, fencing_token=live.token, max_hold=hold)
        return None


def _renew_after(lease: float, *, waiting: bool) -> float:
    """Return the seconds until the next renewal: a third of the lease, with some jitter."""
    interval = min(lease / 3, _LOOK_EVERY) if waiting else lease / 3
    return interval * (0.8 + 0.2 * random.random())  # noqa: S311
