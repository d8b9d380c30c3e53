"""What a scenario of the contract is written with: steps, and the store under test.

A scenario is a generator. It yields the operations on a store, and checks the answers; it neither
knows whether they are awaited, nor waits itself. So each is written once, and run on the sync and
on the async face of a store::

    @scenario("S5", rows=(13,))
    def releasing_twice_frees_one_slot(store: StoreUnderTest) -> Steps[None]:
        \"\"\"The second release is a no-op, and returns False.\"\"\"
        yield from store.take(store.request(id="first"))
        assert (yield from store.release("first"))
        assert not (yield from store.release("first"))
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar, cast

import anyio

from limiter_core.policies import Change
from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    KeySnapshot,
    Listener,
    Mode,
    Notice,
    Presence,
    Queued,
    Refused,
    Renewal,
    Request,
)
from limiter_core.store import AsyncStore, SyncStore
from limiter_core.system_clock import system_clock as time
from limiter_core.testing.clock import FakeClock

__all__ = ("KEY", "OTHER_KEY", "THIRD_KEY", "Step", "Steps", "StoreUnderTest")

R = TypeVar("R")

KEY, OTHER_KEY, THIRD_KEY = "contract/a", "contract/b", "contract/c"
"""The keys of the scenarios. They have one scope, so that a store may take them together."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation to be carried out: a method of the store, or (no method) a short pause."""

    method: str | None
    arguments: tuple[Any, ...] = ()

    def on_sync(self, store: SyncStore) -> Any:
        """Carry it out in this thread."""
        if self.method is None:
            return time.sleep(0.005)
        result = getattr(store, self.method)(*self.arguments)
        return list(result) if self.method == "keys" else result

    async def on_async(self, store: AsyncStore) -> Any:
        """Carry it out in this event loop."""
        if self.method is None:
            return await anyio.sleep(0.005)
        if self.method == "keys":
            return [key async for key in store.keys()]
        return await getattr(store, self.method)(*self.arguments)


Steps = Generator[Step, Any, R]
"""A part of a scenario that results in an `R`: `result = yield from steps`."""


class StoreUnderTest:
    """A store under test, as a scenario sees it. Every operation is a `yield from`.

    Args:
        clock: the store's clock.
        forget: makes the store lose its data, None if the author of the store gave no way.
        patience: real seconds in which the store has to send a pending notification.

    Attributes:
        notices: the notices of durable tickets so far (S17).
    """

    def __init__(
        self,
        clock: FakeClock,
        *,
        forget: Callable[[], object] | None = None,
        patience: float = 5.0,
    ) -> None:
        self.clock = clock
        self.notices: list[Notice] = []
        self._forget = forget
        self._patience = patience
        self._ids = count(1)

    # -- what to ask -----------------------------------------------------------------------------

    def request(
        self,
        *demands: Demand,
        id: str | None = None,  # noqa: A002  (the name it has in `Request`)
        lease: float = 30.0,
        mode: Mode = Mode.WAIT,
        max_hold: float | None = None,
        claim: float = 5.0,
        order: int | None = None,
        payload: bytes | None = None,
        claimant: str = "",
        label: str = "",
        fencing_token: int | None = None,
        listener: Listener | None = None,
        presence: Presence | None = None,
    ) -> Request:
        """Return a request; without demands, for the one slot of `KEY`.

        Without a listener only the scenario can renew it.
        """
        return Request(
            id or f"call-{next(self._ids)}",
            demands or (Demand(KEY, 1),),
            lease,
            mode,
            max_hold,
            claim,
            order,
            payload,
            claimant,
            label,
            fencing_token,
            listener,
            presence=presence,
        )

    # -- operations ------------------------------------------------------------------------------

    def acquire(self, request: Request) -> Steps[Answer]:
        """Ask, ask again, or claim a slot."""
        return cast("Answer", (yield Step("acquire", (request,))))

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> Steps[bool]:
        """Give back a lease or a ticket."""
        return cast("bool", (yield Step("release", (lease_id, keys))))

    def renew(self, *ids: str) -> Steps[Renewal]:
        """Start lease times again."""
        return cast("Renewal", (yield Step("renew", (ids,))))

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> Steps[bool]:
        """Remove a ticket that was not claimed."""
        return cast("bool", (yield Step("withdraw", (ticket_id, keys))))

    def evict(self, lease_id: str) -> Steps[bool]:
        """Take a slot back from its holder."""
        return cast("bool", (yield Step("evict", (lease_id,))))

    def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> Steps[bool]:
        """End the waiting of a ticket."""
        return cast("bool", (yield Step("evict_waiter", (ticket_id, keys))))

    def sweep(self, presence: Presence | None = None) -> Steps[None]:
        """Reap all that ended unnoticed, perhaps as a worker that is there or leaves."""
        yield Step("sweep", (presence,))

    def inspect(self, key: str = KEY) -> Steps[KeySnapshot]:
        """Look at a key."""
        return cast("KeySnapshot", (yield Step("inspect", (key,))))

    def keys(self) -> Steps[list[str]]:
        """Return the keys in use, sorted."""
        return sorted(cast("list[str]", (yield Step("keys"))))

    def set_limit(self, limit: int, key: str = KEY) -> Steps[None]:
        """Override the declared limits."""
        yield Step("set_limit", (key, limit))

    def reset_limit(self, key: str = KEY) -> Steps[None]:
        """Return to the declared limits."""
        yield Step("reset_limit", (key,))

    def pause(self, key: str = KEY) -> Steps[None]:
        """Admit no call."""
        yield Step("pause", (key,))

    def resume(self, key: str = KEY) -> Steps[None]:
        """End a pause."""
        yield Step("resume", (key,))

    def change_policy(self, change: Change) -> Steps[Change]:
        """Change what is in force for a name."""
        return cast("Change", (yield Step("change_policy", (change,))))

    # -- operations with the usual outcome ---------------------------------------------------------

    def take(self, request: Request) -> Steps[Granted]:
        """Ask, and be granted."""
        answer = yield from self.acquire(request)
        assert isinstance(answer, Granted), f"{request.id} was to be granted its slot: {answer}"
        return answer

    def wait(self, request: Request) -> Steps[Queued]:
        """Ask, and have to wait."""
        answer = yield from self.acquire(request)
        assert isinstance(answer, Queued), f"{request.id} was to wait: {answer}"
        return answer

    def be_refused(self, request: Request) -> Steps[Refused]:
        """Ask, and be refused."""
        answer = yield from self.acquire(request)
        assert isinstance(answer, Refused), f"{request.id} was to be refused: {answer}"
        return answer

    def holders(self, key: str = KEY) -> Steps[list[str]]:
        """Return the ids of a key's holders, the oldest first."""
        snapshot = yield from self.inspect(key)
        return [holder.id for holder in snapshot.holders]

    def waiters(self, key: str = KEY) -> Steps[list[str]]:
        """Return the ids of a key's waiters, in the order in which they will be served."""
        snapshot = yield from self.inspect(key)
        return [waiter.id for waiter in snapshot.waiters]

    def pass_time(self, seconds: float, *alive: str) -> Steps[None]:
        """Let time pass, and renew these leases and tickets often enough; all must live on."""
        while seconds > 0:
            self.clock.advance(min(seconds, 5.0))
            seconds -= 5.0
            renewal = yield from self.renew(*alive)
            assert not renewal.gone, f"renewed in time, and gone all the same: {renewal.gone}"

    def eventually(self, what: str, condition: Callable[[], object]) -> Steps[None]:
        """Wait until something that the store knows already has reached this process.

        Raises:
            AssertionError: it did not happen; says what was waited for.
        """
        gives_up_at = time.monotonic() + self._patience
        while not condition():
            assert time.monotonic() < gives_up_at, f"waited {self._patience} s in vain until {what}"
            yield Step(None)

    def lose_data(self) -> None:
        """Make the store lose its data."""
        assert self._forget is not None
        self._forget()
