"""Which delivery of a granted task starts: the notice of a grant may be repeated.

A worker that has just come is notified of grants that were not claimed yet, since their notices may
have been sent while no worker was there. If a task is delivered within a worker, its slot is
claimed only when its body has started, so that the ticket keeps the message until the pool has it.
So whichever delivery is to start reserves that first: one within a worker until its body has
started, one by the broker until it has claimed the slot.
"""

from __future__ import annotations

from limiter_celery._expiring_set import ExpiringSet
from limiter_core.keys import bounded
from limiter_core.requests import Demand, Granted, Mode, Request
from limiter_core.store import SyncStore


class StartReservations:
    """The reservations that the workers of one name share; all methods may raise StoreError.

    Args:
        store: where they are kept, and where the tickets are.
        name: of the workers.
        seconds: for which each is kept: a delivery within a worker starts before that, or never.
    """

    def __init__(self, store: SyncStore, name: str, seconds: float) -> None:
        self._store = store
        self._reservations = ExpiringSet(store, f"{name}:starts", seconds)

    def reserve(self, ticket: str, owner: str) -> bool:
        """Reserve the start of a task attempt for a delivery; False if another one has it."""
        return self._reservations.add_for(_member(ticket), owner)

    def release(self, ticket: str, owner: str) -> None:
        """End the reservation of a delivery: it has claimed its slot, or does not start."""
        self._reservations.remove_of(_member(ticket), owner)

    def reserve_unclaimed(self, ticket: str, owner: str, keys: tuple[str, ...], token: int) -> bool:
        """Reserve the start for a delivery within a worker, which has not claimed its slot.

        Args:
            ticket: names the attempt of the task.
            owner: names the delivery.
            keys: of its limits.
            token: the fencing token of the grant.

        Returns:
            Whether it may start: the grant is there still, and nothing has claimed it.
        """
        if not self.reserve(ticket, owner):
            return False
        demands = tuple(Demand(key, 1) for key in keys)
        look = Request(ticket, demands, lease=1.0, mode=Mode.LOOK, payload=b"", claimant=owner)
        answer = self._store.acquire(look)
        if isinstance(answer, Granted) and answer.fencing_token == token:
            return True
        self.release(ticket, owner)
        return False


def _member(ticket: str) -> str:
    return f"{bounded(ticket)}:start"
