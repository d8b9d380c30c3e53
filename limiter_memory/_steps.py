"""How the memory store makes a step of its state machine: one at a time, and never half of one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TypeVar

from limiter_core.requests import Loss, Notice
from limiter_core.store import log_deferred
from limiter_core.system_clock import system_clock as time
from limiter_memory._effects import Effects
from limiter_memory._machine import Machine
from limiter_memory._uncontended import QuickMachine

R = TypeVar("R")

_TRIES = 10
"""How often it is begun again to recover from an exception."""


def _no_step(machine: Machine, now: int) -> None:
    """Make no step of its own; see `_recover`."""


class Steps:
    """One lock around one state machine; what a step has to send is sent when the lock is free.

    Args:
        clock: as that of `MemoryStore`.
    """

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._clock = time.monotonic if clock is None else clock
        self._epoch = time.time() - time.monotonic() if clock is None else 0.0
        self._lock = threading.Lock()
        self._owner = 0
        """The thread that makes a step, 0 for none. A thread that has the lock and finds another
        one here knows that the step of that thread was interrupted."""
        self._postponed: deque[tuple[str, str | None]] = deque()
        """What a thread was asked to release during its own step, or has no caller any more: ids,
        and of a job the claimant."""
        self._unsent: dict[Effects, None] = {}
        """Effects of steps that are not completely sent."""
        self._machine = QuickMachine()
        self._on_notice_callback: Callable[[Notice], object] | None = None

    def _step(self, step: Callable[[Machine, int], R]) -> R:
        try:
            with self._lock:
                if self._owner:
                    self._recover_step()
                self._owner = get_ident()
                result = step(self._machine, self._microseconds())
                self._release_postponed()
                effects = self._take_effects()
                self._owner = 0
            self._apply(effects)
            return result  # noqa: TRY300  (an exception may be thrown in here, too)
        except BaseException:
            self._recover()
            raise

    def _take_effects(self) -> Effects:
        machine = self._machine
        effects = Effects(machine.calls, machine.notices, machine.deferred)
        self._unsent[effects] = None  # before the machine forgets them
        machine.calls, machine.notices, machine.deferred = [], [], []
        return effects

    def _release_postponed(self) -> None:
        while self._postponed:
            lease_id, claimant = self._postponed[0]
            if claimant is None:
                self._machine.release(lease_id, self._microseconds())
            else:
                self._machine.release_claim(lease_id, claimant, self._microseconds())
            self._postponed.popleft()

    def _apply(self, effects: Effects | None) -> None:
        if effects is not None:
            self._send(effects)
        while self._postponed:  # these have no caller any more: the next are served
            with self._lock:
                if self._owner:
                    self._recover_step()
                self._owner = get_ident()
                self._release_postponed()
                effects = self._take_effects()
                self._owner = 0
            self._send(effects)

    def _send(self, effects: Effects) -> None:
        """Notify listeners and gates; requests without a caller are released afterwards."""
        for request, news in effects.calls:
            listener = request.listener
            assert listener is not None
            if isinstance(news, Loss):
                listener.lease_lost(news)
            elif not listener.look_again(news):
                self._postponed.append((request.id, None))
        if effects.notices and self._on_notice_callback is not None:
            for notice in effects.notices:
                self._on_notice_callback(notice)
        for ticket, key, name in effects.deferred:
            log_deferred(ticket, key, name)
        self._unsent.pop(effects, None)

    def _recover_step(self) -> None:
        """Finish or undo a step that was interrupted; the lock is held."""
        self._machine.recover(self._microseconds())

    def _recover(self) -> None:
        """Make the table consistent after an exception, and send what is not sent yet.

        A notification that is sent twice does no harm. If this is interrupted as well, it starts
        again; what it cannot complete, the next step does.
        """
        for _ in range(_TRIES):
            try:
                if not self._owner and not self._unsent and not self._postponed:
                    return
                self._step(_no_step)
                for effects in list(self._unsent):
                    self._send(effects)
                return  # noqa: TRY300
            except BaseException:  # noqa: S112, BLE001  (the first one is raised)
                continue
        self._unsent.clear()  # a callback that always raises is not called again and again

    def _microseconds(self) -> int:
        return int((self._clock() + self._epoch) * 1_000_000)

    def start_over_in_child(self) -> None:
        """Forget the parent's leases and tickets, in a process made by `fork`."""
        parents, policies = self._machine.table.keys.values(), self._machine.policies
        self._postponed.clear()
        self._unsent.clear()
        self._owner = 0
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._machine = QuickMachine()
        self._machine.policies = policies
        for parent in parents:
            if parent.paused or parent.override is not None:
                state = self._machine.table.state(parent.key)
                state.paused, state.override = parent.paused, parent.override
                state.name = parent.name
