"""Feeds what happens to the requests of this process, and says to listeners what follows.

What follows is decided in `session/local_requests.py` alone. Here are its lock and its clock, what
the store's words mean, and beside it what belongs to no request: notices of jobs, and keys on which
a step left work over. Shared by all transports and the background threads.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.outage import RepeatedWarning
from limiter_core.requests import Answer, Granted, Loss, Mode, Queued, Request
from limiter_core.store import log_deferred
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock
from limiter_redis.connection.backoff import Refusals
from limiter_redis.protocol import layout, replies
from limiter_redis.protocol.errors import is_unreadable, may_be_on_its_way
from limiter_redis.protocol.keyspace import keyspace_of
from limiter_redis.session.entries import RENEWALS, Entry, Event, ListenerCall
from limiter_redis.session.known_policies import KnownPolicies
from limiter_redis.session.local_requests import LocalRequests
from limiter_redis.session.notices import Notices
from limiter_redis.session.transitions import is_over
from limiter_redis.transport.invocation import Invocations

# The members of an enum take their time to be looked up.
LOOK, RELEASE = Mode.LOOK, Event.RELEASE


class RequestTracker:
    """The requests of one store in this process, for all its threads."""

    def __init__(self, namespace: str, *, database: int = 0, sharded: bool = False) -> None:
        self.keyspace = keyspace_of(namespace)
        # Channels belong to the server: so they name the database. (A cluster has one.)
        self.process = ("s" if sharded else f"{database}:") + secrets.token_hex(8)
        self.sharded = sharded
        """Whether the channels are those of a cluster's slots."""
        self.polls = False
        """Whether the servers have no such channels: then waiters look from time to time."""
        self.channel = f"{namespace}:process:{self.process}"
        self.requests = LocalRequests()
        self.entries = self.requests.entries
        """What this process waits for and holds, by the ids."""
        self.unfinished: dict[str, None] = {}
        """Keys on which a step left work over (S16)."""
        self.on_queued: Callable[[str], object] | None = None
        """Is called with the key that a caller here begins to wait for."""
        self._lock = new_lock()
        self.notices = Notices(
            f"{self.keyspace.common}:notices" if sharded else f"{namespace}:notices:{database}"
        )
        self.where = ""
        """Where the servers are, without secrets."""
        self.refusals = Refusals()
        """Whether the server takes the credentials of this process."""
        self.invocations = Invocations()
        """How the script is called at each node."""
        self.policies = KnownPolicies(look_often=sharded)
        self.policies.on_change = self._policies_changed
        self.layout_checked = False
        """Whether the processes of the namespace have agreed on the layout of this release."""
        self.changes = "" if sharded else f"{namespace}:process:{database}:all"
        """The channel of changes of policies, within the rights for that of a process, if any."""
        self._unreadable = RepeatedWarning("could not pass on what the store said")
        self._failures = RepeatedWarning("a listener failed with what the store said")
        self.after_turn: Callable[[], object] = lambda: None
        """Is called by the renewer, as long as it runs, every fraction of a second."""

    # -- a request's way --------------------------------------------------------------------------

    def begin(self, request: Request, now: float) -> None:
        """Keep a request alive from now on, if anybody here listens."""
        with self._lock:
            self.requests.asked(request, now)

    def not_sent(self, request: Request) -> None:
        """Note that a request could not be sent, after `begin`."""
        with self._lock:
            self.requests.not_sent(request, time.monotonic())

    def settle(self, request: Request, line: str, sent_at: float) -> Answer:
        """Return the answer that a reply stands for, and note what follows from it.

        Raises:
            StoreUnavailable: it came when the lease that it grants was over.
            StoreError: it cannot be read.
        """
        fields = line.split(" ")
        answer = replies.parse_answer(fields, request.demands[0].key)
        if request.listener is None or request.mode is LOOK:
            return answer
        hold_left = replies.parse_hold_left(fields) if request.max_hold is not None else None
        now = time.monotonic()
        if isinstance(answer, Granted) and is_over(answer, now - sent_at):
            raise StoreUnavailable("the answer came when the lease that it grants was over")
        with self._lock:
            answer = self.requests.answered(request, answer, sent_at, now, hold_left)
        if self.requests.outbox:
            self.notify()
        if self.on_queued is not None and isinstance(answer, Queued):
            self.on_queued(answer.key)
        return answer

    def withdraw(self, request: Request, error: BaseException | None = None) -> Granted | None:
        """Note that a request was not answered, or could not be sent, and why.

        Returns:
            The grant that the news brought while the request was on its way.
        """
        unsure = error is None or may_be_on_its_way(error)
        with self._lock:
            return self.requests.not_answered(request, time.monotonic(), unsure=unsure)

    def is_alone(self) -> bool:
        """Whether this process waits for, or holds, no more than one request."""
        return len(self.entries) <= 1

    def key_of_request(self, request_id: str) -> str | None:
        """Return a key of what this process waits for or holds, None if it does not."""
        entry = self.entries.get(request_id)
        return None if entry is None else entry.key

    def has_known_requests(self) -> bool:
        """Whether anybody here has a lease, or a place in line, that has to be kept alive."""
        return any(entry.known for entry in list(self.entries.values()))

    def holds(self, request_id: str) -> bool:
        """Whether this process holds a lease of this id."""
        entry = self.entries.get(request_id)
        return entry is not None and not entry.waiting

    def end(
        self, request_id: str, claimant: str | None = None, event: Event = RELEASE
    ) -> Entry | None:
        """Note that a caller ends its request; returns it if it is known.

        Args:
            request_id: its id.
            claimant: that of the job's delivery, None for any.
            event: `RELEASE`: it sends that, and `happened` says what became of it; or another.
        """
        with self._lock:
            entry = self.entries.get(request_id)
            if entry is None or (claimant is not None and entry.claimant != claimant):
                return None
            self.requests.happened(entry, event, time.monotonic())
            return entry

    def happened(self, entry: Entry, event: Event) -> None:
        """Note what became of a release: it is confirmed, or to be sent in the background."""
        with self._lock:
            self.requests.happened(entry, event, time.monotonic())

    def abandon(self, request_id: str, key: str, claimant: str = "") -> None:
        """Have a request released in the background, since it is not wanted any more."""
        with self._lock:
            self.requests.release(request_id, time.monotonic(), key, claimant)

    def unfinished_releases(self, request: Request) -> list[Entry]:
        """Return what is to be released before a job is asked for again."""
        with self._lock:
            return self.requests.unfinished_releases(request)

    # -- to listeners -----------------------------------------------------------------------------

    def notify(self, *, in_callers_thread: bool = True) -> None:
        """Say to listeners what follows from what happened.

        Args:
            in_callers_thread: what is thrown into the thread meanwhile is then for its caller: it
                is raised, and the next to come notifies the listener: twice does no harm.
        """
        outbox = self.requests.outbox
        while outbox:
            try:
                call = outbox[0]
            except IndexError:  # another thread was faster
                return
            try:
                self._notify(call)
            except Exception as error:
                if in_callers_thread:
                    raise
                self._failures.note(error, unknown=True)
            with self._lock:
                if outbox and outbox[0] is call:
                    outbox.popleft()

    def _notify(self, call: ListenerCall) -> None:
        listener = call.entry.listener
        if listener is None:
            return
        if call.loss is not None:
            listener.lease_lost(call.loss)
        elif call.renewed_until is not None:
            listener.lease_renewed(call.renewed_until)
        elif not listener.look_again(call.answer):
            with self._lock:
                self.requests.happened(call.entry, Event.CALLER_GONE, time.monotonic())

    # -- news -------------------------------------------------------------------------------------

    def receive(
        self, lines: Iterable[str], sent_at: float, *, in_callers_thread: bool = False
    ) -> None:
        """Pass on what the store says beside its replies.

        Args:
            lines: the news, one by one. Any of them may be nonsense: the channel is open to all.
            sent_at: a moment before they were made, on the local clock: leases count from then.
            in_callers_thread: what is thrown into the thread meanwhile is then for its caller, or
                its event loop: it is raised, after the other news were passed on.
        """
        thrown: BaseException | None = None
        for line in lines:
            try:
                self._receive_line(line, sent_at, in_callers_thread=in_callers_thread)
            except StoreError as error:
                self._unreadable.note(error)  # anybody may write to the channel, and a lot
            except BaseException as error:
                if in_callers_thread and not is_unreadable(error):
                    thrown = error
                    self.receive([line], sent_at)  # once more: twice does no harm
                elif isinstance(error, Exception):
                    self._failures.note(error, unknown=True)
                else:
                    raise
        if thrown is not None:
            raise thrown

    def _receive_line(self, line: str, sent_at: float, *, in_callers_thread: bool) -> None:
        news = replies.parse_news(line)
        if news.notice is not None:
            self.notices.receive(line, news.notice, repeated=news.repeated)
        elif news.more:
            self.unfinished[news.id] = None
        elif news.deferred is not None:
            log_deferred(news.id, *news.deferred)
        else:
            now = time.monotonic()
            with self._lock:
                if news.loss is not None:
                    self.requests.loss_received(news.id, news.loss, news.token, now)
                else:
                    self.requests.answer_received(news.id, news.answer, sent_at, now)
            self.notify(in_callers_thread=in_callers_thread)

    def receive_undelivered(self, line: str) -> None:
        """Pass on a notice that another process could not deliver."""
        try:
            news = replies.parse_news(line)
            if news.notice is not None:
                self.notices.deliver(news.notice, repeated=news.repeated)
        except StoreError as error:
            self._unreadable.note(error)
        except Exception as error:  # noqa: BLE001
            self._failures.note(error, unknown=True)

    def layout_read(self, line: str) -> None:
        """Take in which layout the namespace has.

        Raises:
            StoreError: it is not that of this release. Each call from now on asks again.
        """
        try:
            layout.check(line, self.where, self.keyspace)
        except StoreError:
            self.layout_checked = False
            self.policies.valid_until = 0.0
            raise
        self.layout_checked = True

    def _policies_changed(self, names: frozenset[str]) -> None:
        """Have the waiters of these names ask again."""
        self.wake(lambda entry: entry.waiting and entry.has_name_of(names), in_callers_thread=False)

    # -- for the background -----------------------------------------------------------------------

    def messages_lost(self, concerned: Callable[[Entry], bool] | None = None) -> None:
        """Note that messages or replies may have been lost until now.

        Args:
            concerned: says of which requests; None for all.
        """
        with self._lock:
            self.requests.happened_to_all(Event.SILENCE, time.monotonic(), concerned)

    def wake(
        self, concerned: Callable[[Entry], bool] | None = None, *, in_callers_thread: bool = True
    ) -> None:
        """Have waiters ask again, by default all; those whose event loop has ended are released."""
        with self._lock:
            self.requests.happened_to_all(Event.WAKE, time.monotonic(), concerned)
        self.notify(in_callers_thread=in_callers_thread)

    def close(self) -> None:
        """Have all waiters ask again, for the store was closed."""
        with self._lock:
            self.requests.close(time.monotonic())
        self.notify()

    def due(self, now: float) -> list[Entry]:
        """Return what has to be renewed."""
        with self._lock:
            return self.requests.due(now)

    def due_looks(self, now: float) -> list[str]:
        """Return the keys that have to be looked at, once each."""
        return [*self.requests.looks_due(now), *iter(self.take_unfinished, None)]

    def take_unfinished(self) -> str | None:
        """Return a key on which a step left work over, None if there is none (any more)."""
        with self._lock:  # callers and the renewer take them at once
            return self.unfinished.popitem()[0] if self.unfinished else None

    def look_at(self, key: str, after: float | None) -> None:
        """Note when the next lease of a key ends that a caller here waits for."""
        with self._lock:
            self.requests.look_at(key, after, time.monotonic())

    def expire(self, now: float) -> None:
        """Give up the leases that could not be renewed in time."""
        with self._lock:
            self.requests.deadlines(now)
        self.notify(in_callers_thread=False)

    def renewed(self, entry: Entry, line: str, sent_at: float) -> Request | None:
        """Note the reply to a renewal; returns the request of a lease to be asked for again."""
        kind, rest = replies.parse_renewal(line, entry.key)
        event = RENEWALS.get(kind, Event.LOOK)
        loss = replies.parse_loss(rest) if event is Event.LOST else Loss.FORGOTTEN
        now = time.monotonic()
        with self._lock:
            if event is Event.WAITS:
                key, _, after = rest.partition(" ")
                self.requests.look_at(key, replies.parse_duration(after, key), now)
            again = self.requests.renewed(entry, event, sent_at, now, loss)
        self.notify(in_callers_thread=False)
        return again

    def releases_due(self, now: float) -> list[Entry]:
        """Return what is to be released."""
        with self._lock:
            return self.requests.releases_due(now)
