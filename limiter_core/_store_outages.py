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


class StoreOutage:
    """Whether a store can be used, as far as this process knows; as long as it is in use here.

    Args:
        store: names the store, without its password.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._failing_since: float | None = None
        self._observers: weakref.WeakSet[Registration] = weakref.WeakSet()
        """Those of one limiter, while that exists."""

    def add_observer(self, registration: Registration) -> None:
        """Send it to an observer of one limiter, too."""
        with _here.lock:
            self._observers.add(registration)

    def began(self, error: BaseException) -> None:
        """Note that the store could not be used, and why."""
        with _here.lock:
            if self._failing_since is not None:
                return
            self._failing_since = time.monotonic()
        send(self._all_observers(), StoreFailed(store=self._store, error=error))

    def over(self) -> None:
        """Note that the store could be used."""
        if self._failing_since is None:
            return
        since = self._take_begin()
        if since is not None:
            outage = time.monotonic() - since
            send(self._all_observers(), StoreRecovered(store=self._store, outage=outage))

    def _take_begin(self) -> float | None:
        """Return when it began, to one of all threads that notice its end."""
        with _here.lock:
            since = self._failing_since
            self._failing_since = None
        return since

    def _all_observers(self) -> tuple[Registration, ...]:
        with _here.lock:
            own = list(self._observers)
        return ObserverSet((*of_process.observers.registered, *own)).registered


class _OfProcess:
    """What this process knows of its stores.

    Attributes:
        lock: is held for moments.
        stores: by their names, those in use. (A name may be another's later: of a store without a
            name of its own it is an address in memory.)
    """

    def __init__(self) -> None:
        self.lock = new_lock()
        self.stores: weakref.WeakValueDictionary[str, StoreOutage] = weakref.WeakValueDictionary()


_here = _OfProcess()


def outage_of(store: str) -> StoreOutage:
    """Return the outage of a store, the same for all its users in this process."""
    with _here.lock:
        found = _here.stores.get(store)
        if found is None:
            found = _here.stores[store] = StoreOutage(store)
        return found


def _after_fork_in_child() -> None:
    _here.lock = new_lock()  # a thread of the parent may hold the other


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
