"""One call's way from asking for a slot to giving it back, without I/O: both worlds share it.

`Call` is what is known of it; `_patience` decides, answer by answer, what to do next. The limiters
only carry out its decisions: ask the store, wait, release.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from limiter_core._observed_call import ObservedCall
from limiter_core._rings import RingWatch
from limiter_core.errors import (
    LeaseLost,
    LimiterError,
    Preempted,
    StoreError,
    StoreUnavailable,
)
from limiter_core.limits import Terms
from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    Loss,
    Queued,
    Request,
)

logger = logging.getLogger("limiter")

_NO_REQUEST = Request("", ())


class LeaseWatcher(Protocol):
    """The part of an engine that a call uses."""

    def collected(self, call: Any, watch: object) -> None:
        """Note that a lease was garbage-collected, perhaps unreleased."""
        ...

    def ended(self, call: Any) -> None:
        """Note that a call holds nothing any more for its task or thread."""
        ...


class Call:
    """What is known of one call. It is the store's `Listener`, so its methods come from any thread.

    Attributes:
        id: that of its ticket, and then of its lease.
        demands: what it wants, or has, of each key.
        request: what the store is asked, set when the call is known well enough; an empty one once
            it is settled.
        owner: the task or thread that asked.
        delivered: the answer that came with the wake-up, None if the store has to be asked.
        order: the place in line that the store gave, None before.
        outer: the call that the same task or thread began before.
        block: the id of the frame whose `with` statement holds it; 0 if none certainly does.
        granted: the store's grant; None while waiting, and for a call admitted without a store.
        granted_at: when that was, on the call's clock; None if its hold is not measured.
        loss: why the lease ended, None while it lives.
        ends_at: when the holder counts it as lost unless renewed, on the call's clock; None: never.
        margin: seconds that the store keeps it for longer; if it ends.
        held_until: when `max_hold` is over; if it ends.
        watch: notices that the lease is garbage-collected; None once it is being released.
        engine: what is notified of that.
        closed: True from the moment of the release; a loss after that is none.
        forgotten: True for a lease that was collected unreleased; it may come back to life, as an
            asynchronous generator does to be closed, and be released after all.
        settled: True when the store knows nothing (more) of this call.
        observed: sends what happens to the observers; None if there are none.
        waited: seconds that it waited for its grant.

    Of a call that waits, or did:
        waiting_since: when it began to wait, on its clock.
        queued: the last answer `Queued`.
        failures: how often in a row the store could not be reached.
        trouble: why it could not the last time; None if it only gave no answer in time.
        look_at: when it is to be looked at, on its clock: the earliest of the next.
        warn_at: when that it waits for long is to be logged.
        rings: looks whether it waits for calls that wait for it; None if it holds nothing.
    """

    # Slots: an attribute of an instance is read in a tenth of the time of a default of its class.
    # Most calls never wait, and have a lease without an end: what the others have is set there.
    __slots__ = (
        "block",
        "closed",
        "delivered",
        "demands",
        "ends_at",
        "engine",
        "failures",
        "forgotten",
        "granted",
        "granted_at",
        "held_until",
        "id",
        "look_at",
        "loss",
        "margin",
        "now",
        "observed",
        "on_lost",
        "order",
        "outer",
        "owner",
        "queued",
        "request",
        "rings",
        "settled",
        "trouble",
        "waited",
        "waiting_since",
        "warn_at",
        "watch",
    )

    id: str
    demands: tuple[Demand, ...]
    request: Request
    engine: LeaseWatcher
    trouble: StoreUnavailable | None

    def __init__(self, owner: Any, terms: Terms, now: Callable[[], float]) -> None:
        self.owner = owner
        self.on_lost = terms.on_lost
        self.now = now
        self.delivered: Answer | None = None
        self.order: int | None = None
        self.outer: Call | None = None
        self.block = 0
        self.granted: Granted | None = None
        self.granted_at: float | None = None
        self.loss: Loss | None = None
        self.ends_at: float | None = None
        self.watch: object = None
        self.closed = False
        self.forgotten = False
        self.settled = False
        self.observed: ObservedCall | None = None
        self.waited = 0.0

    def begin_waiting(self) -> None:
        """Note that it waits from now on."""
        self.waiting_since = self.now()
        self.queued: Queued | None = None
        self.failures = 0
        self.trouble = None
        self.look_at = math.inf
        self.warn_at = math.inf
        self.rings: RingWatch | None = None

    # -- Listener ---------------------------------------------------------------------------------

    def look_again(self, answer: Answer | None = None) -> bool:
        """Wake the waiter; whether it is still there. Each world does it in its own way."""
        raise NotImplementedError

    def deliver(self, answer: Answer | None) -> None:
        """Note what came with a wake-up.

        The lease counts from now, and may be renewed before the waiter continues.
        """
        if isinstance(answer, Granted) and answer.expires_in is not None:
            self._note_end(answer, answer.expires_in, self.now())
        self.delivered = answer

    def lease_renewed(self, expires_at: float) -> None:
        """Note the new end."""
        self.ends_at = expires_at

    def lease_lost(self, loss: Loss) -> None:
        """Note the loss, once, and act on it as `on_lost` demands."""
        if self.closed:
            return
        first = self.loss is None
        if first:
            self.loss = loss
        if self.observed is not None:
            self._observe_loss(loss)
        if not first:
            return
        if self.granted is None:
            return  # the waiter has not learnt of its grant yet; it will see the loss with it
        if self.on_lost == "warn":
            logger.warning("%s", self.loss_error())
        else:
            self.interrupt()

    def is_closed_by_loop(self) -> bool:
        """Whether an event loop closes the generator that holds it, if that is collected."""
        return False

    def interrupt(self) -> None:
        """Stop the body, where that is possible. Each world does it in its own way."""
        raise NotImplementedError

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called where observers are: not in a thread of the store."""
        raise NotImplementedError

    def _observe_loss(self, loss: Loss) -> None:
        assert self.observed is not None
        if loss is Loss.PREEMPTED:
            self.observed.preempted(self.call_soon)
        else:
            self.observed.lost(loss, self.call_soon)

    def take_delivery(self) -> Answer | None:
        """Return the answer that came with the wake-up, None if there is none."""
        answer = self.delivered
        self.delivered = None
        if isinstance(answer, Granted):
            self.granted = answer
        return answer

    def is_late(self) -> bool:
        """Whether the caller's patience has ended."""
        deadline = self.request.deadline
        return deadline is not None and self.now() >= deadline

    def until_look(self, seconds: float) -> float:
        """Return for how long it may wait for news: until it is to be looked at, at the most."""
        if self.look_at == math.inf:
            return seconds
        return min(seconds, max(0.0, self.look_at - self.now()))

    def settle(self) -> None:
        """Note that the store is to know nothing more of this call.

        What refers to it is forgotten, a request, or an error by its traceback: in a cycle, the
        call and the task that made it would stay until the garbage collector runs.
        """
        self.settled = True
        self.request = _NO_REQUEST
        self.trouble = None

    def lease_collected(self, watch: object) -> None:
        """Notify the engine that the lease object was collected; the garbage collector calls it."""
        self.engine.collected(self, watch)

    # -- the lease --------------------------------------------------------------------------------

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in the order of the limits."""
        demands = self.demands
        if len(demands) == 1:
            return (demands[0].key,)
        return tuple(demand.key for demand in demands)

    def grant(self, granted: Granted, sent_at: float | None = None) -> None:
        """Note the grant. The lease counts from the moment the request was sent, default now."""
        self.granted = granted
        if granted.expires_in is not None:
            since = self.now() if sent_at is None else sent_at
            self._note_end(granted, granted.expires_in, since)

    def _note_end(self, granted: Granted, expires_in: float, since: float) -> None:
        self.margin = granted.margin
        max_hold = self.request.max_hold
        self.held_until = math.inf if max_hold is None else since + max_hold
        end = since + expires_in
        if self.ends_at is None or self.ends_at < end:  # it may have been renewed meanwhile
            self.ends_at = end  # last: with an end, the others are read

    def came_late(self) -> bool:
        """Whether so much time passed around the answer that its lease may be over: it asks again.

        The thread was held up, before the request was sent or after the reply came, as the others
        of a greenlet's are that computes. The store may have begun the lease long after that. The
        last question is the one that was asked when the caller's patience had ended. Where a store
        itself says that a lease is over, it is.
        """
        granted, ends_at = self.granted, self.ends_at
        if granted is None or not granted.expires_in or ends_at is None or self.now() < ends_at:
            return False
        deadline = self.request.deadline
        asked_at = ends_at - granted.expires_in
        return self.loss is None and (deadline is None or asked_at < deadline)

    def fencing_tokens(self) -> Mapping[str, int]:
        """Return the token per key."""
        token = 0 if self.granted is None else self.granted.fencing_token
        return MappingProxyType(dict.fromkeys(self.keys, token))

    def seconds_left(self) -> float:
        """Return the seconds until the store ends the lease unless it is renewed."""
        if self.closed or (self.loss is not None and self.loss is not Loss.PREEMPTED):
            return 0.0
        if self.ends_at is None:
            return math.inf
        now = self.now()
        if now >= self.ends_at:
            return 0.0
        return min(self.ends_at + self.margin, self.held_until) - now

    def is_around(self, frames: set[int]) -> bool:
        """Whether the running code lies in the block that holds it, given the frames on its stack.

        Only then is it certain that no other code releases it while that code waits.
        """
        return self.block in frames

    def ends_by_itself(self) -> bool:
        """Whether its slots come back while the code that holds them waits: at `max_hold`."""
        return self.request.max_hold is not None

    def is_lost(self) -> bool:
        """Whether the slot is gone, or claimed by a newer call, before the holder released it."""
        if self.loss is None and self.ends_at is not None and not self.closed:
            if self.now() >= self.ends_at:
                self.loss = Loss.EXPIRED if self.request.max_hold is None else Loss.OVERRAN
                if self.observed is not None:
                    self.observed.lost(self.loss, self.call_soon)
        return self.loss is not None

    def loss_error(self) -> LeaseLost:
        """Return the error for the loss."""
        loss = self.loss or Loss.EXPIRED
        kind = Preempted if loss is Loss.PREEMPTED else LeaseLost
        return kind(self.id, self.keys, loss.value)


def is_in_doubt(error: LimiterError) -> bool:
    """Whether a call ended while the store may know of it, and would not say so."""
    return isinstance(error, StoreError) or isinstance(error.__cause__, StoreError)


def could_not_release(call: Call, error: Exception) -> None:
    """Warn that a lease was left to its end; not of a call that never got one."""
    if call.granted is not None:
        logger.warning("could not release %s, its lease ends by itself: %s", call.keys, error)
