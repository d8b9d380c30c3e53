"""What the engines of both limiters share: settings, state, checks of what an operator gives."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
import weakref
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal, Self

from limiter_core import tracing
from limiter_core._call import Call
from limiter_core._checks import check_on_store_error, check_seconds, short_label
from limiter_core._collected import do_later, is_collecting, notify_later, when_finalized
from limiter_core._event_log import LOG
from limiter_core._held_calls import HeldCalls, leases_around
from limiter_core._hold_times import hold_times
from limiter_core._identity import new_id, process_label
from limiter_core._long_waits import watch_rings
from limiter_core._observed_call import ObservedCall
from limiter_core._observers import (
    Observer,
    ObserverSet,
    Registration,
    is_in_observer,
    of_process,
    registration_of,
)
from limiter_core._prepare import Arguments, Limits, is_view
from limiter_core._retry_advice import RetryAdvice
from limiter_core._store_outages import outage_of
from limiter_core.errors import ConfigurationError, LimiterError, StoreError, StoreUnavailable
from limiter_core.jitter import jitter
from limiter_core.limits import Terms
from limiter_core.outage import outage_of_calls
from limiter_core.registry import open_store
from limiter_core.requests import CLAIM, Demand, Loss, Mode, Request, from_fields
from limiter_core.store import Store

logger = logging.getLogger("limiter")

OnStoreError = Literal["raise", "admit"]

CLOSING_PATIENCE = 5.0
"""Seconds that waiters may take to leave when their limiter is closed."""

WAIT = Mode.WAIT  # to find a member of an enum takes as long as some calls of functions

WARN_AFTER = 60.0
"""Seconds that a call waits before that is logged, unless its limiter says otherwise."""

_SHORT_HOLD = 0.01
"""Seconds: to measure a longer hold costs nothing that matters beside it."""
_SAMPLED = 8
"""Of shorter holds, one in so many to so many and 15 is measured; a fixed number might be in step
with a pattern of the calls, so that some of them never are."""

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine(HeldCalls):
    """The settings of a limiter, and the state of its calls."""

    let_expire: Callable[[str, str], None]
    """Has a lease renewed no more."""
    _abandon: Callable[[str, tuple[str, ...], str], None]
    """Releases in the background, and waits for nothing."""

    def __init__(
        self,
        store: str | Store,
        *,
        on_store_error: OnStoreError,
        label: str | None,
        observe: Observer | None = None,
        warn_after: float | timedelta | None = None,
    ) -> None:
        check_on_store_error(on_store_error)
        self.owns_store = isinstance(store, str)
        self._given_store = store
        self.store = open_store(store)
        self.suspends = self.store.capabilities.suspends
        self.on_store_error: OnStoreError = on_store_error
        self.closed = False
        self.admitted = 0
        """Calls that were let through because the store could not be reached."""
        self._given_label = None if label is None else short_label(label)
        self._label = process_label() if self._given_label is None else self._given_label
        _engines.add(self)
        HeldCalls.__init__(self)
        where = repr(self.store)
        self.outage = outage_of_calls(where, admits=on_store_error == "admit")
        self.warn_after = None if warn_after is None else check_seconds(warn_after, "warn_after")
        self._observe = observe
        self.registrations: tuple[Registration, ...] = ()
        """The observers of this limiter alone."""
        if observe is not None:
            self.registrations = (registration_of(observe),)
            outage_of(where).add_observer(self.registrations[0])
        self.advice = RetryAdvice()
        self.until_measured = 0
        """Grants to come until a hold is measured: 1 or less, it is the next one."""
        self.waiting: set[Call] = set()
        """Calls that wait for slots."""

    def copied(self) -> Self:
        """Return an engine on the same store, which it does not own, with a state of its own."""
        copy = type(self)(
            self.store,
            on_store_error=self.on_store_error,
            label=self._given_label,
            observe=self._observe,
            warn_after=self.warn_after,
        )
        copy.closed = self.closed
        return copy

    def __getstate__(self) -> dict[str, Any]:
        # A store of a URL is made again there; a store that cannot be pickled raises here.
        self.store.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
        return {
            "store": self._given_store,
            "on_store_error": self.on_store_error,
            "label": self._given_label,
            "observe": self._observe,
            "warn_after": self.warn_after,
            "closed": self.closed,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        closed = state.pop("closed")
        self.__init__(**state)  # type: ignore[misc]
        self.closed = closed

    @property
    def label(self) -> str:
        """The name of this process's callers in `inspect`."""
        return self._label

    def observed_call(
        self,
        limits: Limits,
        arguments: Arguments,
        now: Callable[[], float],
    ) -> ObservedCall | None:
        """Return what sends the events of a call that begins now; None if nothing is to be sent."""
        if is_in_observer():
            return None
        observers = of_process.observers
        if self.registrations:
            # Its own first: one that is of the process as well is called after its removal there.
            observers = ObserverSet((*self.registrations, *observers.registered))
        if logger.isEnabledFor(logging.DEBUG):
            observers = observers.joined_by(LOG)
        if not observers.registered:
            return None
        function = adapter = None
        if is_view(arguments):
            function, adapter = arguments.function_name, arguments.adapter
        return ObservedCall(observers, now, function, adapter, limits)

    def prepare(self, call: Call, demands: tuple[Demand, ...], terms: Terms, mode: Mode) -> Request:
        """Give a new call its request, and return it."""
        timeout, lease, max_hold, _ = terms
        label = self._label if tracing.source is None else tracing.with_trace(self._label)
        # A waiter that died delays the next no longer than a holder that did.
        claim = lease if lease < CLAIM else CLAIM  # noqa: FURB136  (`min` takes ten times as long)
        deadline = None if timeout is None else call.now() + timeout
        call.demands = demands
        request_id = call.id = new_id()
        # fmt: off
        request = call.request = from_fields(Request, (
            request_id, demands, lease, mode, max_hold, claim, None, None, "", label, None, call,
            deadline, None,
        ))
        # fmt: on
        return request

    def check_open(self) -> None:
        """Refuse a call to a closed limiter.

        Raises:
            ConfigurationError: it is closed.
        """
        if self.closed:
            raise ConfigurationError("this limiter is closed; make a new one")

    def close(self) -> None:
        """Take no more calls, and have those end that wait."""
        self.closed = True
        # Another limiter on the store logs its own.
        self.outage = outage_of_calls(None, admits=self.on_store_error == "admit")
        for call in list(self.waiting):
            if not call.look_again():
                self.waiting.discard(call)  # its event loop is gone, and so is the call

    def begin_waiting(self, call: Call) -> None:
        """Note a call that waits from now on."""
        call.begin_waiting()
        if self.warn_after is not None:
            call.look_at = call.warn_at = call.waiting_since + self.warn_after
        if self._holding and call.request.deadline is None:
            watch_rings(call, leases_around(self._holding.get(call.owner)))
        self.waiting.add(call)
        if self.closed:
            self.check_waiting()

    def end_waiting(self, call: Call) -> None:
        """Note that a call waits no more: it has its slots."""
        self.waiting.discard(call)
        now = call.now()
        call.waited += now - call.waiting_since  # once more, if it asked again
        self.until_measured -= 1
        if self.until_measured <= 0:
            call.granted_at = now

    def note_hold(self, call: Call, granted_at: float) -> None:
        """Note how long slots were held that are released now; those of short holds are sampled."""
        held = call.now() - granted_at
        if call.loss is None:
            hold_times.note(call.demands, held)
        self.until_measured = 1 if held >= _SHORT_HOLD else _SAMPLED + jitter.getrandbits(4)

    def check_waiting(self) -> None:
        """End the waiting of a call whose limiter was closed.

        Raises:
            StoreError: it was.
        """
        if self.closed:
            raise StoreError("closed: this limiter was closed while the call waited for a slot")

    def must_release_later(self) -> bool:
        """Whether the garbage collector runs this, perhaps amid code that has a lock of the store.

        A store that never suspends minds that itself.
        """
        return self.suspends and is_collecting()

    def collected(self, call: Call, watch: object) -> None:  # noqa: ARG002
        """Note a lease that was collected, perhaps unreleased.

        Called by the garbage collector, so this takes no lock.
        """
        if not call.closed and not call.settled and not call.is_closed_by_loop():
            when_finalized(partial(self._forget, call))

    def _forget(self, call: Call) -> None:
        """Renew a lease no more that was collected unreleased, and say so.

        Its slot is not released at once: the code that lost the lease object may still run.
        """
        if call.closed or call.settled:
            return
        call.forgotten = True
        call.closed = True
        call.watch = None
        if call.loss is not None and call.loss is not Loss.PREEMPTED:
            return
        if call.observed is not None:
            call.observed.lost(None, notify_later)

        claimant = call.request.claimant

        def let_go() -> None:
            self.ended(call)
            self.let_expire(call.id, claimant)

        do_later(let_go)
        warnings.warn(
            f"the lease {call.id} on {', '.join(call.keys)} was never released: it is "
            f"renewed no more, and ends with its lease time of {call.request.lease:g} s. Use "
            "`with`, or release it in a `finally`",
            ResourceWarning,
            stacklevel=2,
        )

    def admits(self, error: LimiterError, key: str) -> bool:
        """Whether a call runs without a slot, since the store cannot be reached."""
        if self.on_store_error != "admit" or not isinstance(error, StoreUnavailable):
            return False
        self.admitted += 1
        self.outage.began(error, key)
        logger.warning("admitted a call without a slot: %s", error)
        return True

    def admits_in_doubt(self, call: Call, error: LimiterError) -> bool:
        """Whether a call runs without a slot that the store may have given it, or not."""
        # A grant that was not received is released in the background.
        self._abandon(call.id, call.keys, call.request.claimant)
        call.settle()
        admitted = self.admits(error, call.keys[0])
        if admitted:
            self.waiting.discard(call)
        return admitted

    def forget_parent(self) -> None:
        """Forget what the parent holds, in a process made by `fork`."""
        HeldCalls.__init__(self)
        self.waiting.clear()
        self._label = process_label() if self._given_label is None else self._given_label


def _after_fork_in_child() -> None:
    for engine in _engines:
        engine.forget_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
