"""Processes that are killed or frozen under load."""

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
            holder = run.processes.of_world(WORLDS[number % 2])
            run.processes.keep_holding([holder], LIMITS)
            run.processes.kill(holder)
            other = random.choice(run.processes.alive)  # in whatever it does
            run.processes.kill(other)
            run.until_bodies_end()
            run.processes.start(holder.world, other.world)
    assert run.figures.lost == 0


@pytest.mark.on_every_deployment
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="cannot see which process is frozen"
)
def test_processes_stand_still_for_longer_than_a_lease(deploy: Deploy, trial: Begin) -> None:
    """S2, S10; rows 8, 13, 28: SIGSTOP, then SIGCONT. Others get in; the frozen one is notified."""
    with trial(deploy(), lease=1.0) as run:
        for _ in run.rounds():
            sleepers = [run.processes.of_world(world) for world in WORLDS]
            bodies = run.processes.keep_holding(sleepers, LIMITS)
            for sleeper in sleepers:
                sleeper.freeze()
            run.until_bodies_end()  # which cannot be before leases have ended
            for sleeper in sleepers:
                run.processes.thaw(sleeper)
            run.until_ended(bodies)
            run.until_bodies_end()
    assert run.figures.lost > 0
