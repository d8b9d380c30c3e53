"""Connections that end, and ways to the server that are cut, for some of the processes."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from tests.redis._tools import until_now

from ._deployments import Deployment, kill_clients
from ._holder_processes import WORLDS, HolderProcess
from ._network import REPLIES, REQUESTS, Network, TwoWayProxy, why_no_networks
from ._trial import LIMITS, Begin, Deploy, Trial

LEASE = 2.0


@pytest.mark.on_every_deployment
def test_connections_are_killed(deploy: Deploy, trial: Begin) -> None:
    """Rows 15, 26: CLIENT KILL of all connections and subscriptions, often; no body notices."""
    deployment = deploy()
    with trial(deployment, lease=LEASE) as run:
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            storm(deployment, connections=40)
            run.end_bodies()
    assert run.figures.lost == 0
    assert set(run.figures.errors) <= {"WaitTimeout"}


def storm(deployment: Deployment, connections: int) -> None:
    """Hang up on clients as soon as they are back, so many times in all."""
    killed = 0

    def enough() -> bool:
        nonlocal killed
        killed += sum(kill_clients(deployment, kind) for kind in ("normal", "pubsub"))
        return killed >= connections

    until_now(enough, f"{connections} connections were killed")


def cut_off(run: Trial, far: list[HolderProcess], cut: AbstractContextManager[object]) -> None:
    """Cut some off while they hold: they are notified in time, others get in, and all continue."""
    bodies = run.processes.keep_holding(far, LIMITS)
    lost = run.processes.lost()
    with cut:
        run.until_ended(bodies)
        run.until_bodies_end([holder for holder in run.processes.alive if holder not in far])
    assert run.processes.lost() > lost
    run.until_bodies_end()


def test_some_are_cut_off_by_a_proxy(deploy: Deploy, trial: Begin) -> None:
    """Rows 21, 28, 29: a process that is cut off stops before its leases end, and then others run.

    In turns: no replies pass, no requests, nothing.
    """
    deployment = deploy()
    # The proxy outlives the trial, in which all that was cut off has to find its way back.
    way = TwoWayProxy(deployment.primaries()[0].port)
    with way as proxy, trial(deployment, lease=LEASE, worlds=WORLDS) as run:
        far = run.processes.start(*WORLDS, url=f"{proxy.url}?socket_timeout=1")
        for number in run.rounds(2):
            ways = ((REPLIES,), (REQUESTS,), (REQUESTS, REPLIES))[number % 3]
            cut_off(run, far, proxy.cut(*ways))


def test_some_are_cut_off_in_a_network_of_their_own(deploy: Deploy, trial: Begin) -> None:
    """The same with packets that are lost in the kernel: of both directions, or of one."""
    if (why := why_no_networks()) is not None:
        pytest.skip(why)
    with Network() as network:
        deployment = deploy("--bind", f"127.0.0.1 {network.host}", "--protected-mode", "no")
        with trial(deployment, lease=LEASE, worlds=WORLDS) as run:
            url = deployment.url.replace("127.0.0.1", network.host)
            far = run.processes.start(*WORLDS, url=f"{url}?socket_timeout=1", network=network.name)
            for number in run.rounds():
                cut_off(run, far, network.unplugged() if number % 2 == 0 else network.unreachable())
