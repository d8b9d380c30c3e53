"""Markers of task attempts that have finished, so that a late copy of a message does not run again.

A message may exist twice: a worker was killed after it parked the task and before it acknowledged
the message, or a granted task was delivered again since its slot was not claimed in time. A copy of
a task that still waits, or runs, meets its ticket or lease; a copy that comes later meets its
marker.
"""

from __future__ import annotations

from limiter_celery._expiring_set import ExpiringSet
from limiter_core.keys import bounded
from limiter_core.store import SyncStore

_FINISHED = "finished"
"""The owner of the marker of an attempt that has finished."""

_REFUSED = "refused"
"""That of an attempt which is about to be reported as not to run."""


class CompletionMarkers:
    """The markers that the workers of one name share; all methods may raise StoreError.

    Args:
        store: where they are kept.
        name: of the workers.
        seconds: for which each is kept; 0 for no markers at all.
    """

    def __init__(self, store: SyncStore, name: str, seconds: float) -> None:
        self._markers = ExpiringSet(store, f"{name}:over", seconds)

    def set(self, ticket: str) -> None:
        """Note that an attempt has finished, in whatever worker."""
        member = _member(ticket)
        if not self._markers.add_for(member, _FINISHED):
            self._markers.remove(member)
            self._markers.add_for(member, _FINISHED)

    def set_refused(self, ticket: str) -> bool:
        """Note that an attempt is about to be reported as not to run; False if it has finished.

        It may have been noted before: then it was perhaps not reported.
        """
        return self._markers.add_for(_member(ticket), _REFUSED)

    def set_once(self, ticket: str, owner: str) -> bool:
        """Note that an owner took an attempt; False if another has, or it has finished."""
        return self._markers.add_for(_member(ticket), owner)

    def age(self, ticket: str) -> float | None:
        """Return how many seconds ago an attempt finished; None if it has no marker."""
        return self._markers.age(_member(ticket))

    def clear(self, ticket: str) -> None:
        """Remove the marker of an attempt: the same task was sent once more, on purpose."""
        self._markers.remove(_member(ticket))


def _member(ticket: str) -> str:
    return f"{bounded(ticket)}:over"  # the ids of tasks may be chosen by users
