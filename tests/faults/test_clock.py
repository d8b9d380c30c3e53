"""Clocks that are wrong, under load: of the processes, and of the server."""

from __future__ import annotations

import time

from ._clock import SHIFT, SHIFTED, set_clock
from ._crew import WORLDS
from ._trial import LIMITS, Begin, Deploy


def test_processes_are_wrong_about_the_time(deploy: Deploy, trial: Begin) -> None:
    """Row 1: some are an hour ahead, some behind. No lease ends early for it."""
    with trial(deploy(), lease=1.0, worlds=WORLDS) as run:
        run.crew.start("threads", ahead=3600.0)
        run.crew.start("asyncio", ahead=-3600.0)
        for _ in run.rounds():
            run.crew.cling(run.crew.alive[:1], LIMITS)
            run.let_go()
    assert run.figures.lost == 0
    assert set(run.figures.errors) <= {"WaitTimeout"}


def test_the_servers_clock_jumps(deploy: Deploy, trial: Begin) -> None:
    """Row 2. Ahead: all leases end at once, and holders are told. Back: nothing is lost."""
    deployment = deploy()
    set_clock(deployment, 0)
    with trial(deployment, lease=1.0, script=SHIFTED, leaves=(SHIFT,)) as run:
        for number in run.rounds(2):
            run.crew.cling(run.crew.alive[:2], LIMITS)
            lost = run.crew.lost()
            if number % 2 == 0:
                before = time.monotonic()
                set_clock(deployment, 60)
                run.forgot("the clock jumped", (before, time.monotonic()))
                run.let_go()
                assert run.crew.lost() > lost
            else:
                set_clock(deployment, 0)
                run.let_go()
                assert run.crew.lost() == lost
