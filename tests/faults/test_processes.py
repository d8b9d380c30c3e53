"""Processes that are killed, or stand still, under load."""

from __future__ import annotations

import random
from collections.abc import Callable

from ._deployments import Deployment
from ._trial import LIMITS, Trial

Deploy = Callable[..., Deployment]
Begin = Callable[..., Trial]


def test_workers_are_killed(deploy: Deploy, trial: Begin) -> None:
    """S2, S6; rows 5, 6, 7: kill -9, whatever they do; nothing overlaps, and all slots come back."""
    with trial(deploy(), lease=1.0) as run:
        for _ in run.rounds():
            victims = random.sample(run.crew.alive, 2)
            for victim in victims:
                run.crew.kill(victim)
            run.goes_on()
            run.crew.start(*(victim.world for victim in victims))


def test_those_who_hold_are_killed(deploy: Deploy, trial: Begin) -> None:
    """S2, S6; row 6: whoever waits gets in when their leases end, and not before."""
    with trial(deploy(), lease=1.0) as run:
        for number in run.rounds():
            victim = run.crew.alive[number % 2]  # one of each world, in turns
            run.crew.cling([victim], LIMITS)
            run.crew.kill(victim)
            run.goes_on()
            run.crew.start(victim.world)


def test_holders_stand_still_for_longer_than_a_lease(deploy: Deploy, trial: Begin) -> None:
    """S2, S10; rows 8, 13, 28: SIGSTOP, then SIGCONT. Others get in, and who wakes is told."""
    with trial(deploy(), lease=1.0) as run:
        for number in run.rounds(2):
            sleeper = run.crew.members[number % 2]  # one of each world, in turns
            run.crew.cling([sleeper], LIMITS)
            run.crew.freeze(sleeper)
            run.goes_on()  # which cannot be before its leases have ended
            run.crew.thaw(sleeper)
            run.crew.let_go([sleeper])
            run.goes_on()
