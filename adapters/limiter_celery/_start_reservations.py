"""Which delivery of a granted task starts: the notice of a grant may be repeated.

A worker that has just come is told of grants that were not claimed yet, since their notices may
have been sent while no worker was there. If a task is delivered within a worker, its slot is
claimed only when its body has started, so that the ticket keeps the message until the pool has it.
So such a delivery notes that it starts, and then looks whether another one has claimed the slot. A
delivery by the broker claims it, and then looks for such a note. At least one of two sees the
other.
"""

from __future__ import annotations

from limiter_celery._expiring_set import ExpiringSet
from limiter_core.keys import bounded
from limiter_core.requests import Demand, Granted, Mode, Request
from limiter_core.store import SyncStore


class StartReservations:
    """The notes that the workers of one name share; all methods may raise StoreError.

    Args:
        store: where they are kept, and where the tickets are.
        name: of the workers.
        seconds: for which each is kept: a delivery within a worker starts before that, or never.
    """

    def __init__(self, store: SyncStore, name: str, seconds: float) -> None:
        self._store = store
        self._notes = ExpiringSet(store, f"{name}:starts", seconds)

    def may_start(self, ticket: str, keys: tuple[str, ...], token: int) -> bool:
        """Note that a delivery within this worker starts; whether it still has its grant.

        Args:
            ticket: names the attempt of the task.
            keys: of its limits.
            token: the fencing token of the grant.
        """
        member = _member(ticket)
        if self._notes.age(member) is not None:
            return False
        self._notes.add(member)
        demands = tuple(Demand(key, 1) for key in keys)
        look = Request(ticket, demands, lease=1.0, mode=Mode.LOOK, payload=b"", claimant=member)
        answer = self._store.acquire(look)
        if isinstance(answer, Granted) and answer.fencing_token == token:
            return True
        self._notes.remove(member)
        return False

    def starts_elsewhere(self, ticket: str) -> bool:
        """Whether a delivery within another worker starts, or has started, in these seconds."""
        return self._notes.age(_member(ticket)) is not None


def _member(ticket: str) -> str:
    return f"{bounded(ticket)}:start"
