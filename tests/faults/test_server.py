"""A server that restarts, forgets, is full, is demoted, or takes its time, under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.redis._tools import until_now

from ._deployments import (
    KEEPING,
    Deployment,
    flush_all,
    frozen,
    pause,
    read_only,
    restart,
    setting,
)
from ._trial import LIMITS, Trial

Deploy = Callable[..., Deployment]
Begin = Callable[..., Trial]


@pytest.mark.parametrize("away", [0.3, 3.0], ids=["soon-back", "away-for-longer-than-a-lease"])
def test_a_restart_with_data(away: float, deploy: Deploy, trial: Begin) -> None:
    """Row 16: holders and waiters are still known. Who cannot renew is told before its lease ends."""
    deployment = deploy(*KEEPING)
    with trial(deployment, lease=2.0) as run:
        for _ in run.rounds():
            clinging = run.crew.alive[:2]
            run.crew.cling(clinging, LIMITS)
            restart(deployment, away=away)
            run.goes_on_after(clinging)


def test_a_restart_without_data(deploy: Deploy, trial: Begin) -> None:
    """S10, S11; rows 16, 22: more may run than may, for a lease; all goes on by itself."""
    deployment = deploy()
    with trial(deployment, lease=1.0) as run:
        for _ in run.rounds(2):
            clinging = run.crew.alive[:2]
            run.crew.cling(clinging, LIMITS)
            run.forgot("restarted", restart(deployment))
            run.goes_on_after(clinging)


def test_all_data_is_deleted(deploy: Deploy, trial: Begin) -> None:
    """S10, S11; row 22: FLUSHALL. The excess ends within a lease, and tokens go on rising."""
    deployment = deploy()
    with trial(deployment, lease=1.0) as run:
        for _ in run.rounds(3):
            clinging = run.crew.alive[:2]
            run.crew.cling(clinging, LIMITS)
            run.forgot("flushed", flush_all(deployment))
            run.goes_on_after(clinging)


def test_scripts_are_flushed_all_the_time(deploy: Deploy, trial: Begin) -> None:
    """Rows 16, 17: nobody notices."""
    deployment = deploy()
    with trial(deployment, lease=1.0) as run:
        over = threading.Event()

        def flush() -> None:
            while not over.wait(0.001):
                for server in deployment.primaries():
                    server.admin.script_flush()

        flusher = threading.Thread(target=flush)
        flusher.start()
        try:
            for _ in run.rounds(3):
                run.goes_on()
        finally:
            over.set()
            flusher.join()
    assert run.figures.lost == 0
    assert set(run.figures.errors) <= {"WaitTimeout"}


def test_memory_is_full(deploy: Deploy, trial: Begin) -> None:
    """Noeviction: nobody new gets in, who cannot renew is told in time, releases go on."""
    deployment = deploy("--maxmemory-policy", "noeviction")
    with trial(deployment, lease=2.0) as run:
        for _ in run.rounds():
            clinging = run.crew.alive[:2]
            run.crew.cling(clinging, LIMITS)
            with setting(deployment, "maxmemory", 1):
                run.until_none_holds()
            run.goes_on_after(clinging)
    assert run.figures.errors["StoreError"] > 0


@pytest.mark.parametrize("seconds", [0.5, 3.0], ids=["for-a-moment", "for-longer-than-a-lease"])
def test_the_server_is_demoted(seconds: float, deploy: Deploy, trial: Begin) -> None:
    """A read-only replica is as good as away: calls wait, holders are told before their leases end."""
    deployment = deploy()
    with trial(deployment, lease=2.0) as run:
        for _ in run.rounds():
            clinging = run.crew.alive[:2]
            run.crew.cling(clinging, LIMITS)
            with read_only(deployment):
                time.sleep(seconds)
            run.goes_on_after(clinging)
    if seconds < run.lease / 2:
        assert run.figures.lost == 0
    assert "StoreError" not in run.figures.errors


@pytest.mark.parametrize("seconds", [0.6, 3.0], ids=["for-a-moment", "for-longer-than-a-lease"])
def test_the_server_is_slow(seconds: float, deploy: Deploy, trial: Begin) -> None:
    """CLIENT PAUSE: for a moment, nothing is lost; longer, and holders are told in time."""
    deployment = deploy()
    with trial(deployment, lease=2.0) as run:
        for _ in run.rounds():
            clinging = run.crew.alive[:2]
            run.crew.cling(clinging, LIMITS)
            pause(deployment, seconds)
            if seconds > run.lease:
                run.until_none_holds()
            run.goes_on_after(clinging)
    if seconds < run.lease / 2:
        assert run.figures.lost == 0


def test_the_server_stands_still(deploy: Deploy, trial: Begin) -> None:
    """SIGSTOP of the server for longer than a lease, as on a host that swaps or is moved."""
    deployment = deploy()
    with trial(deployment, lease=2.0) as run:
        for _ in run.rounds():
            clinging = run.crew.alive[:2]
            run.crew.cling(clinging, LIMITS)
            with frozen(deployment):
                run.until_none_holds()
                at = time.monotonic() + 0.5
                until_now(lambda: time.monotonic() > at, "all leases have ended")  # noqa: B023
            run.goes_on_after(clinging)
