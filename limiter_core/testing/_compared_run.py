"""A run of operations on stores, each compared with the model of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from limiter_core.limits import ConflictResolution
from limiter_core.policies import Change, PolicyStore
from limiter_core.requests import Answer, Demand, Refused, Request
from limiter_core.store import SyncStore
from limiter_core.testing._calls import KEYS, LISTENED_LEASE
from limiter_core.testing.clock import FakeClock
from limiter_core.testing.model import Model
from limiter_core.testing.model_comparison import ModelComparison

_REMEMBERED = 30.0
"""Seconds after which a run does not ask again for a ticket that was dismissed."""


class ComparedRun:
    """What a run has asked for, and how a step is carried out on each store and on its model."""

    stores_agree = True
    comparisons: Sequence[ModelComparison] = ()
    clock: FakeClock
    kind: str
    keys: tuple[str, ...]
    resolutions: list[ConflictResolution]
    requests: list[Request]
    """The requests that were not refused at once, nor released since."""
    count: int

    def _key(self, index: int) -> str:
        return self.keys[index % len(self.keys)]

    def _of_this_run(self, demand: Demand) -> Demand:
        """Return the demand with one of the resolutions of this run."""
        key = self._key(KEYS.index(demand.key))
        position = list(ConflictResolution).index(demand.on_conflict)
        resolution = self.resolutions[position % len(self.resolutions)]
        priority = demand.priority if resolution is ConflictResolution.PRIORITY else 0
        return demand._replace(key=key, on_conflict=resolution, priority=priority)

    def _pick(self, index: int) -> Request | None:
        known = [
            request
            for request in self.requests
            if not any(w.may_be_forgotten(request.id, _REMEMBERED) for w in self.comparisons)
        ]
        return known[index % len(known)] if known else None

    def _call(self, requests: list[Request]) -> None:
        for request in requests:
            drawn = request.demands[:1] if self.kind == "one key" else request.demands
            demands = {demand.key: demand for demand in map(self._of_this_run, drawn)}.values()
            order = request.order and int(self.clock() * 1_000_000) + request.order
            self._add_call(request._replace(demands=tuple(demands), order=order))

    def _add_call(self, request: Request) -> None:
        self.count += 1
        order = request.order and request.order + self.count  # no two are the same
        request = request._replace(id=f"r{self.count}", order=order)
        if not isinstance(self._ask(request), Refused):
            self.requests.append(request)

    def _ask(self, request: Request) -> Answer:
        listens = request.lease == LISTENED_LEASE
        answers = [comparison.acquire(request, listens=listens) for comparison in self.comparisons]
        self._compare_keys(request, request.id)
        return answers[0]

    def _release(self, request: Request) -> None:
        self._run_operation(
            f"release({request.id!r})",
            request,
            lambda store: store.release(request.id),
            lambda model, now: model.release(request.id, now),
        )

    def _change_policy(self, change: Change) -> None:
        def on_store(store: SyncStore) -> str:
            return cast(PolicyStore, store).change_policy(change).old

        self._run_operation(
            f"change_policy({change})",
            None,
            on_store,
            lambda model, now: model.change_policy(change, now),
        )

    def _run_operation(
        self,
        what: str,
        about: Request | str | None,
        on_store: Callable[[SyncStore], object],
        on_model: Callable[[Model, float], object],
    ) -> None:
        for comparison in self.comparisons:
            result = comparison.step(what, on_store, on_model, lambda given, right: given == right)
            comparison.note(result)
        self._compare_keys(about)

    def _compare_keys(self, about: Request | str | None, own_id: str = "") -> None:
        """Compare the keys that a step was about; all, if it may have changed others."""
        if self.kind != "one key" or about is None:
            keys = self.keys
        else:
            keys = (about if isinstance(about, str) else about.demands[0].key,)
        for comparison in self.comparisons:
            comparison.observe(keys)
            comparison.compare_notifications(own_id)
        first, *others = (comparison.take_seen() for comparison in self.comparisons)
        for other in others:
            assert not self.stores_agree or other == first, f"one store: {first}\nother: {other}"
