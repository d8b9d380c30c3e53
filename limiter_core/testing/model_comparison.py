"""Compares one store with the model: its answers, its notifications, its snapshots."""

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
from limiter_core.testing._model_state import Notification
from limiter_core.testing._views import comparable, view_of, view_of_model
from limiter_core.testing.clock import FakeClock
from limiter_core.testing.model import Model, outcomes

__all__ = ("ModelComparison",)

R = TypeVar("R")
M = TypeVar("M")

_SOON = 0.005


class ModelComparison:
    """One store, and the states of the model that it may be in.

    Args:
        store: the store's sync face.
        clock: its clock.
        patience: real seconds in which it has to notify its listeners.
        follows_model: False to compare it with no model; the invariants are checked all the same.
    """

    def __init__(
        self, store: SyncStore, clock: FakeClock, *, patience: float, follows_model: bool
    ) -> None:
        self.store = store
        self.granted: dict[str, int] = {}
        """The fencing tokens of the grants that were answered or delivered."""
        self.lost_while_asking = False
        """Whether the last call that asked was notified meanwhile that its lease had ended."""
        self.notifications: list[Notification] = []
        self._clock = clock
        self._patience = patience
        self._follows_model = follows_model
        self._models = [Model()]
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

    def _own_request(self, request: Request, *, listens: bool) -> Request:
        """Return the request as this store gets it: with its listener, and its arrival order."""
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
        own = self._own_request(request, listens=listens)
        self._asked_at[own.id] = self._clock()
        answer = self.step(
            f"acquire({request})",
            lambda store: store.acquire(own),
            lambda model, now: model.acquire(own, now),
            lambda given, right: comparable(given, own) == comparable(right, own),
        )
        self.lost_while_asking = any(
            what == "lost" and request_id == own.id and detail is not Loss.PREEMPTED
            for what, request_id, detail in self.notifications
        )
        # A place in line is a number of the store's own making.
        self._seen.append(comparable(answer, own._replace(order=None)))
        if isinstance(answer, Granted):
            self.granted[own.id] = answer.fencing_token
        elif isinstance(answer, Queued):
            assert own.order in (None, answer.order), f"{own.id} lost its arrival order: {answer}"
            self._note_order(own.id, answer.order)
        return answer

    def _note_order(self, request_id: str, order: int) -> None:
        self._orders[request_id] = order
        for model in self._models:
            waiter = model.waiter(request_id)
            if waiter is not None:
                model.change(waiter, order=order)
                model.last_order = max(model.last_order, order)

    def renew(self, ids: Sequence[str]) -> None:
        """Renew; the same must be gone."""

        def agree(renewal: Renewal, right: tuple[set[str], set[str]]) -> bool:
            return (set(renewal.gone), set(renewal.preempted)) == right

        renewal = self.step(
            f"renew({ids})",
            lambda store: store.renew(ids),
            lambda model, now: model.renew(ids, now),
            agree,
        )
        self._seen.append((set(renewal.gone), renewal.preempted))

    def step(
        self,
        what: str,
        on_store: Callable[[SyncStore], R],
        on_model: Callable[[Model, float], M],
        agree: Callable[[R, M], bool],
    ) -> R:
        """Run an operation, and keep the states of the model in which it has the same result."""
        result = on_store(self.store)
        if self._follows_model:
            now = self._clock()
            possible = [
                outcome
                for model in self._models
                for outcome in outcomes(model, lambda model: on_model(model, now))
            ]
            fitting = [model for model, right in possible if agree(result, right)]
            allowed = "\n  or ".join(dict.fromkeys(str(right) for _, right in possible))
            assert fitting, f"{what}\n  gave {result}\n  not {allowed}"
            self._models = _distinct(fitting)
        return result

    def observe(self, keys: Sequence[str]) -> None:
        """Inspect keys: the model has the same snapshots, and the invariants hold."""
        for key in keys:
            self._observe(key)

    def _observe(self, key: str) -> None:
        def reaped(model: Model, now: float) -> object:
            model.reap([key], now)
            return view_of_model(model, key, now)

        def agree(snapshot: KeySnapshot, right: object) -> bool:
            return view_of(snapshot, self._listeners) == right

        what = f"inspect({key!r})"
        snapshot = self.step(what, lambda store: store.inspect(key), reaped, agree)
        self.check_invariants(snapshot)
        self._seen.append(view_of(snapshot, self._listeners, mask_claims=True))

    def compare_notifications(self, own_id: str = "") -> None:
        """Keep the states of the model with the same notifications, and forget those.

        Those of `own_id` are left out: the store answered that request directly.
        """
        deadline = time.monotonic() + self._patience
        while self._follows_model:
            sent = [each for each in self.notifications if each[1] != own_id]
            fitting = [model for model in self._models if _notified_in(model, sent, own_id)]
            if fitting:
                for model in fitting:
                    model.notifications.clear()
                self._models = _distinct(fitting)
                break
            allowed = "\n  or ".join(str(model.notifications) for model in self._models)
            assert time.monotonic() < deadline, f"notified {sent}\n  not {allowed}"
            time.sleep(_SOON)
        self._check_claims(deadline)
        self.notifications.clear()

    def _check_claims(self, deadline: float) -> None:
        """Check that the grants of claimed slots were answered or delivered."""
        while unknown := self._claimed.items() - self.granted.items():
            assert time.monotonic() < deadline, f"claimed, and not notified: {unknown}"
            time.sleep(_SOON)
        self._claimed.clear()

    def may_be_forgotten(self, request_id: str, seconds: float) -> bool:
        """Whether this id's waiting was ended longer ago than a store has to remember."""
        now = self._clock()
        if not self._follows_model:
            return now - self._asked_at[request_id] > seconds
        ends = [w.ended[request_id][1] for w in self._models if request_id in w.ended]
        return any(now - end > seconds for end in ends)

    def take_seen(self) -> list[object]:
        """Return the results since the last call, as far as stores must agree on them."""
        seen, self._seen = self._seen, []
        return seen

    def note(self, result: object) -> None:
        """Remember a result, for `take_seen`."""
        self._seen.append(result)

    # -- invariants --------------------------------------------------------------------------------

    def check_invariants(self, snapshot: KeySnapshot) -> None:
        """Check what holds in every state, whatever the model says."""
        key = snapshot.key
        assert snapshot.in_use == sum(holder.cost for holder in snapshot.holders), snapshot
        ids = [*(h.id for h in snapshot.holders), *(w.id for w in snapshot.waiters)]
        assert len(ids) == len(set(ids)), f"an id stands twice in {snapshot}"
        assert len(snapshot.waiters) == min(snapshot.waiting, KeySnapshot.WAITERS_SHOWN), snapshot
        if snapshot.waiters and not snapshot.paused:
            head = snapshot.waiters[0]
            limit = head.limit if snapshot.override is None else snapshot.override
            assert snapshot.in_use + head.cost > limit, f"the head waits but fits (S6): {snapshot}"
        # A step that changes the override first reaps and serves, under the old one.
        overrides = {snapshot.override, self._overrides.get(key)}
        known, in_use = self._known.get(key, set[str]()), 0
        for holder in snapshot.holders:
            in_use += holder.cost
            if holder.id not in known:
                limit = max(holder.limit if number is None else number for number in overrides)
                assert in_use <= limit, f"{holder.id} was granted above the limit (S3): {snapshot}"
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
        self.notifications.append(("notice", notice.id, type(notice.answer)))


class _Listener:
    """Adds the notifications of one request to the comparison."""

    def __init__(self, request_id: str, comparison: ModelComparison) -> None:
        self._id = request_id
        self._comparison = comparison

    def look_again(self, answer: Answer | None = None) -> bool:
        if isinstance(answer, Granted):
            self._comparison.granted[self._id] = answer.fencing_token
        self._comparison.notifications.append(("woken", self._id, isinstance(answer, Granted)))
        return True

    def lease_renewed(self, expires_at: float) -> None:
        """Not compared: the rules do not say when a store renews leases."""

    def lease_lost(self, loss: Loss) -> None:
        self._comparison.notifications.append(("lost", self._id, loss))


def _notified_in(model: Model, notifications: Sequence[Notification], own_id: str) -> bool:
    """Whether all notifications that a model requires were sent, and no others than it allows.

    A waiter may be notified to look again at any time, such as when the next lease of its key has
    another end; also in the step in which it is served.
    """
    missing = [each for each in model.notifications if each[1] != own_id]
    may_look = {waiter.request.id for waiter in model.waiters}
    may_look |= {request_id for what, request_id, _ in missing if what == "woken"}
    for each in notifications:
        what, request_id, with_grant = each
        if each in missing:
            missing.remove(each)
        elif what != "woken" or with_grant or request_id not in may_look:
            return False
    return not missing


def _distinct(models: Sequence[Model]) -> list[Model]:
    kept: list[Model] = []
    for model in models:
        if not any(model.same_as(other) for other in kept):
            kept.append(model)
    return kept
