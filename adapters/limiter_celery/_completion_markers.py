"""Marks of tasks that are over: so that a late copy of a message does not run them once more.

A message may exist twice: a worker was killed after it parked the task and before it acknowledged
the message, or a woken task was delivered again since nobody came for its slot in time. Copies of a
task that still waits, or runs, meet its ticket or lease; those that come later meet its mark. A
mark is a lease of its own, on one key for all, that nobody renews.
"""

from __future__ import annotations

from limiter_core.keys import bounded
from limiter_core.requests import Demand, Granted, Held, Mode, Request
from limiter_core.store import SyncStore

_LIMIT = 2**31


class Marks:
    """The tasks of one name that are over.

    Args:
        face: where they are kept.
        name: whose they are.
        lasts: seconds; 0 for no marks at all.
    """

    def __init__(self, face: SyncStore, name: str, lasts: float) -> None:
        self._face = face
        self._key = f"{name}:over"
        self._lasts = lasts

    def set(self, ticket: str) -> None:
        """Note that a task is over."""
        if self._lasts > 0:
            self._face.acquire(self._request(ticket, Mode.TRY))

    def set_ago(self, ticket: str) -> float | None:
        """Return for how many seconds a task has been over, None if it is not."""
        if self._lasts <= 0:
            return None
        answer = self._face.acquire(self._request(ticket, Mode.LOOK))
        if not isinstance(answer, Granted | Held):
            return None
        return 0.0 if answer.expires_in is None else max(self._lasts - answer.expires_in, 0.0)

    def clear(self, ticket: str) -> None:
        """Forget that it is over: the same task was sent once more, on purpose."""
        if self._lasts > 0:
            self._face.release(self._id(ticket), [self._key])

    def _id(self, ticket: str) -> str:
        return f"{bounded(ticket)}:over"  # ids of tasks may be anybody's

    def _request(self, ticket: str, mode: Mode) -> Request:
        demand = Demand(self._key, _LIMIT)
        return Request(self._id(ticket), (demand,), lease=self._lasts or 1.0, mode=mode)
