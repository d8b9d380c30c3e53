"""Processes that are killed, or stand still, under load."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ._holder_processes import WORLDS
from ._trial import LIMITS, Begin, Deploy


@pytest.mark.on_every_deployment
def test_processes_are_killed(deploy: Deploy, trial: Begin) -> None:
    """S2, S6; rows 5, 6, 7: kill -9 while they hold and wait: nothing overlaps, nothing is lost."""
    with trial(deploy(), lease=1.0) as run:
        for number in run.rounds():
            holder = run.crew.of_world(WORLDS[number % 2])
            run.crew.cling([holder], LIMITS)
            run.crew.kill(holder)
            other = random.choice(run.crew.alive)  # in whatever it does
            run.crew.kill(other)
            run.goes_on()
            run.crew.start(holder.world, other.world)
    assert run.figures.lost == 0


@pytest.mark.on_every_deployment
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="cannot see who stands still")
def test_processes_stand_still_for_longer_than_a_lease(deploy: Deploy, trial: Begin) -> None:
    """S2, S10; rows 8, 13, 28: SIGSTOP, then SIGCONT. Others get in, and who wakes is told."""
    with trial(deploy(), lease=1.0) as run:
        for _ in run.rounds():
            sleepers = [run.crew.of_world(world) for world in WORLDS]
            bodies = run.crew.cling(sleepers, LIMITS)
            for sleeper in sleepers:
                sleeper.freeze()
            run.goes_on()  # which cannot be before leases have ended
            for sleeper in sleepers:
                run.crew.thaw(sleeper)
            run.until_ended(bodies)
            run.goes_on()
    assert run.figures.lost > 0
