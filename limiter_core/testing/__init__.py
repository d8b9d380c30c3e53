"""For tests of limiters and of stores: fakes, doubles, and the contract that any store must pass.

- `FakeClock`: a clock that the test advances.
- `UnlimitedStore`, `FullStore`: stores that admit every call, and none. `AwaitedStore` gives an
  async face to a store of your own whose operations never wait.
- `OverlapRecorder`: records, independent of the store, which call held what when.
- `SyncStoreContract`, `AsyncStoreContract`: the contract suite; `SCENARIOS` are what it runs.
- `StoreMachine`: a hypothesis machine that drives stores side by side with a model of the rules.
- `RecordingListener`, `StoreUnderTest`, `scenario`: for scenarios of your own.

Needs pytest and hypothesis (the extra `testing`); the rest of `limiter_core` does not.
"""

# First, for what it does: the others need it.
import limiter_core.testing._requirements  # noqa: F401  # pyright: ignore[reportUnusedImport]
from limiter_core.testing.awaited import AwaitedStore
from limiter_core.testing.clock import FakeClock
from limiter_core.testing.contract import AsyncStoreContract, SyncStoreContract
from limiter_core.testing.doubles import FullStore, UnlimitedStore
from limiter_core.testing.listener import RecordingListener
from limiter_core.testing.recorder import Interval, OverlapRecorder, Violation
from limiter_core.testing.scenario_runner import Scenario, run_async, run_sync, scenario
from limiter_core.testing.scenarios import SCENARIOS
from limiter_core.testing.stateful import StoreMachine
from limiter_core.testing.store_under_test import Step, Steps, StoreUnderTest

__all__ = (
    "SCENARIOS",
    "AsyncStoreContract",
    "AwaitedStore",
    "FakeClock",
    "FullStore",
    "Interval",
    "OverlapRecorder",
    "RecordingListener",
    "Scenario",
    "Step",
    "Steps",
    "StoreMachine",
    "StoreUnderTest",
    "SyncStoreContract",
    "UnlimitedStore",
    "Violation",
    "run_async",
    "run_sync",
    "scenario",
)

# The old names of these; they go with the next release.
Stage, play_async, play_sync = StoreUnderTest, run_async, run_sync
