"""A server that restarts, forgets, is full, is demoted, or takes its time, under load."""

from __future__ import annotations

import threading
import time

import pytest

from limiter_core import ConcurrencyLimit, SyncLimiter
from tests.redis._servers import PATIENCE
from tests.redis._tools import until_now

from ._deployments import (
    KEEPING,
    flush_all,
    frozen,
    pause,
    read_only,
    restart,
    setting,
)
from ._trial import LIMITS, Begin, Deploy

LEASE = 2.0
"""Long enough for a tenth of it, by which holders are notified before its end, to be long on a busy
machine."""

FOR_A_MOMENT = 0.4
FOR_LONG = 2.5
SPELLS = (FOR_A_MOMENT, FOR_LONG)
"""Seconds: for the one nothing is lost, since a holder can always wait for more than half of its
lease; for the other every lease ends."""


def test_a_restart_with_data(deploy: Deploy, trial: Begin) -> None:
    """Row 16: holders and waiters are still known; one that cannot renew is notified in time."""
    deployment = deploy(*KEEPING)
    with trial(deployment, lease=LEASE) as run:
        for number in run.rounds(2):
            seconds = SPELLS[number % 2]
            bodies = run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            lost = run.processes.lost()
            restart(deployment, away=seconds)
            if seconds == FOR_A_MOMENT:
                run.end_bodies()
                assert run.processes.lost() == lost
            else:
                run.until_ended(bodies)
                run.until_bodies_end()


def test_a_restart_without_data(deploy: Deploy, trial: Begin) -> None:
    """S10, S11; rows 16, 22: more may run than may, for a lease; work continues by itself."""
    deployment = deploy()
    with trial(deployment, lease=1.0) as run:
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            run.forgot("restarted", restart(deployment))
            run.end_bodies()


@pytest.mark.on_every_deployment
def test_all_data_is_deleted(deploy: Deploy, trial: Begin) -> None:
    """S10, S11; row 22: FLUSHALL. The excess ends within a lease, and tokens go on rising."""
    deployment = deploy()
    with trial(deployment, lease=1.0) as run:
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            run.forgot("flushed", flush_all(deployment))
            run.end_bodies()


@pytest.mark.on_every_deployment
def test_scripts_are_flushed_all_the_time(deploy: Deploy, trial: Begin) -> None:
    """Rows 16, 17: no body notices; functions are deleted as well."""
    deployment = deploy()
    with trial(deployment, lease=1.0) as run:
        over = threading.Event()

        def flush() -> None:
            while not over.wait(0.001):
                for server in deployment.primaries():
                    server.admin.script_flush()
                    server.admin.function_flush()

        flusher = threading.Thread(target=flush)
        flusher.start()
        try:
            for _ in run.rounds(3):
                run.until_bodies_end()
        finally:
            over.set()
            flusher.join(PATIENCE)
    assert run.figures.lost == 0
    assert set(run.figures.errors) <= {"WaitTimeout"}


@pytest.mark.on_every_deployment
def test_a_hundred_leases_are_renewed_after_scripts_were_flushed(deploy: Deploy) -> None:
    """Row 17: all that is sent at once finds the script gone, on each node, and none is lost."""
    deployment = deploy()
    limit = ConcurrencyLimit("key", lease=3.0)

    def ends() -> list[float]:
        return [time.monotonic() + lease.expires_in() for lease in leases]

    with SyncLimiter(deployment.url) as limiter:
        leases = [limiter.acquire(limit, {"key": number}) for number in range(100)]
        for _ in range(3):
            before = ends()
            for server in deployment.primaries():
                server.admin.script_flush()
                server.admin.function_flush()
            until_now(
                lambda: all(new > old + 0.1 for old, new in zip(before, ends(), strict=True)),  # noqa: B023
                "all are renewed",
            )
        for number, lease in enumerate(leases):
            lease.check()
            [holder] = limiter.inspect(limit, {"key": number}).holders
            assert holder.expires_in is not None
            assert holder.expires_in > 0
            lease.release()


@pytest.mark.on_every_deployment
def test_memory_is_full(deploy: Deploy, trial: Begin) -> None:
    """Noeviction: no new call gets in; a holder keeps its slot, and can release it."""
    deployment = deploy("--maxmemory-policy", "noeviction")
    with trial(deployment, lease=LEASE) as run:
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            lost = run.processes.lost()
            with setting(deployment, "maxmemory", 1):
                time.sleep(2 * LEASE)
            run.end_bodies()
            assert run.processes.lost() == lost
    assert run.figures.errors["StoreError"] > 0


def test_the_server_is_demoted(deploy: Deploy, trial: Begin) -> None:
    """A read-only replica is as good as away: calls wait, holders are notified in time."""
    deployment = deploy()
    with trial(deployment, lease=LEASE) as run:
        for number in run.rounds(2):
            bodies = run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            lost = run.processes.lost()
            if SPELLS[number % 2] == FOR_A_MOMENT:
                with read_only(deployment):
                    time.sleep(FOR_A_MOMENT)
                run.end_bodies()
                assert run.processes.lost() == lost
            else:
                with read_only(deployment):
                    run.until_ended(bodies)
                run.until_bodies_end()
    assert "StoreError" not in run.figures.errors


def test_the_server_is_slow(deploy: Deploy, trial: Begin) -> None:
    """CLIENT PAUSE: for a moment, nothing is lost; longer, and holders are notified in time."""
    deployment = deploy()
    with trial(deployment, lease=LEASE) as run:
        for number in run.rounds(2):
            seconds = SPELLS[number % 2]
            bodies = run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            lost = run.processes.lost()
            pause(deployment, seconds)
            if seconds == FOR_A_MOMENT:
                run.end_bodies()
                assert run.processes.lost() == lost
            else:
                run.until_ended(bodies)
                run.until_bodies_end()


def test_the_server_stands_still(deploy: Deploy, trial: Begin) -> None:
    """SIGSTOP of the server for longer than a lease, as on a host that swaps or is moved."""
    deployment = deploy()
    with trial(deployment, lease=LEASE) as run:
        for _ in run.rounds():
            bodies = run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            with frozen(deployment):
                run.until_ended(bodies)
                time.sleep(FOR_LONG - LEASE)
            run.until_bodies_end()
