"""Which stores this process cannot use at present, for `StoreFailed` and `StoreRecovered`.

Limiters and gates on one store share its outage: each observer is sent one event for its begin, and
one for its end.
"""

from __future__ import annotations

import weakref

from limiter_core._observers import ObserverSet, Registration, of_process, send
from limiter_core.events import StoreFailed, StoreRecovered
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock

_lock = new_lock()
_failing_since: dict[str, float] = {}
_observers: dict[str, weakref.WeakSet[Registration]] = {}


def add_observer_of(store: str, registration: Registration) -> None:
    """Send the outages of a store to an observer of one limiter, while that exists."""
    with _lock:
        _observers.setdefault(store, weakref.WeakSet()).add(registration)


def note_failure(store: str, error: BaseException) -> None:
    """Note that a store could not be used.

    Args:
        store: names it, without its password.
        error: why.
    """
    with _lock:
        if store in _failing_since:
            return
        _failing_since[store] = time.monotonic()
    send(_observers_of(store), StoreFailed(store=store, error=error))


def note_success(store: str) -> None:
    """Note that a store could be used."""
    if store not in _failing_since:
        return
    with _lock:
        since = _failing_since.pop(store, None)
    if since is not None:
        outage = time.monotonic() - since
        send(_observers_of(store), StoreRecovered(store=store, outage=outage))


def _observers_of(store: str) -> tuple[Registration, ...]:
    with _lock:
        own = list(_observers.get(store, ()))
    return ObserverSet((*of_process.observers.registered, *own)).registered
