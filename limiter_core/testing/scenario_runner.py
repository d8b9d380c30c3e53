"""Scenarios, and the two loops that run them: in a thread, and in an event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from limiter_core.store import AsyncStore, Capabilities, SyncStore
from limiter_core.testing.store_under_test import Steps, StoreUnderTest

__all__ = ("Scenario", "run_async", "run_sync", "scenario")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A sequence of operations to which every store must give the same answers.

    Attributes:
        name: what happens.
        rules: the rules of `limiter_core.store` that it checks.
        rows: the rows of the project's list of known failures that it guards against.
        needs: what a store must be able to do: names of `Capabilities`, or "forget".
        steps: makes the steps, given the store under test.
    """

    name: str
    rules: tuple[str, ...]
    rows: tuple[int, ...]
    needs: tuple[str, ...]
    steps: Callable[[StoreUnderTest], Steps[None]]

    def __str__(self) -> str:
        return "-".join((*self.rules, self.name))

    @property
    def play(self) -> Callable[[StoreUnderTest], Steps[None]]:
        """The old name of `steps`; it goes with the next release."""
        return self.steps

    def lacking(self, capabilities: Capabilities, *, can_forget: bool) -> str | None:
        """Return why it cannot be run on a store, None if it can."""
        for need in self.needs:
            if need == "forget":
                if not can_forget:
                    return "there is no `forget` fixture to make this store lose its data"
            elif not getattr(capabilities, need):
                return f"this store declares not to have the capability {need!r}"
        return None


def scenario(
    *rules: str, rows: tuple[int, ...] = (), needs: tuple[str, ...] = ()
) -> Callable[[Callable[[StoreUnderTest], Steps[None]]], Scenario]:
    """Make a scenario of a generator function; see `Scenario`."""
    return lambda steps: Scenario(steps.__name__, rules, rows, needs, steps)


def run_sync(steps: Steps[None], store: SyncStore) -> None:
    """Run a scenario on the sync face of a store."""
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration:
            return
        result, error = None, None
        try:
            result = step.on_sync(store)
        except Exception as raised:  # noqa: BLE001  (it is raised in the scenario)
            error = raised


async def run_async(steps: Steps[None], store: AsyncStore) -> None:
    """Run a scenario on the async face of a store."""
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration:
            return
        result, error = None, None
        try:
            result = await step.on_async(store)
        except Exception as raised:  # noqa: BLE001  (it is raised in the scenario)
            error = raised
