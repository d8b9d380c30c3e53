"""What observers that count are called with: grants, releases and waits, without events.

What they raise is logged, the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from limiter_core._observers import Registration

Waits = Sequence[tuple[Registration, Callable[[], object]]]
"""The counters of a wait, each with what counts its end."""


def count_grant(
    registrations: Iterable[Registration], names: tuple[str, ...], adapter: str | None
) -> None:
    """Have counters count a grant."""
    for registration in registrations:
        counter = registration.counter
        if counter is not None:  # None: it was removed
            try:
                counter.granted(names, adapter)
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                registration.log_failure("a grant")


def count_release(
    registrations: Iterable[Registration], names: tuple[str, ...], adapter: str | None, held: float
) -> None:
    """Have counters count a release."""
    for registration in registrations:
        counter = registration.counter
        if counter is not None:
            try:
                counter.released(names, adapter, held)
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                registration.log_failure("a release")


def begin_waits(registrations: Iterable[Registration], name: str, adapter: str | None) -> Waits:
    """Have counters count that a call waits; of those that do, and want no events of it."""
    waits: list[tuple[Registration, Callable[[], object]]] = []
    for registration in registrations:
        counter = registration.counter
        if counter is not None:
            try:
                end = counter.begin_wait(name, adapter)
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                registration.log_failure("a wait")
            else:
                if end is not None:
                    waits.append((registration, end))
    return waits


def end_waits(waits: Waits) -> None:
    """Have those counters count that it waits no more."""
    for registration, end in waits:
        if registration.counter is not None:
            try:
                end()
            except Exception:  # noqa: BLE001  (an observer's; it is logged)
                registration.log_failure("the end of a wait")
