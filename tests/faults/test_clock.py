"""The server's clock jumps, under load: a step of NTP, or a failover to a host that is wrong."""

from __future__ import annotations

import time

from ._clock import SHIFT, SHIFTED, set_clock
from ._trial import LIMITS, Begin, Deploy


def test_the_clock_jumps(deploy: Deploy, trial: Begin) -> None:
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
