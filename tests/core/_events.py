"""A recorder of events, and the invariants that they keep."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from limiter_core import events
from limiter_core.events import Event

OUTCOMES = (
    events.Granted,
    events.Refused,
    events.Cancelled,
    events.Failed,
    events.AdmittedWithoutStore,
)
ENDS = (events.Released, events.Lost)

E = TypeVar("E", bound=Event)


class EventRecorder:
    """An observer that keeps what it is called with."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        """The classes of the events, in their order."""
        return [type(event).__name__ for event in self.events]

    def all(self, kind: type[E]) -> list[E]:
        """Return the events of a class."""
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """Return the event of a class; there is one."""
        (found,) = self.all(kind)
        return found

    def check_invariants(self, calls: int) -> None:
        """Each call has one outcome, and each grant one end.

        Args:
            calls: how many calls were made; all of them have ended.
        """
        outcomes = [event for event in self.events if isinstance(event, OUTCOMES)]
        assert len(outcomes) == calls, self.events
        named = Counter(event.id for event in outcomes if event.id)
        assert set(named.values()) <= {1}, named
        granted = Counter(event.id for event in self.all(events.Granted))
        ended = Counter(event.id for event in self.events if isinstance(event, ENDS))
        assert granted == ended
        for event in self.events:  # what follows a grant comes after it
            if isinstance(event, (*ENDS, events.Preempted)):
                grant = next(each for each in self.all(events.Granted) if each.id == event.id)
                assert self.events.index(grant) < self.events.index(event)
