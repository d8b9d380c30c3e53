"""Every order of events between this process and a store, on a scripted network.

`World` is a process with two callers, a server (the pure machine of the memory store), and all that
is on its way between them. `events` says what can happen next; `play` has a list of events happen.
`settle` then lets all that is on its way arrive, in little time: so what is put right only by the
next regular renewal counts as wrong. `check` says which law is broken.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from limiter_core import ConflictResolution
from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    Loss,
    Queued,
    Replaced,
    Request,
)
from limiter_memory._machine import Machine
from limiter_redis.session.entries import NOW, Entry, Event, State
from limiter_redis.session.local_requests import LocalRequests

LEASE = 30.0
STEP = 0.001
"""Seconds between two events: no regular renewal comes due."""


class Message(NamedTuple):
    """What is on its way: to the server, or (with a reply) back.

    Attributes:
        number: tells it apart.
        what: "ask", "renew", "reclaim", "release".
        caller: the number of the caller that it is about.
        request: that is asked, or released.
        sent_at: when it was sent, on the local clock.
        entry: that is renewed or released.
        reply: what the server said, None before.
        by_caller: whether a caller waits for the reply.
    """

    number: int
    what: str
    caller: int
    request: Request
    sent_at: float
    entry: Entry | None = None
    reply: Any = None
    by_caller: bool = True


class News(NamedTuple):
    """What the server says beside its replies."""

    number: int
    caller: int
    said: Answer | Loss | None
    token: int
    sent_at: float


class Caller:
    """Who asks, waits, holds and lets go, as the limiters do. It is its requests' listener."""

    def __init__(self, number: int, request: Request) -> None:
        self.number = number
        self.request = request._replace(listener=self)
        self.status = "idle"
        self.again = False
        self.delivered: Answer | None = None
        self.loss: Loss | None = None
        self.outcomes: list[str] = []
        self.is_there = True
        self.ends_at = 0.0
        self.was_granted = False

    def look_again(self, answer: Answer | None = None) -> bool:
        if not self.is_there:
            return False
        self.again = True
        self.delivered = answer
        self.was_granted |= isinstance(answer, Granted)
        if self.status == "waiting" and answer is not None:
            self.take(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        self.ends_at = expires_at

    def lease_lost(self, loss: Loss) -> None:
        if self.status in ("asking", "waiting", "held") and self.loss in (None, Loss.PREEMPTED):
            self.loss = loss

    def take(self, answer: Answer) -> None:
        """Go on with an answer."""
        if isinstance(answer, Queued):
            if self.request.payload is not None:
                self.status = "parked"
            elif self.delivered is not None:
                self.take(self.delivered)
            else:
                self.status = "waiting"
        elif isinstance(answer, Granted):
            self.status = "held"
            self.outcomes.append("granted")
            self.ends_at = 0.0
        else:
            self.status = "over"
            self.outcomes.append("refused")


@dataclass
class World:
    """A process, a server, and what is on its way.

    Attributes:
        jobs: whether the two callers are deliveries of one job.
    """

    requests: LocalRequests = field(default_factory=lambda: LocalRequests(lambda: 0.5))
    callers: list[Caller] = field(default_factory=list[Caller])
    messages: list[Message] = field(default_factory=list[Message])
    news: list[News] = field(default_factory=list[News])
    server: Machine = field(default_factory=Machine)
    gone: set[str] = field(default_factory=set[str])
    ended: dict[str, Loss] = field(default_factory=dict[str, Loss])
    now: float = 1000.0
    numbers: int = 0
    unheard: bool = False
    """Whether something was lost since messages were known to arrive."""
    loop_ended: bool = False
    """Whether a loop has ended, and nobody has noticed."""
    outsider: str = ""
    """What somebody in another process does: "", "holds", "preempts"."""
    used: Counter[str] = field(default_factory=Counter[str])
    process: object = field(default_factory=object)
    failures: list[str] = field(default_factory=list[str])
    seen: dict[Entry, None] = field(default_factory=dict[Entry, None])
    """All entries that there ever were."""

    @classmethod
    def of(cls, kind: str) -> World:
        """Return a world of two calls: of "one key", of "two keys", or of "one job"."""
        world = cls()
        for number in range(2):
            key = f"k{number}" if kind == "two keys" else "k"
            demand = Demand(key, 1, on_conflict=ConflictResolution.CANCEL_RUNNING)
            request = Request(f"r{number}", (demand._replace(on_conflict=QUEUE),), LEASE)
            world.stubborn = kind == "stubborn"
            if kind in ("newest", "stubborn"):
                request = request._replace(demands=(demand,))
            if kind == "one job":
                request = request._replace(id="job", payload=b"x", claimant=f"c{number}")
            world.callers.append(Caller(number, request))
        return world

    # -- what can happen --------------------------------------------------------------------------

    def events(self) -> Iterator[str]:
        """Yield the names of what can happen now."""
        for caller in self.callers:
            name = str(caller.number)
            if caller.status == "idle" or (caller.status == "waiting" and caller.again):
                yield "ask " + name
            if caller.status == "parked" and self.server_has(caller) != "waits":
                yield "ask " + name
            if caller.status in ("asking", "waiting", "held") and self.used["leave"] < 2:
                yield "leave " + name
                yield "interrupt " + name
            if caller.status in ("asking", "waiting") and not self.used["die"]:
                yield "die " + name
            if caller.status == "asking" and not self.used["skip"]:
                yield "skip " + name
            if caller.status in ("asking", "waiting") and not self.used["hint"]:
                yield "hint " + name
            if self.server_has(caller) == "holds" and not self.used["end"]:
                yield "evict " + name
                yield "expire " + name
        for message in self.messages:
            if message.reply is None:
                yield f"arrive {message.number}"
                if not self.used["break"] and message.by_caller and message.what == "ask":
                    yield f"late {message.number}"
            else:
                yield f"read {message.number}"
            if self.used["break"] < 2:
                yield f"break {message.number}"
        for news in self.news:
            yield f"hear {news.number}"
            if not self.used["miss"]:
                yield f"miss {news.number}"
        if any(entry.renew_at <= self.now for entry in self.all_entries()):
            if not any(each.what == "renew" for each in self.messages):
                yield "turn"
        elif not self.used["renewal"] and self.requests.entries:
            yield "renewal"
        if self.unheard:
            yield "subscribed"
        if self.loop_ended:
            yield "noticed"
        if not self.outsider and not self.used["outsider"]:
            yield "outsider holds"
            yield "outsider preempts"
        elif self.outsider == "holds":
            yield "outsider leaves"
        if not self.used["data lost"]:
            yield "data lost"
        if not self.used["close"] and self.requests.entries:
            yield "close"
        if not self.used["away"] and self.requests:
            yield "away"

    def all_entries(self) -> list[Entry]:
        requests = self.requests
        return [*requests.entries.values(), *requests.releasing.values()]

    def play(self, event: str) -> None:
        """Have one event happen."""
        self.now += STEP
        self.seen.update(dict.fromkeys(self.all_entries()))
        what, _, which = event.partition(" ")
        getattr(
            self, "_" + event.replace(" ", "_") if not which or not which.isdigit() else "_" + what
        )(*([int(which)] if which.isdigit() else []))
        self.say()
        for caller in self.callers:
            entry = self.requests.entries.get(caller.request.id)
            may = (State.HELD,)
            if caller.status == "waiting":
                may = (State.WAITING,)
            elif caller.status == "asking" and not caller.was_granted:
                may = (State.ASKED,)
            if caller.status == "waiting" and (entry is None or entry.listener is not caller):
                self.failures.append(f"L3: caller {caller.number} waits, and is in no book")
            if entry is not None and entry.listener is caller and caller.is_there:
                if entry.state not in may:
                    self.failures.append(f"L5: it is {caller.status}, its entry {entry.state.name}")

    def say(self) -> None:
        """Say to callers what follows, as the shell around the machine does."""
        outbox = self.requests.outbox
        while outbox:
            said = outbox.popleft()
            caller: Any = said.entry.listener
            if caller is None:
                continue
            if said.loss is not None:
                caller.lease_lost(said.loss)
            elif said.renewed_until is not None:
                caller.lease_renewed(said.renewed_until)
            elif not caller.look_again(said.answer):
                self.requests.caller_gone(said.entry, self.now)
        for caller in self.callers:
            entry = self.requests.entries.get(caller.request.id)
            if caller.status == "held" and not caller.ends_at and entry is not None:
                caller.ends_at = entry.expires_at
            stays = self.stubborn and caller.loss is Loss.PREEMPTED
            if caller.loss is not None and not stays and caller.status in ("waiting", "held"):
                self.give_up(caller)

    # -- the callers ------------------------------------------------------------------------------

    def _ask(self, number: int) -> None:
        caller = self.callers[number]
        caller.status, caller.again, caller.delivered = "asking", False, None
        for entry in self.requests.in_the_way(caller.request):
            self.send("release", caller, entry=entry, by_caller=False)
        self.requests.asked(caller.request, self.now)
        self.send("ask", caller)

    def _leave(self, number: int) -> None:
        """The caller is cancelled, or its block ends."""
        caller = self.callers[number]
        self.used["leave"] += 1
        if caller.status == "asking":
            self.messages_of(caller, lost=True)
            self.requests.not_answered(caller.request, self.now, unsure=True)
        self.give_up(caller)

    def _skip(self, number: int) -> None:
        """An exception is thrown in before it is noted that there is no reply."""
        self.used["skip"] += 1
        caller = self.callers[number]
        self.messages_of(caller, lost=True)
        if caller.request.payload is None:
            self.give_up(caller)
        else:
            caller.status = "gone"
            self.requests.not_answered(caller.request, self.now, unsure=True)

    def _hint(self, number: int) -> None:
        """A message says that the answer may have changed; messages only hint."""
        self.used["hint"] += 1
        self.requests.heard_answer(self.id_of(number), None, self.now, self.now)

    def _interrupt(self, number: int) -> None:
        """An exception is thrown in, wherever it does most harm; then it is given up in haste."""
        caller = self.callers[number]
        self.used["leave"] += 1
        request = caller.request
        was, caller.status = caller.status, "gone"
        if was == "asking":
            self.messages_of(caller, lost=True)
        if request.payload is not None and (was != "held" or caller.loss is not None):
            if was == "asking":
                self.requests.not_answered(request, self.now, unsure=True)
            return
        self.requests.release(request.id, self.now, by_caller=True)
        self.requests.release(request.id, self.now, request.demands[0].key)

    def give_up(self, caller: Caller) -> None:
        """Give back what a caller has, as the limiters do on every way out."""
        job = caller.request.payload is not None
        was, caller.status = caller.status, "gone"
        if job and (
            was != "held" or (caller.loss is not None and caller.loss is not Loss.PREEMPTED)
        ):
            return
        entry = self.requests.release(caller.request.id, self.now, by_caller=True)
        self.send("release", caller, entry=entry)

    def _die(self, number: int) -> None:
        """Its event loop ends: it does nothing any more, and says so when it is asked."""
        caller = self.callers[number]
        self.used["die"] += 1
        caller.status, caller.is_there = "gone", False
        self.messages_of(caller, lost=True)
        self.loop_ended = True

    def messages_of(self, caller: Caller, *, lost: bool) -> None:
        """A caller waits for no reply any more: what was sent may arrive, its reply is not read."""
        kept: list[Message] = []
        for each in self.messages:
            if each.caller == caller.number and each.by_caller and each.what == "ask":
                if each.reply is None and lost:
                    kept.append(each._replace(by_caller=False, what="stray"))
            else:
                kept.append(each)
        self.messages = kept

    # -- the network ------------------------------------------------------------------------------

    def send(
        self, what: str, caller: Caller, *, entry: Entry | None = None, by_caller: bool = True
    ) -> None:
        self.numbers += 1
        request = caller.request if entry is None else entry.request
        self.messages.append(
            Message(self.numbers, what, caller.number, request, self.now, entry, None, by_caller)
        )

    def take_message(self, number: int) -> Message:
        (message,) = (each for each in self.messages if each.number == number)
        self.messages.remove(message)
        return message

    def _arrive(self, number: int) -> None:
        at = next(i for i, each in enumerate(self.messages) if each.number == number)
        message = self.messages[at]
        reply = self.do(message)
        if message.what == "stray" or (message.entry is None and message.what == "release"):
            del self.messages[at]
        else:
            self.messages[at] = message._replace(reply=reply)

    def _late(self, number: int) -> None:
        """The connection is given up; what was sent over it arrives all the same, some time."""
        self.used["break"] += 1
        message = self.take_message(number)
        self.messages.append(message._replace(what="stray", by_caller=False))
        self.not_answered(message)

    def _break(self, number: int) -> None:
        """A connection ends: the message, or its reply, is lost."""
        self.used["break"] += 1
        self.not_answered(self.take_message(number))

    def not_answered(self, message: Message) -> None:
        requests = self.requests
        caller = self.callers[message.caller]
        if message.what == "ask" and caller.status == "asking":
            granted = requests.not_answered(message.request, self.now, unsure=True)
            if granted is not None:
                caller.take(granted)
            elif message.request.payload is not None:
                caller.status = "idle" if self.used["again"] else "gone"
            else:
                caller.status, caller.again = "waiting", True  # it asks again after a moment
                if caller.delivered is not None:
                    caller.take(caller.delivered)
        elif message.what == "release" and message.entry is not None and message.by_caller:
            requests.not_released(message.entry, self.now)  # any other is sent again, till it works
        if message.what in ("renew", "reclaim"):
            requests.silence()
        requests.silence()  # news may have been lost with it

    def _read(self, number: int) -> None:
        message = self.take_message(number)
        requests, caller, reply = self.requests, self.callers[message.caller], message.reply
        if message.what in ("ask", "reclaim"):
            answer = requests.answered(message.request, reply, message.sent_at, self.now)
            self.say()
            if message.what == "ask" and caller.status == "asking":
                caller.take(answer)
        elif message.what == "release":
            if message.entry is not None:
                requests.released(message.entry)
        elif message.entry is not None:
            event, loss = reply
            again = requests.renewed(message.entry, event, message.sent_at, self.now, loss)
            if again is not None:
                self.numbers += 1
                self.messages.append(
                    Message(self.numbers, "reclaim", message.caller, again, self.now)
                )

    def _hear(self, number: int) -> None:
        (news,) = (each for each in self.news if each.number == number)
        self.news.remove(news)
        request_id = self.callers[news.caller].request.id
        if isinstance(news.said, Loss):
            self.requests.heard_loss(request_id, news.said, news.token, self.now)
        else:
            self.requests.heard_answer(request_id, news.said, news.sent_at, self.now)

    def _miss(self, number: int) -> None:
        self.used["miss"] += 1
        self.news = [each for each in self.news if each.number != number]
        self.unheard = True

    def _subscribed(self) -> None:
        self.unheard = False
        self.requests.silence()

    def _noticed(self) -> None:
        self.loop_ended = False
        self.requests.wake(self.now)

    # -- the background ---------------------------------------------------------------------------

    def _turn(self) -> None:
        """The background thread renews and releases what is due."""
        by_id = {caller.request.id: caller for caller in self.callers}
        by_listener = {id(caller): caller for caller in self.callers}
        for entry in self.requests.due(self.now):
            caller = by_listener.get(id(entry.listener), by_id[entry.request.id])
            self.send("renew", caller, entry=entry, by_caller=False)
        sent = {id(each.entry): each for each in self.messages if each.what == "release"}
        for entry in self.requests.releases_due(self.now):
            if id(entry) not in sent:
                self.send("release", by_id[entry.request.id], entry=entry, by_caller=False)
            elif sent[id(entry)].by_caller:
                self.failures.append("L4: it is released twice")

    def _renewal(self) -> None:
        """A third of a lease has passed."""
        self.used["renewal"] += 1
        self.now += LEASE / 3
        self._turn()

    def _away(self) -> None:
        """The server cannot be reached for the time of a lease."""
        self.used["away"] += 1
        messages, self.messages, self.news = self.messages, [], []
        for message in messages:
            if message.what != "stray":
                self.not_answered(message)
        self.say()
        self.now += LEASE
        for request_id, ticket in [*self.server.board.tickets.items()]:
            if ticket.request.payload is None:  # that of a job waits with nobody behind it
                self.server.release(request_id, self.clock)
        for request_id in [*self.server.board.holders]:
            self.server.evict(request_id, self.clock)
            self.tell(Loss.EXPIRED)
        self.news = []
        self.unheard = True
        self.requests.deadlines(self.now)
        self.say()
        if self.requests.releases_due(self.now):
            self.failures.append("L4: what is over is still to be released")

    def _close(self) -> None:
        self.used["close"] += 1
        self.requests.close(self.now)

    # -- the server -------------------------------------------------------------------------------

    @property
    def clock(self) -> int:
        return int(self.now * 1_000_000)

    def do(self, message: Message) -> Any:
        """Carry out what has arrived; returns the reply."""
        request, what = message.request, message.what
        name = request.claimant or request.id
        if what in ("ask", "stray", "reclaim"):
            if name in self.gone:
                return Replaced(request.demands[0].key)
            if what != "stray":
                self.ended.pop(request.id, None)
            reply = self.server.acquire(
                request._replace(listener=self.process_of(request)), self.clock
            )
            self.tell()
            if isinstance(reply, Granted):
                holder = self.server.board.holders[request.id]
                holder.request = request._replace(listener=self.process_of(request))
                self.ends[request.id] = self.now + LEASE
                return Granted(reply.fencing_token, LEASE)
            return reply
        if what == "release":
            if message.entry is not None and message.entry.unsure:
                self.gone.add(name)
            holder = self.server.board.holders.get(request.id)
            if request.payload is None or (
                holder is not None
                and holder.claimed
                and holder.request.claimant == request.claimant
            ):
                self.server.release(request.id, self.clock)
            self.tell()
            return True
        holder = self.server.board.holders.get(request.id)
        if holder is not None and holder.request.claimant != request.claimant:
            return Event.LOST, Loss.EXPIRED
        renewal = self.server.renew([request.id], self.clock)
        self.tell()
        if request.id in self.server.board.holders:
            self.ends[request.id] = self.now + LEASE
        if request.id in renewal.preempted:
            return Event.PREEMPTED, Loss.PREEMPTED
        if request.id in renewal.gone:
            loss = self.ended.get(request.id)
            return (Event.UNKNOWN, Loss.FORGOTTEN) if loss is None else (Event.LOST, loss)
        if holder is not None and not holder.claimed:
            return Event.LOOK, Loss.FORGOTTEN
        holds = request.id in self.server.board.holders
        return (Event.ALIVE if holds else Event.WAITS), Loss.FORGOTTEN

    def process_of(self, request: Request) -> Any:
        return self.process

    def tell(self, instead: Loss | None = None) -> None:
        """Send what the last step has to say."""
        calls, self.server.calls = self.server.calls, []
        self.server.notices = []
        for request, what in calls:
            said = what
            if request.listener is not self.process:
                continue
            if isinstance(said, Loss) and said is not Loss.PREEMPTED:
                said = instead or said
                self.ended[request.id] = said
            token = self.tokens.get(request.id, 0) if isinstance(said, Loss) else 0
            if isinstance(said, Granted) and self.by_others:
                # It was another process's step: the waiter has to come for its slot.
                self.server.board.holders[request.id].claimed = False
                said = None
            elif isinstance(said, Granted):
                self.ends[request.id] = self.now + LEASE
                said = Granted(said.fencing_token, LEASE)
            number = next(
                each.number
                for each in self.callers
                if each.request.id == request.id and (each.request.claimant == request.claimant)
            )
            self.numbers += 1
            self.news.append(News(self.numbers, number, said, token, self.now))
        self.tokens = {id_: h.fencing_token for id_, h in self.server.board.holders.items()}

    tokens: dict[str, int] = field(default_factory=dict[str, int])
    ends: dict[str, float] = field(default_factory=dict[str, float])
    """When the server's leases end."""
    stubborn: bool = False
    """Whether callers go on when they are preempted."""
    by_others: bool = False
    """Whether it is another process that has a step done."""

    def server_has(self, caller: Caller) -> str:
        """Return what the server has of a caller: "holds", "waits", or ""."""
        request = caller.request
        holder = self.server.board.holders.get(request.id)
        if holder is not None:
            return "holds" if holder.request.claimant == request.claimant else ""
        return "waits" if request.id in self.server.board.tickets else ""

    def _evict(self, number: int) -> None:
        self.used["end"] += 1
        self.server.evict(self.callers[number].request.id, self.clock)
        self.tell()

    def _expire(self, number: int) -> None:
        self.used["end"] += 1
        self.server.evict(self.callers[number].request.id, self.clock)
        self.tell(Loss.EXPIRED)

    def _outsider_holds(self) -> None:
        self._outsider(ConflictResolution.QUEUE)

    def _outsider_preempts(self) -> None:
        self._outsider(ConflictResolution.CANCEL_RUNNING)

    def _outsider(self, on_conflict: ConflictResolution) -> None:
        self.used["outsider"] += 1
        self.outsider = "holds"
        demand = Demand("k", 1, on_conflict=on_conflict)
        request = Request("other", (demand,), LEASE, listener=Stranger())
        self.server.acquire(request, self.clock)
        self.tell()

    def _outsider_leaves(self) -> None:
        self.outsider = "left"
        self.server.release("other", self.clock)
        self.by_others = True
        self.tell()
        self.by_others = False

    def _data_lost(self) -> None:
        self.used["data lost"] += 1
        self.unheard = True  # it began anew
        self.server = Machine()
        self.server._last_token = self.clock
        self.tokens, self.ended, self.gone, self.outsider = {}, {}, set(), ""
        # It began anew: what was on its way is lost with the connections.
        messages, self.messages, self.news = self.messages, [], []
        for message in messages:
            if message.what != "stray":
                self.not_answered(message)

    # -- what has to be true ----------------------------------------------------------------------

    def settle(self) -> None:
        """Let all arrive that is on its way, in little time; nobody does anything new."""
        self.used["again"] = 1
        for _ in range(100):
            event = self.next_to_settle()
            if event is None:
                return
            self.play(event)
        self.failures.append("it never comes to rest")

    def next_to_settle(self) -> str | None:
        for message in self.messages:
            return f"arrive {message.number}" if message.reply is None else f"read {message.number}"
        for news in self.news:
            return f"hear {news.number}"
        if self.unheard:
            return "subscribed"
        if self.loop_ended:
            return "noticed"
        for caller in self.callers:
            if caller.status == "waiting" and caller.again:
                return f"ask {caller.number}"
        if any(entry.renew_at <= self.now for entry in self.all_entries()):
            return "turn"
        return None

    def broken(self) -> list[str]:
        """Return which laws are broken, once all has settled."""
        found = list(self.failures)
        requests = self.requests
        for caller in self.callers:
            has, number, status = self.server_has(caller), caller.number, caller.status
            holder = self.server.board.holders.get(caller.request.id)
            entry = requests.entries.get(caller.request.id)
            mine = entry is not None and entry.listener is caller
            told = self.stubborn and caller.loss is Loss.PREEMPTED
            unheard = holder is None or (holder.preempted and not told)
            if status == "held" and (has != "holds" or unheard):
                found.append(f"L1: caller {number} holds, and was not told of its loss")
            elif status == "held" and not (mine and entry and entry.state is State.HELD):
                found.append(f"L3: the lease of caller {number} is not renewed")
            elif status == "held" and entry is not None:
                ends_at = self.ends[caller.request.id]
                if not self.now < entry.expires_at < ends_at < entry.expires_at + LEASE / 5:
                    found.append(f"L3: caller {number} counts on a wrong end")
                if entry.renew_at > entry.expires_at:
                    found.append(f"L3: the lease of caller {number} is renewed too late")
                if abs(caller.ends_at - entry.expires_at) > 1:
                    found.append(f"L7: caller {number} was told another end")
            elif status == "waiting" and has != "waits":
                found.append(f"L2: caller {number} waits for nothing: {has or 'no ticket'}")
            elif status == "waiting" and not (mine and entry and entry.state is State.WAITING):
                found.append(f"L3: the ticket of caller {number} is not renewed")
            elif status not in ("held", "waiting") and has == "holds" and holder and holder.claimed:
                found.append(f"L4: nobody has the lease of caller {number}, which is {status}")
            elif status == "gone" and has == "waits" and caller.request.payload is None:
                found.append(f"L4: nobody has the ticket of caller {number}")
            if mine and status not in ("held", "waiting"):
                found.append(
                    f"L5: caller {number} is {status}, its entry {entry and entry.state.name}"
                )
            if len(caller.outcomes) > 1:
                found.append(f"L7: caller {number} was told {caller.outcomes}")
        books = {
            State.ASKED: [*requests.entries.values(), *requests.rivals.values()],
            State.RELEASING: [*requests.releasing.values()],
            State.GONE: [],
        }
        books[State.WAITING] = books[State.HELD] = books[State.ASKED]
        for entry in self.seen:
            there = [state for state, book in books.items() if entry in book]
            if entry.state not in (there or [State.GONE]):
                found.append(f"L5: an entry that is {entry.state.name} is in the wrong book")
        if requests.releasing:
            found.append("L4: a release was not confirmed, and is not sent again")
        if requests.rivals:
            found.append("L5: a second delivery is still in the books")
        return found

    def fingerprint(self) -> object:
        """Return what tells this world from others, whatever time and numbers are."""
        requests, board = self.requests, self.server.board
        return (
            tuple(
                (c.status, c.again, _kind(c.delivered), c.loss, c.is_there, len(c.outcomes))
                for c in self.callers
            ),
            tuple(
                sorted(
                    (m.what, m.caller, repr(_kind(m.reply)), m.by_caller, _state(m.entry))
                    for m in self.messages
                )
            ),
            tuple(
                (n.caller, _kind(n.said), n.token == self.tokens.get(self.id_of(n.caller)))
                for n in self.news
            ),
            tuple(map(_state, requests.entries.values())),
            tuple(map(_state, requests.releasing.values())),
            tuple(map(_state, requests.rivals.values())),
            tuple(
                (h.request.id, h.request.claimant, h.claimed, h.preempted)
                for h in board.holders.values()
            ),
            tuple(board.tickets),
            tuple(sorted(self.gone)),
            tuple(sorted(self.ended)),
            tuple(sorted(self.used.items())),
            self.unheard,
            self.loop_ended,
            self.outsider,
            requests.closing,
        )

    def id_of(self, number: int) -> str:
        return self.callers[number].request.id


def _kind(said: Any) -> object:
    return (
        said
        if said is None or (isinstance(said, Loss | tuple) and not hasattr(said, "_fields"))
        else type(said).__name__
    )


def _state(entry: Entry | None) -> object:
    if entry is None:
        return ""
    early = entry.early and entry.early[0].name
    flags = entry.renew_at == NOW, entry.unsure, entry.preempted, bool(entry.token)
    return f"{entry.request.id} {entry.request.claimant} {entry.state.name} {early} {flags}"


def run(kind: str, events: list[str] | tuple[str, ...]) -> World:
    """Return the world in which these events have happened."""
    world = World.of(kind)
    for event in events:
        world.play(event)
    return world


def faults_of(kind: str, events: tuple[str, ...]) -> list[str]:
    """Return the laws that are broken once all has settled after these events."""
    world = run(kind, events)
    world.settle()
    return world.broken()


HOLDS = ("ask 0", "arrive 1", "read 1")
WAITS = (*HOLDS, "ask 1", "arrive 2", "read 2")
SITUATIONS = {
    "nothing": (),
    "one holds": HOLDS,
    "one holds, one waits": WAITS,
    "one holds, one asks again": (*WAITS, "hint 1", "ask 1"),
    "one waits behind a stranger": ("outsider holds", "ask 0", "arrive 1", "read 1"),
    "one is offered a slot, and asks": (
        *("outsider holds", "ask 0", "arrive 1", "read 1"),
        *("hint 0", "ask 0", "arrive 2", "outsider leaves", "renewal"),
    ),
    "one asks again, and is offered a slot": (
        *("outsider holds", "ask 0", "arrive 1", "read 1"),
        *("hint 0", "ask 0", "arrive 2", "outsider leaves"),
    ),
    "a grant is on its way to one who asks again": (
        *(*WAITS, "hint 1", "ask 1", "leave 0", "arrive 4"),
    ),
    "a grant and its loss are on their way": (*WAITS, "leave 0", "arrive 3", "evict 1"),
    "the store lost its data": (
        *(*HOLDS, "data lost", "outsider holds", "subscribed", "turn", "arrive 2", "read 2"),
    ),
    "a job's lease is over, unheard": (
        *(*HOLDS, "expire 0", "miss 2", "outsider holds"),
        *("ask 1", "arrive 3", "read 3", "outsider leaves"),
    ),
}
"""What has happened before the events whose orders are tried."""


def orders(kind: str, most: int, situation: str = "nothing") -> Iterator[tuple[str, ...]]:
    """Yield orders of events, the shortest first, each of which leads where none before it did."""
    seen: set[object] = set()
    before = SITUATIONS[situation]
    for at, event in enumerate(before):
        if event not in run(kind, before[:at]).events():
            return  # it does not come to that
    frontier: deque[tuple[str, ...]] = deque([before])
    while frontier and len(seen) < most:
        before = frontier.popleft()
        for event in list(run(kind, before).events()):
            after = (*before, event)
            fingerprint = run(kind, after).fingerprint()
            if fingerprint not in seen:
                seen.add(fingerprint)
                frontier.append(after)
                yield after


QUEUE = ConflictResolution.QUEUE


class Stranger:
    """Somebody of another process."""

    def look_again(self, answer: Answer | None = None) -> bool:
        return True

    def lease_renewed(self, expires_at: float) -> None:
        pass

    def lease_lost(self, loss: Loss) -> None:
        pass
