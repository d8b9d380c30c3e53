"""The processes of the simulation: what is tried, and what each tells its callers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from limiter_core.requests import Loss
from limiter_redis.session.entries import Entry, Event, State
from limiter_redis.session.local_requests import LocalRequests

from .callers import Caller


class Processes:
    """The books of one process that has both callers, or of one for each.

    Attributes:
        all: the books.
        failures: invariants that were broken on the way.
    """

    def __init__(self, callers: Sequence[Caller], *, apart: bool) -> None:
        self.all = [LocalRequests(lambda: 0.5) for _ in (callers if apart else callers[:1])]
        self.failures: list[str] = []
        self._callers = callers
        for caller in callers:
            caller.requests = self.all[caller.number % len(self.all)]

    def __bool__(self) -> bool:
        """Whether there is anything to be kept alive, or to be released."""
        return any(self.all)

    def entries(self) -> Iterator[Entry]:
        """Yield what has to be renewed or released."""
        for requests in self.all:
            yield from requests.entries.values()
            yield from requests.releasing.values()

    def wants(self) -> bool:
        """Whether anybody waits or holds."""
        return any(requests.entries for requests in self.all)

    def due(self, now: float) -> bool:
        return any(entry.renew_at <= now for entry in self.entries())

    def overdue(self, now: float) -> bool:
        """Whether the time of a lease is over."""
        return any(each.state is State.HELD and each.expires_at <= now for each in self.entries())

    def pauses(self) -> list[float]:
        """Return when releases are sent again that have failed."""
        return [
            each.renew_at for requests in self.all for each in requests.releasing if each.failures
        ]

    def releasing(self) -> set[Entry]:
        return {entry for requests in self.all for entry in requests.releasing}

    def deadlines(self, now: float) -> None:
        for requests in self.all:
            requests.deadlines(now)

    def note_gap(self) -> None:
        for requests in self.all:
            requests.happened_to_all(Event.SILENCE, 0.0)

    def wake(self, now: float) -> None:
        for requests in self.all:
            requests.happened_to_all(Event.WAKE, now)

    def close(self, now: float) -> None:
        for requests in self.all:
            requests.close(now)

    def tell(self, now: float) -> None:
        """Tell callers what follows, as the store does."""
        for requests in self.all:
            while requests.outbox:
                said = requests.outbox.popleft()
                caller: Any = said.entry.listener
                if caller is None:
                    continue
                if said.loss is not None:
                    caller.lease_lost(said.loss)
                    if said.loss is not Loss.PREEMPTED and said.entry.state < State.RELEASING:
                        self.failures.append("L5: it was notified of its loss, and is in the books")
                elif said.renewed_until is not None:
                    caller.lease_renewed(said.renewed_until)
                elif not caller.look_again(said.answer):
                    requests.happened(said.entry, Event.CALLER_GONE, now)

    def caller_of(self, entry: Entry, requests: LocalRequests) -> Caller:
        """Return the caller of an entry."""
        for caller in self._callers:
            if entry.listener is caller:
                return caller
        # It was in no book when it was to be released: then there is the id alone.
        mine = (each for each in self._callers if each.requests is requests)
        return next(each for each in mine if each.request.id == entry.request.id)
