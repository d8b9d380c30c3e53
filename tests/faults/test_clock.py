"""Clocks that are wrong, under load: of the processes, and of the server."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from limiter_core import SyncLimiter
from limiter_core.requests import Demand, Request
from limiter_redis import RedisStore

from ._clock import SHIFTED, SHIFTS, set_clock
from ._holder_processes import WORLDS
from ._trial import LIMITS, Begin, Deploy, limit_of


@pytest.mark.on_every_deployment
def test_processes_are_wrong_about_the_time(deploy: Deploy, trial: Begin) -> None:
    """Row 1: some are an hour ahead, some behind. No lease ends early for it."""
    with trial(deploy(), lease=1.0, worlds=WORLDS) as run:
        run.processes.start("threads", ahead=3600.0)
        run.processes.start("asyncio", ahead=-3600.0)
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:1], LIMITS)
            run.end_bodies()
    assert run.figures.lost == 0
    assert set(run.figures.errors) <= {"WaitTimeout"}


@pytest.mark.on_every_deployment
def test_the_servers_clock_jumps(deploy: Deploy, trial: Begin) -> None:
    """Row 2. Ahead: all leases end at once, and holders are notified. Back: nothing is lost."""
    deployment = deploy()
    set_clock(deployment, 0)
    with trial(deployment, lease=1.0, script=SHIFTED, leaves=SHIFTS) as run:
        for number in run.rounds(2):
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            lost = run.processes.lost()
            if number % 2 == 0:
                before = time.monotonic()
                set_clock(deployment, 60)
                run.forgot("the clock jumped", (before, time.monotonic()))
                run.end_bodies()
                assert run.processes.lost() > lost
            else:
                set_clock(deployment, 0)
                run.end_bodies()
                assert run.processes.lost() == lost


@pytest.mark.on_every_deployment
def test_after_a_jump_back_the_dead_keep_their_slots_for_longer(deploy: Deploy) -> None:
    """Row 2: their leases end by that clock; and an idle key begins with a lower token."""
    deployment = deploy()
    set_clock(deployment, 60)
    with closing(RedisStore(deployment.url, script=SHIFTED)) as store:
        limiter, face = SyncLimiter(store), store.sync_face()
        with limiter.hold(limit_of("three", 1.0)) as lease:
            token = lease.fencing_token
        # It has no listener, so it is not renewed: as if its process had died.
        face.acquire(Request("dead", (Demand("one", 1),), lease=1.0))
        set_clock(deployment, 0)
        [holder] = face.inspect("one").holders
        assert holder.expires_in is not None
        assert holder.expires_in > 55
        with limiter.hold(limit_of("three", 1.0)) as lease:
            assert lease.fencing_token < token
