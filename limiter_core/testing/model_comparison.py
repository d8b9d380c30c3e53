"""Watches one store beside the model: what it answers, what it tells, what can be seen of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from limiter_core.requests import (
    Answer,
    Granted,
    KeySnapshot,
    Loss,
    Mode,
    Notice,
    Queued,
    Renewal,
    Request,
)
from limiter_core.store import SyncStore
from limiter_core.system_clock import system_clock as time
from limiter_core.testing._model_state import Told
from limiter_core.testing._views import comparable, model_view, view_of
from limiter_core.testing.clock import FakeClock
from limiter_core.testing.model import World, outcomes

__all__ = ("Witness",)

R = TypeVar("R")
M = TypeVar("M")

_SOON = 0.005


class Witness:
    """One store, and the worlds of the model that it may be in.

    Args:
        store: the store's sync face.
        clock: its clock.
        patience: real seconds that it has to tell its listeners.
        follows_model: False to compare it with no model; the invariants are checked all the same.
    """

    def __init__(
        self, store: SyncStore, clock: FakeClock, *, patience: float, follows_model: bool
    ) -> None:
        self.store = store
        self.granted: dict[str, int] = {}
        """The tokens of the grants that were answered or delivered."""
        self.told: list[Told] = []
        self._clock = clock
        self._patience = patience
        self._follows_model = follows_model
        self._worlds = [World()]
        self._seen: list[object] = []
        self._listeners: dict[str, _Listener] = {}
        self._asked_at: dict[str, float] = {}
        self._orders: dict[str, int] = {}
        self._reclaimed: set[str] = set()
        self._tokens: dict[str, int] = {}
        self._known: dict[str, set[str]] = {}
        self._overrides: dict[str, int | None] = {}
        self._claimed: dict[str, int] = {}
        store.on_notice(self._on_notice)

    def _own(self, request: Request, *, listens: bool) -> Request:
        """Return the request as this store knows it: its listener, its arrival order."""
        if request.mode is Mode.RECLAIM:
            self._reclaimed.add(request.id)
        if listens:
            listener = self._listeners.setdefault(request.id, _Listener(request.id, self))
            request = request._replace(listener=listener)
        if request.order is None:
            request = request._replace(order=self._orders.get(request.id))
        return request

    # -- steps -------------------------------------------------------------------------------------

    def acquire(self, request: Request, *, listens: bool) -> Answer:
        """Ask the store and the model; the answers must agree."""
        own = self._own(request, listens=listens)
        self._asked_at[own.id] = self._clock()
        answer = self.step(
            f"acquire({request})",
            lambda store: store.acquire(own),
            lambda world, now: world.acquire(own, now),
            lambda given, right: comparable(given, own) == comparable(right, own),
        )
        self._seen.append(comparable(answer, own))
        if isinstance(answer, Granted):
            self.granted[own.id] = answer.fencing_token
        elif isinstance(answer, Queued):
            assert own.order in (None, answer.order), f"{own.id} lost its arrival order: {answer}"
            self._note_order(own.id, answer.order)
        return answer

    def _note_order(self, request_id: str, order: int) -> None:
        self._orders[request_id] = order
        for world in self._worlds:
            waiter = world.waiter(request_id)
            if waiter is not None:
                world.change(waiter, order=order)
                world.last_order = max(world.last_order, order)

    def renew(self, ids: Sequence[str]) -> None:
        """Renew; the same must be gone."""

        def agree(renewal: Renewal, right: tuple[set[str], set[str]]) -> bool:
            return (set(renewal.gone), set(renewal.preempted)) == right

        renewal = self.step(
            f"renew({ids})",
            lambda store: store.renew(ids),
            lambda world, now: world.renew(ids, now),
            agree,
        )
        self._seen.append((set(renewal.gone), renewal.preempted))

    def step(
        self,
        what: str,
        on_store: Callable[[SyncStore], R],
        in_world: Callable[[World, float], M],
        agree: Callable[[R, M], bool],
    ) -> R:
        """Carry out an operation, and keep the worlds in which it has the result that it had."""
        result = on_store(self.store)
        if self._follows_model:
            now = self._clock()
            possible = [
                outcome
                for world in self._worlds
                for outcome in outcomes(world, lambda world: in_world(world, now))
            ]
            fitting = [world for world, right in possible if agree(result, right)]
            allowed = "\n  or ".join(dict.fromkeys(str(right) for _, right in possible))
            assert fitting, f"{what}\n  gave {result}\n  not {allowed}"
            self._worlds = _distinct(fitting)
        return result

    def observe(self, keys: Sequence[str]) -> None:
        """Look at keys: the model shows the same, and the invariants hold."""
        for key in keys:
            self._observe(key)

    def _observe(self, key: str) -> None:
        def reaped(world: World, now: float) -> object:
            world.reap([key], now)
            return model_view(world, key, now)

        def agree(snapshot: KeySnapshot, right: object) -> bool:
            return view_of(snapshot, self._listeners) == right

        what = f"inspect({key!r})"
        snapshot = self.step(what, lambda store: store.inspect(key), reaped, agree)
        self.check_invariants(snapshot)
        self._seen.append(view_of(snapshot, self._listeners, mask_claims=True))

    def hear(self, own_id: str = "") -> None:
        """Keep the worlds in which the same was told as here, and forget what was told.

        What concerns `own_id` is left out: the store answered that request directly.
        """
        deadline = time.monotonic() + self._patience
        while self._follows_model:
            told = [told for told in self.told if told[1] != own_id]
            fitting = [world for world in self._worlds if _heard_in(world, told, own_id)]
            if fitting:
                for world in fitting:
                    world.told.clear()
                self._worlds = _distinct(fitting)
                break
            allowed = "\n  or ".join(str(world.told) for world in self._worlds)
            assert time.monotonic() < deadline, f"told were {told}\n  not {allowed}"
            time.sleep(_SOON)
        self._check_claims(deadline)
        self.told.clear()

    def _check_claims(self, deadline: float) -> None:
        """Check that those who were seen to have taken up their slots know that."""
        while unknown := self._claimed.items() - self.granted.items():
            assert time.monotonic() < deadline, f"they hold, and were not told: {unknown}"
            time.sleep(_SOON)
        self._claimed.clear()

    def forgotten_by(self, request_id: str, seconds: float) -> bool:
        """Whether this id's waiting was ended longer ago than a store has to remember."""
        now = self._clock()
        if not self._follows_model:
            return now - self._asked_at[request_id] > seconds
        ends = [w.ended[request_id][1] for w in self._worlds if request_id in w.ended]
        return any(now - end > seconds for end in ends)

    def recall(self) -> list[object]:
        """Return what it did since the last time, as far as stores must agree on it."""
        seen, self._seen = self._seen, []
        return seen

    def note(self, result: object) -> None:
        """Remember a result, for `recall`."""
        self._seen.append(result)

    # -- invariants --------------------------------------------------------------------------------

    def check_invariants(self, snapshot: KeySnapshot) -> None:
        """Check what holds in every state, whatever the model says."""
        key = snapshot.key
        assert snapshot.in_use == sum(holder.cost for holder in snapshot.holders), snapshot
        ids = [*(h.id for h in snapshot.holders), *(w.id for w in snapshot.waiters)]
        assert len(ids) == len(set(ids)), f"somebody is in two places: {snapshot}"
        assert len(snapshot.waiters) == min(snapshot.waiting, KeySnapshot.WAITERS_SHOWN), snapshot
        if snapshot.waiters and not snapshot.paused:
            head = snapshot.waiters[0]
            limit = head.limit if snapshot.override is None else snapshot.override
            assert snapshot.in_use + head.cost > limit, f"the head waits but fits (S6): {snapshot}"
        # A step that changes the override first serves whom the end of others' leases made room
        # for, under the old one.
        overrides = {snapshot.override, self._overrides.get(key)}
        known, in_use = self._known.get(key, set[str]()), 0
        for holder in snapshot.holders:
            in_use += holder.cost
            if holder.id not in known:
                limit = max(holder.limit if number is None else number for number in overrides)
                assert in_use <= limit, f"{holder.id} came in above the limit (S3): {snapshot}"
                self._check_token(key, holder.id, holder.fencing_token)
            if holder.claimed:
                self._claimed[holder.id] = holder.fencing_token
        self._known[key] = {holder.id for holder in snapshot.holders}
        self._overrides[key] = snapshot.override

    def _check_token(self, key: str, request_id: str, token: int) -> None:
        last = self._tokens.get(key, 0)
        if request_id not in self._reclaimed:
            assert token > last, f"the token of {request_id} is not above {last} (S11): {token}"
        self._tokens[key] = max(last, token)

    def _on_notice(self, notice: Notice) -> None:
        self.told.append(("notice", notice.id, type(notice.answer)))


class _Listener:
    """Tells the witness what it hears."""

    def __init__(self, request_id: str, witness: Witness) -> None:
        self._id = request_id
        self._witness = witness

    def look_again(self, answer: Answer | None = None) -> bool:
        if isinstance(answer, Granted):
            self._witness.granted[self._id] = answer.fencing_token
        self._witness.told.append(("woken", self._id, isinstance(answer, Granted)))
        return True

    def lease_renewed(self, expires_at: float) -> None:
        """Not compared: how a store keeps leases alive is its own affair."""

    def lease_lost(self, loss: Loss) -> None:
        self._witness.told.append(("lost", self._id, loss))


def _heard_in(world: World, told: Sequence[Told], own_id: str) -> bool:
    """Whether all that has to be told in a world was told, and no more than may be.

    To look again by itself is something that a waiter may be told at any time, such as when the
    next lease of its key has another end; also in the step in which it is served.
    """
    missing = [told for told in world.told if told[1] != own_id]
    may_look = {waiter.request.id for waiter in world.waiters}
    may_look |= {request_id for what, request_id, _ in missing if what == "woken"}
    for news in told:
        what, request_id, with_grant = news
        if news in missing:
            missing.remove(news)
        elif what != "woken" or with_grant or request_id not in may_look:
            return False
    return not missing


def _distinct(worlds: Sequence[World]) -> list[World]:
    kept: list[World] = []
    for world in worlds:
        if not any(world.same_as(other) for other in kept):
            kept.append(world)
    return kept
