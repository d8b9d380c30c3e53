"""Which stores this process cannot use at present, for `StoreFailed` and `StoreRecovered`.

Limiters and gates on one store share its outage: each observer is sent one event for its begin, and
one for its end.
"""

from __future__ import annotations

import os
import weakref

from limiter_core._observers import ObserverSet, Registration, of_process, send
from limiter_core.events import StoreFailed, StoreRecovered
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock


class _OfProcess:
    """What this process knows of its stores.

    Attributes:
        lock: is held for moments.
        failing_since: when outages began, by the stores' names.
        observers: those of one limiter, likewise.
    """

    def __init__(self) -> None:
        self.lock = new_lock()
        self.failing_since: dict[str, float] = {}
        self.observers: dict[str, weakref.WeakSet[Registration]] = {}


_here = _OfProcess()


def add_observer_of(store: str, registration: Registration) -> None:
    """Send the outages of a store to an observer of one limiter, while that exists."""
    with _here.lock:
        _here.observers.setdefault(store, weakref.WeakSet()).add(registration)


def note_failure(store: str, error: BaseException) -> None:
    """Note that a store could not be used.

    Args:
        store: names it, without its password.
        error: why.
    """
    with _here.lock:
        if store in _here.failing_since:
            return
        _here.failing_since[store] = time.monotonic()
    send(_observers_of(store), StoreFailed(store=store, error=error))


def note_success(store: str) -> None:
    """Note that a store could be used."""
    if store not in _here.failing_since:
        return
    with _here.lock:
        since = _here.failing_since.pop(store, None)
    if since is not None:
        outage = time.monotonic() - since
        send(_observers_of(store), StoreRecovered(store=store, outage=outage))


def _observers_of(store: str) -> tuple[Registration, ...]:
    with _here.lock:
        own = list(_here.observers.get(store, ()))
    return ObserverSet((*of_process.observers.registered, *own)).registered


def _after_fork_in_child() -> None:
    _here.lock = new_lock()  # a thread of the parent may hold the other


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
