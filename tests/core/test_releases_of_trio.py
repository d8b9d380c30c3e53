"""trio is the user's own: of any release, and perhaps just being imported by another thread."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import trio.lowlevel

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
from limiter_memory import MemoryStore

from ._tools import Thread, until_waiting_now

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1)


def _wait_in_a_thread() -> None:
    store = MemoryStore()
    limiter = SyncLimiter(store)

    def wait() -> None:
        with limiter.hold(ONE):
            pass

    with limiter.hold(ONE):
        waiter = Thread(wait)
        until_waiting_now(store, "one", 1)
    waiter.join()


def test_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trio.lowlevel, "in_trio_run", raising=False)
    _wait_in_a_thread()


@pytest.mark.parametrize("submodules", [False, True])
def test_one_that_is_being_imported(monkeypatch: pytest.MonkeyPatch, *, submodules: bool) -> None:
    unfinished = ModuleType("trio")
    if submodules:
        unfinished.lowlevel = ModuleType("trio.lowlevel")  # type: ignore[attr-defined]  # as an import does
    monkeypatch.setitem(sys.modules, "trio", unfinished)
    _wait_in_a_thread()


def test_a_coroutine_without_a_loop_while_it_is_being_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))
    with pytest.raises(ConfigurationError, match="here is none"):
        Limiter("memory://").acquire(ONE).send(None)
