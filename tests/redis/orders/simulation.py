"""A process with two callers, a server, and a network on which all can be lost or late.

`events.py` says what can happen next, and `Simulation.apply` has it happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from limiter_core import ConflictResolution
from limiter_core.requests import Loss
from limiter_redis.session.entries import Entry, Event

from .callers import APART, LEASE, Caller, Status, callers_of
from .network import Message, Network
from .processes import Processes
from .server import Server

STEP = 0.001
"""Seconds between two events: no regular renewal comes due."""


class Simulation:
    """One process, one server, and what is on its way between them.

    Attributes:
        callers: who asks.
        processes: theirs; what is tried.
        network: what is on its way.
        unheard: whether news were lost, and nobody knows it yet.
        loop_ended: whether a loop has ended, and nobody knows it yet.
        used: how often events happened that are limited.
        failures: invariants that were broken on the way.
        entries: all entries that there ever were.
    """

    def __init__(self, kind: str) -> None:
        self.callers = callers_of(kind)
        self.processes = Processes(self.callers, apart=kind in APART)
        self.now = 1000.0
        self.server = Server([caller.request for caller in self.callers], self.now)
        self.network = Network()
        self.unheard = self.loop_ended = False
        self.used: Counter[str] = Counter()
        self.failures = self.processes.failures
        self.entries: dict[Entry, None] = {}

    def apply(self, event: str) -> None:
        """Have one event happen."""
        self._advance(STEP)
        for requests in self.processes.all:
            for entries in (requests.entries.values(), requests.releasing.values()):
                for entry in entries:
                    self.entries[entry] = None
        what, _, which = event.partition(" ")
        if event in _GLOBAL_EVENTS:
            _GLOBAL_EVENTS[event](self)
        elif what in _CALLER_EVENTS:
            if what in {"interrupt", "leave"}:
                self.used["leave"] += 1
            elif what in {"wake", "skip", "stop", "hint", "refuse", "collect"}:
                self.used[what] += 1
            _CALLER_EVENTS[what](self, self.callers[int(which)])
        else:
            _NETWORK_EVENTS[what](self, which)
        self._notify()

    def _late(self) -> None:
        """Most of a lease passes, and what is on its way stays there."""
        self.used["late"] += 1
        self._advance(LEASE * 2 / 3)
        self.server.expire(self.now)

    def _advance(self, seconds: float) -> None:
        self.now += seconds
        self.server.now = self.now

    def _notify(self) -> None:
        """Tell callers what follows; who has lost its lease lets go."""
        self.processes.tell(self.now)
        for caller in self.callers:
            entry = caller.requests.entries.get(caller.request.id)
            if caller.status is Status.HOLDING and not caller.ends_at and entry is not None:
                caller.ends_at = entry.expires_at
            if caller.has_to_let_go:
                self._leave(caller)

    # -- the callers ------------------------------------------------------------------------------

    def _ask(self, caller: Caller) -> None:
        caller.begin()
        for entry in caller.requests.unfinished_releases(caller.request):
            self._send("release", caller, entry, by_caller=False)
        caller.requests.asked(caller.request, self.now)
        self._send("ask", caller)

    def _wake(self, caller: Caller) -> None:
        caller.status = Status.WOKEN

    def _leave(self, caller: Caller, *, noted: bool = True, in_haste: bool = False) -> None:
        """Let a caller give back what it has: it is cancelled, or its block ends.

        Args:
            caller: the caller.
            noted: whether an ask without a reply is noted first: not so if an exception is thrown
                in before that.
            in_haste: whether the release is left to the background.
        """
        was, caller.status = caller.status, Status.GONE
        if was is Status.ASKING:
            self.network.read_no_reply(caller.number)
            if noted or caller.is_job:
                caller.requests.not_answered(caller.request, self.now, unsure=True)
        if caller.is_job and was is not Status.HOLDING:
            return
        request = caller.request
        entry = caller.requests.entries.get(request.id)
        if entry is not None and entry.request.claimant == request.claimant:
            caller.requests.happened(entry, Event.RELEASE, self.now)
        else:
            entry = None  # it is lost, or another delivery's
        if in_haste:
            key = request.demands[0].key
            caller.requests.release(request.id, self.now, key, request.claimant)
        else:
            self._send("release", caller, entry)

    def _refuse(self, caller: Caller) -> None:
        """It cannot ask: no thread can begin."""
        caller.begin()
        caller.requests.asked(caller.request, self.now)
        caller.requests.not_sent(caller.request, self.now)
        caller.status = Status.GONE
        if not caller.is_job:
            caller.requests.release(caller.request.id, self.now, caller.request.demands[0].key)

    def _collect(self, caller: Caller) -> None:
        """The garbage collector has its lease."""
        caller.status, caller.was_collected = Status.COLLECTED, True

    def _forget(self, caller: Caller) -> None:
        """The store is told that the garbage collector had its lease."""
        caller.status = Status.GONE
        request = caller.request
        entry = caller.requests.entries.get(request.id)
        if entry is not None and entry.request.claimant == request.claimant:
            caller.requests.happened(entry, Event.COLLECTED, self.now)

    def _stop(self, caller: Caller) -> None:
        """Its event loop ends: it does nothing any more, and says so when it is asked."""
        caller.status, caller.is_there = Status.GONE, False
        self.network.read_no_reply(caller.number)
        self.loop_ended = True

    def _hint(self, caller: Caller) -> None:
        """A message says that the answer may have changed."""
        caller.requests.answer_received(caller.request.id, None, self.now, self.now)

    def _loop_end_noticed(self) -> None:
        self.loop_ended = False
        self.processes.wake(self.now)

    def _close(self) -> None:
        self.used["close"] += 1
        self.processes.close(self.now)

    # -- the network ------------------------------------------------------------------------------

    def _send(
        self, what: str, caller: Caller, entry: Entry | None = None, *, by_caller: bool = True
    ) -> None:
        request = caller.request if entry is None else entry.request
        self.network.send(what, caller.number, request, self.now, entry, by_caller=by_caller)

    def _arrive(self, label: str) -> None:
        """The server carries out what was sent."""
        (message,) = (each for each in self.network.messages if each.label == label)
        request, entry = message.request, message.entry
        if message.what == "renew":
            reply: object = self.server.renew(request)
        elif message.what == "release":
            reply = self.server.release(request, for_good=entry is not None and entry.unsure)
        else:
            reply = self.server.acquire(request, is_late=message.what == "stray")
        if message.what == "stray" or (message.what == "release" and entry is None):
            self.network.replace(message, None)
        else:
            left = self.server.hold_left(request, None)
            self.network.replace(message, message._replace(reply=reply, hold_left=left))

    def _delay(self, label: str) -> None:
        """The connection is given up; what was sent over it arrives all the same, some time."""
        self.used["disconnect"] += 1
        message = self.network.take(label)
        self.network.messages.append(message._replace(what="stray", by_caller=False))
        self._not_answered(message)

    def _disconnect(self, label: str) -> None:
        """A connection ends: the message, or its reply, is lost."""
        self.used["disconnect"] += 1
        self._not_answered(self.network.take(label))

    def _fail(self, label: str) -> None:
        """The server answers a release in the background with an error."""
        self.used["fail"] += 1
        message = self.network.take(label)
        entry = message.entry
        assert entry is not None
        self.callers[message.caller].requests.happened(entry, Event.FAILED, self.now)
        if entry.renew_at <= self.now:
            self.failures.append("L4: a release that failed is sent again without a pause")

    def _unsafe(self, label: str) -> None:
        """Too few replicas have a grant: the transport gives it back, and the ask fails."""
        self.used["unsafe"] += 1
        message = self.network.take(label)
        self.server.release(message.request, for_good=False)
        requests, token = self.callers[message.caller].requests, message.reply.fencing_token
        requests.loss_received(message.request.id, Loss.FORGOTTEN, token, self.now)
        self._ask_failed(message, unsure=False)

    def _ask_failed(self, message: Message, *, unsure: bool) -> None:
        """Tell a caller that its ask has no answer."""
        caller = self.callers[message.caller]
        granted = caller.requests.not_answered(message.request, self.now, unsure=unsure)
        if granted is not None:
            caller.take(granted)
        elif caller.is_job:
            caller.status = Status.GONE
        else:
            caller.status, caller.asks_again = Status.WAITING, True
            if caller.delivered is not None:
                caller.take(caller.delivered)

    def _pause_over(self) -> None:
        """The pause after a release that failed is over."""
        self._advance(max(0.0, min(self.processes.pauses()) - self.now))
        self._renew()

    def _not_answered(self, message: Message) -> None:
        caller = self.callers[message.caller]
        requests = caller.requests
        if message.what == "ask" and caller.status is Status.ASKING:
            self._ask_failed(message, unsure=True)
        elif message.what == "release" and message.by_caller:  # any other is sent again
            if message.entry is not None:
                requests.happened(message.entry, Event.CALLER_GONE, self.now)
            request = message.request
            if request.claimant:  # of a job whose lease was lost no entry is left
                key = request.demands[0].key
                requests.release(request.id, self.now, key, request.claimant)
        requests.happened_to_all(Event.SILENCE, self.now)  # news may have been lost with it

    def _read(self, label: str) -> None:
        """The process reads a reply."""
        message = self.network.take(label)
        caller, entry = self.callers[message.caller], message.entry
        requests = caller.requests
        if message.what in {"ask", "reclaim"}:
            request, reply, sent_at = message.request, message.reply, message.sent_at
            answer = requests.answered(request, reply, sent_at, self.now, message.hold_left)
            self._notify()
            if message.what == "ask" and caller.status is Status.ASKING:
                caller.take(answer)
        elif message.what == "release" and entry is not None:
            requests.happened(entry, Event.RELEASED, self.now)
        elif entry is not None:
            event, loss = message.reply
            again = requests.renewed(entry, event, message.sent_at, self.now, loss)
            if again is not None:
                number = message.caller
                self.network.send("reclaim", number, again, self.now, None, by_caller=True)

    def _receive(self, label: str) -> None:
        """The process reads news."""
        (news,) = (each for each in self.server.news if each.label == label)
        self.server.news.remove(news)
        caller = self.callers[news.caller]
        requests, request_id = caller.requests, caller.request.id
        if isinstance(news.said, Loss):
            requests.loss_received(request_id, news.said, news.token, self.now)
        else:
            requests.answer_received(request_id, news.said, news.sent_at, self.now)

    def _lose(self, label: str) -> None:
        """News are lost."""
        self.used["lose"] += 1
        self.server.news[:] = [each for each in self.server.news if each.label != label]
        self.unheard = True

    def _subscribed(self) -> None:
        self.unheard = False
        self.processes.note_gap()

    def _lose_connections(self) -> None:
        messages, self.network.messages = self.network.messages, []
        self.server.news.clear()
        self.unheard = True
        for message in messages:
            if message.what != "stray":
                self._not_answered(message)

    # -- the background ---------------------------------------------------------------------------

    def _renew(self) -> None:
        """The threads of the background renew and release what is due."""
        caller_of = self.processes.caller_of
        sent = {each.entry: each for each in self.network.messages if each.what == "release"}
        for requests in self.processes.all:
            for entry in requests.due(self.now):
                self._send("renew", caller_of(entry, requests), entry, by_caller=False)
            for entry in requests.releases_due(self.now):
                if entry not in sent:
                    self._send("release", caller_of(entry, requests), entry, by_caller=False)
                elif sent[entry].by_caller:
                    self.failures.append("L4: it is released twice")

    def _renewal_time(self) -> None:
        """A third of a lease has passed."""
        self.used["renewal time"] += 1
        self._advance(LEASE / 3)
        self._renew()

    # -- what happens to the server ---------------------------------------------------------------

    def _end(self, caller: Caller, loss: Loss | None) -> None:
        self.used["end"] += 1
        self.server.evict(caller.request, loss)

    def _other_asks(self, on_conflict: ConflictResolution) -> None:
        self.used["other"] += 1
        self.server.other_asks(on_conflict)

    def _data_lost(self) -> None:
        """The server begins anew, without its data."""
        self.used["data lost"] += 1
        self.server.begin_anew()
        self._lose_connections()

    def _away(self) -> None:
        """The server cannot be reached for the time of a lease."""
        self.used["away"] += 1
        self._lose_connections()
        self._notify()
        self._advance(LEASE)
        self.server.expire(self.now)
        self.server.news.clear()
        before = self.processes.releasing()
        self.processes.deadlines(self.now)
        self._notify()
        for requests in self.processes.all:
            # Of what is in no book it is not known when it is over.
            for entry in before.intersection(requests.releases_due(self.now)):
                if entry.listener is not None:
                    self.failures.append("L4: what is over is still to be released")


_GLOBAL_EVENTS: dict[str, Callable[[Simulation], None]] = {
    "renew": Simulation._renew,
    "renewal time": Simulation._renewal_time,
    "subscribed": Simulation._subscribed,
    "loop end noticed": Simulation._loop_end_noticed,
    "other holds": lambda self: self._other_asks(ConflictResolution.QUEUE),
    "other preempts": lambda self: self._other_asks(ConflictResolution.CANCEL_RUNNING),
    "other leaves": lambda self: self.server.other_leaves(),
    "data lost": Simulation._data_lost,
    "close": Simulation._close,
    "away": Simulation._away,
    "late": Simulation._late,
    "deadlines": lambda self: self.processes.deadlines(self.now),
    "pause over": Simulation._pause_over,
}
_CALLER_EVENTS: dict[str, Callable[[Simulation, Caller], None]] = {
    "ask": Simulation._ask,
    "wake": Simulation._wake,
    "leave": Simulation._leave,
    "interrupt": lambda self, caller: self._leave(caller, noted=False, in_haste=True),
    "skip": lambda self, caller: self._leave(caller, noted=False),
    "stop": Simulation._stop,
    "hint": Simulation._hint,
    "refuse": Simulation._refuse,
    "collect": Simulation._collect,
    "forget": Simulation._forget,
    "evict": lambda self, caller: self._end(caller, None),
    "expire": lambda self, caller: self._end(caller, Loss.EXPIRED),
}
_NETWORK_EVENTS: dict[str, Callable[[Simulation, str], None]] = {
    "arrive": Simulation._arrive,
    "delay": Simulation._delay,
    "disconnect": Simulation._disconnect,
    "fail": Simulation._fail,
    "unsafe": Simulation._unsafe,
    "read": Simulation._read,
    "receive": Simulation._receive,
    "lose": Simulation._lose,
}
