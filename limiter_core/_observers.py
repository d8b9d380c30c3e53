"""The observers of events: which there are, and how they are called."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from inspect import iscoroutinefunction
from types import BuiltinMethodType, MethodType
from typing import Any

from limiter_core._collected import do_later, is_collecting, notify_later
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.signal_errors import reraise_if_of_signal

logger = logging.getLogger("limiter")

Observer = Callable[[Any], object]
"""Called with each event; see `events`."""


class CountingObserver(ABC):
    """An observer that is sent no event for what happens to most calls: these methods are called.

    For counts that have to cost little: making an event takes longer than counting it. Subclass it.
    They are called where it happens, also in the middle of each other by a `__del__` that releases
    a lease (but not by the garbage collector). So they use no limiter.
    """

    def begin_wait(
        self,
        name: str,  # noqa: ARG002  (for subclasses)
        adapter: str | None,  # noqa: ARG002  (for subclasses)
        /,
    ) -> Callable[[], object] | None:
        """Choose whether a call that waits from now on is counted here, or sends its events.

        By default it sends them. It is not called for jobs: their waits may end elsewhere.

        Args:
            name: of the limit in whose queue it waits, one of the names of its `Event`.
            adapter: as in `Event`.

        Returns:
            A function that is called once, when the wait is over, before the outcome: then there is
            no `Queued`, and `granted` is called in place of `Granted`. (If an exception is thrown
            in, as by a signal, it may be collected instead.) Or None: both are sent.
        """
        return None

    @abstractmethod
    def granted(self, names: tuple[str, ...], adapter: str | None, /) -> object:
        """Count a call or job that was granted its slots at once, or after a `begin_wait`.

        Args:
            names: of the limits, as in `Event`.
            adapter: as in `Event`.
        """

    @abstractmethod
    def released(self, names: tuple[str, ...], adapter: str | None, held: float, /) -> object:
        """Count a call or job that released its slots, whether it had waited for them or not.

        Args:
            names: of the limits, as in `Event`.
            adapter: as in `Event`.
            held: seconds since the grant.
        """

    @abstractmethod
    def __call__(self, event: Any, /) -> object:
        """Take any other event: also `Granted` of a call that waited, unless it was counted."""


class Registration:
    """One observer, from the moment it is added until it is removed.

    Attributes:
        counter: the observer, if it counts what happens to most calls; else None.
    """

    __slots__ = ("__weakref__", "_failed", "_observer", "counter")

    def __init__(self, observer: Observer) -> None:
        self._observer: Observer | None = observer
        self._failed = False
        self.counter = observer if isinstance(observer, CountingObserver) else None

    @property
    def observer(self) -> Observer | None:
        """The observer; None once it is removed."""
        return self._observer

    def remove(self) -> None:
        """Call the observer no more."""
        self._observer = self.counter = None

    def __call__(self, event: object) -> None:
        """Call the observer; log what it raises, the first time."""
        observer = self._observer
        if observer is None:
            return
        try:
            observer(event)
        except Exception:  # noqa: BLE001  (an observer's; it is logged)
            self.log_failure(event)

    def count_grant(self, names: tuple[str, ...], adapter: str | None) -> None:
        """Have a counter count a grant; log what it raises, the first time."""
        counter = self.counter
        if counter is not None:  # None: it was removed
            try:
                counter.granted(names, adapter)
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                self.log_failure("a grant")

    def count_release(self, names: tuple[str, ...], adapter: str | None, held: float) -> None:
        """Have a counter count a release; likewise."""
        counter = self.counter
        if counter is not None:
            try:
                counter.released(names, adapter, held)
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                self.log_failure("a release")

    def log_failure(self, event: object) -> None:
        """Log an exception of the observer that is being handled, the first time."""
        reraise_if_of_signal()
        if not self._failed:
            self._failed = True
            logger.error(
                "the observer %r raised at %s; it is called on (logged once)",
                self._observer,
                event,
                exc_info=True,  # noqa: LOG014  (each caller handles one)
            )


# -- the waits that counting observers count ------------------------------------------------------

Waits = Sequence[tuple[Registration, Callable[[], object]]]
"""The counters of a wait, each with what counts its end."""


def begin_waits(
    registrations: Iterable[Registration], name: str, adapter: str | None
) -> tuple[Waits, Sequence[Registration]]:
    """Have counters count that a call waits.

    Returns:
        The counters that do, and the other observers: they are sent the events of the wait.
    """
    waits: list[tuple[Registration, Callable[[], object]]] = []
    others: list[Registration] = []
    for registration in registrations:
        counter, end = registration.counter, None
        if counter is not None:
            try:
                end = counter.begin_wait(name, adapter)
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                registration.log_failure("a wait")
        if end is None:
            others.append(registration)
        else:
            waits.append((registration, end))
    return waits, others


def end_waits(waits: Waits) -> None:
    """Have those counters count that it waits no more."""
    for registration, end in waits:
        if registration.counter is not None:
            try:
                end()
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                registration.log_failure("the end of a wait")


# -- which observers there are ---------------------------------------------------------------------


class ObserverSet:
    """Observers that are called together, each once: one may be registered for several reasons.

    Attributes:
        registered: all of them, in the order in which they were added.
        counters: those that count what happens to most calls.
        others: those that are sent an event for it.
        rare: beside all others, those that are sent only what happens to few calls: a loss, and an
            outcome without a slot.
    """

    __slots__ = ("counters", "others", "rare", "registered")

    def __init__(
        self, registered: tuple[Registration, ...] = (), rare: tuple[Registration, ...] = ()
    ) -> None:
        if len(registered) > 1:
            registered = _without_doubles(registered)
        self.registered = registered
        self.rare = rare
        self.counters = tuple(each for each in registered if each.counter is not None)
        self.others = tuple(each for each in registered if each.counter is None)

    def joined_by(self, *registered: Registration) -> ObserverSet:
        """Return these observers and others."""
        return ObserverSet((*self.registered, *registered), self.rare) if registered else self

    def with_rare(self, *rare: Registration) -> ObserverSet:
        """Return these observers, and others that are sent only what happens to few calls."""
        return ObserverSet(self.registered, rare)


def _without_doubles(registered: tuple[Registration, ...]) -> tuple[Registration, ...]:
    found: list[Registration] = []
    for each in registered:
        if not any(_is_same(each.observer, other.observer) for other in found):
            found.append(each)
    return tuple(found)


def _is_same(one: object, other: object) -> bool:
    # A method is a new object each time that it is looked up. Others may be equal, and two.
    is_method = type(one) is type(other) and type(one) in (MethodType, BuiltinMethodType)
    return one is other or (is_method and one == other)


class Observers:
    """Those of the whole process. Without a lock: a finalizer may remove one at any moment.

    Attributes:
        observers: all of them.
        forks: how often this process, and those from which it stems, were made by `fork` while
            this module was loaded. What is noted with another number happened in a parent.
    """

    __slots__ = ("_registered", "forks", "observers")

    def __init__(self) -> None:
        self._registered: list[Registration] = []
        self.observers = ObserverSet()
        self.forks = 0

    def add(self, registration: Registration) -> None:
        """Add an observer."""
        self._registered.append(registration)
        self._update()

    def remove(self, registration: Registration) -> None:
        """Remove an observer, if it is there."""
        with suppress(ValueError):
            self._registered.remove(registration)
        self._update()

    def _update(self) -> None:
        """Note which there are; of threads at once, the last one to write notes all."""
        registered: tuple[Registration, ...] | None = None
        while registered != (now := tuple(self._registered)):
            registered = now
            self.observers = ObserverSet(now)


of_process = Observers()

_in_observer: ContextVar[bool] = ContextVar("limiter_in_observer", default=False)


def registration_of(observer: object) -> Registration:
    """Return the registration of an observer that a caller gave.

    Raises:
        ConfigurationError: it cannot be called, or would have to be awaited.
    """
    if not callable(observer):
        raise ConfigurationError(f"an observer is a function of an event, got {brief(observer)}")
    if iscoroutinefunction(observer) or iscoroutinefunction(type(observer).__call__):
        raise ConfigurationError(f"an observer is no coroutine function, got {brief(observer)}")
    return Registration(observer)


def add_observer(observer: Observer) -> Callable[[], None]:
    """Call an observer with each event of this process; returns what removes it again."""
    added = registration_of(observer)
    of_process.add(added)

    def remove() -> None:
        added.remove()
        of_process.remove(added)

    return remove


is_in_observer: Callable[[], bool] = _in_observer.get
"""Whether the running code was called by an observer, so that its calls send no events."""


def must_be_sent_later() -> bool:
    """Whether no observer can be called here: its event is then sent in the background.

    Not in the middle of an observer, nor while the garbage collector is at work: it may have
    interrupted code that has the lock which an observer takes.
    """
    return _in_observer.get() or is_collecting()


def release_later(release: Callable[[], object]) -> None:
    """Have something released in the background, whose events are sent by another thread."""
    do_later(partial(_release_without_sending, release))


def _release_without_sending(release: Callable[[], object]) -> None:
    _in_observer.set(True)
    try:
        release()
    finally:
        _in_observer.set(False)


def send(registrations: Sequence[Registration], event: object) -> None:
    """Call observers with an event, here or in the background."""
    if must_be_sent_later():
        notify_later(partial(send_now, registrations, event))
    else:
        send_now(registrations, event)


def send_now(registrations: Sequence[Registration], event: object) -> None:
    """Call observers with an event, one after the other."""
    try:
        try:
            _in_observer.set(True)
            for registration in registrations:
                registration(event)
        finally:
            _in_observer.set(False)
    finally:  # an exception may be thrown in at the line above, too
        _in_observer.set(False)


def _after_fork_in_child() -> None:
    of_process.forks += 1


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
