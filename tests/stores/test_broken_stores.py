"""The contract can fail: each store that breaks a rule is found out, by a scenario of that rule."""

from __future__ import annotations

import pytest

from limiter_core.testing import SCENARIOS, FakeClock, StoreUnderTest, run_sync
from limiter_memory import MemoryStore

from .broken import BROKEN


def failed_rules(kind: type[MemoryStore]) -> set[str]:
    """Play all scenarios, and return the rules of those that failed."""
    failed: set[str] = set()
    for scenario in SCENARIOS:
        if "S16" in scenario.rules:
            continue  # thousands of members, to show what a few show as well
        clock = FakeClock()
        store = kind(clock=clock)
        tested = StoreUnderTest(clock, forget=store.start_over_in_child, patience=0)
        store.on_notice(tested.notices.append)
        try:
            run_sync(scenario.steps(tested), store)
        except Exception:
            failed.update(scenario.rules)
    return failed


@pytest.mark.parametrize(
    ("kind", "rule"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", value)
)
def test_a_store_that_breaks_a_rule_is_found_out(kind: type[MemoryStore], rule: str) -> None:
    assert rule in failed_rules(kind)


def test_every_rule_has_scenarios() -> None:
    cited = {rule for scenario in SCENARIOS for rule in scenario.rules}
    assert {f"S{number}" for number in range(1, 20)} <= cited


def test_scenarios_have_names_of_their_own() -> None:
    names = [str(scenario) for scenario in SCENARIOS]
    assert len(names) == len(set(names))


def test_every_scenario_says_what_it_shows() -> None:
    assert [scenario.name for scenario in SCENARIOS if not scenario.play.__doc__] == []
