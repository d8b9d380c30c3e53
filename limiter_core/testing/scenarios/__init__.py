"""The scenarios of the contract suite, by theme. Each module says which rules it is about."""

from __future__ import annotations

from limiter_core.testing.scenario_runner import Scenario
from limiter_core.testing.scenarios import (
    admission,
    bookkeeping,
    dormant,
    durable,
    handoff,
    identity,
    leases,
    looking,
    names,
    operating,
    order,
    policies,
    resolutions,
    several,
    traces,
    unclaimed,
)

__all__ = ("SCENARIOS",)

_THEMES = (
    identity,
    admission,
    leases,
    handoff,
    order,
    several,
    resolutions,
    operating,
    durable,
    dormant,
    unclaimed,
    looking,
    names,
    policies,
    traces,
    bookkeeping,
)

SCENARIOS: tuple[Scenario, ...] = tuple(
    value for theme in _THEMES for value in vars(theme).values() if isinstance(value, Scenario)
)
"""All scenarios of the contract, theme by theme."""
