"""The old name of `limiter_core.testing.scenario_runner`; it goes with the next release."""

from __future__ import annotations

from limiter_core.testing.scenario_runner import Scenario, scenario
from limiter_core.testing.scenario_runner import run_async as play_async
from limiter_core.testing.scenario_runner import run_sync as play_sync

__all__ = ("Scenario", "play_async", "play_sync", "scenario")
