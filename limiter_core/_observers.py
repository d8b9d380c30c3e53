"""The observers of events: which there are, and how they are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from limiter_core._collected import do_later, is_collecting
from limiter_core.errors import ConfigurationError

logger = logging.getLogger("limiter")

Observer = Callable[[Any], object]
"""Called with each event; see `events`."""


class Registration:
    """One observer, from the moment it is added until it is removed."""

    __slots__ = ("__weakref__", "_failed", "_observer")

    def __init__(self, observer: Observer) -> None:
        self._observer: Observer | None = observer
        self._failed = False

    @property
    def observer(self) -> Observer | None:
        """The observer; None once it is removed."""
        return self._observer

    def remove(self) -> None:
        """Call the observer no more."""
        self._observer = None

    def __call__(self, event: object) -> None:
        """Call the observer; log what it raises, the first time."""
        observer = self._observer
        if observer is None:
            return
        try:
            observer(event)
        except Exception:
            if not self._failed:
                self._failed = True
                logger.exception(
                    "the observer %r raised at %s; it is called on (logged once)", observer, event
                )


class Observers:
    """Those of the whole process.

    Attributes:
        registered: in the order in which they were added.
    """

    __slots__ = ("registered",)

    def __init__(self) -> None:
        self.registered: tuple[Registration, ...] = ()


of_process = Observers()

_in_observer: ContextVar[bool] = ContextVar("limiter_in_observer", default=False)


def registration_of(observer: object) -> Registration:
    """Return the registration of an observer that a caller gave.

    Raises:
        ConfigurationError: it cannot be called.
    """
    if not callable(observer):
        raise ConfigurationError(f"an observer is a function that takes an event, got {observer!r}")
    return Registration(observer)


def add_observer(observer: Observer) -> Callable[[], None]:
    """Call an observer with each event of this process; returns what removes it again."""
    added = registration_of(observer)
    of_process.registered = (*of_process.registered, added)

    def remove() -> None:
        added.remove()
        of_process.registered = tuple(
            each for each in of_process.registered if each.observer is not None
        )

    return remove


def is_in_observer() -> bool:
    """Whether the running code was called by an observer, so that its calls send no events."""
    return _in_observer.get()


def send(registrations: Sequence[Registration], event: object) -> None:
    """Call observers with an event, one after the other.

    Not in the middle of an observer, nor while the garbage collector is at work: it may have
    interrupted code that has the lock which an observer takes. Then it is done in the background.
    """
    if _in_observer.get() or is_collecting():
        do_later(lambda: send(registrations, event))
        return
    try:
        try:
            _in_observer.set(True)
            for registration in registrations:
                registration(event)
        finally:
            _in_observer.set(False)
    finally:  # an exception may be thrown in at the line above, too
        _in_observer.set(False)
