"""A replica takes over, under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ._replicated import Cluster, Pair
from ._sentinel import Sentinel
from ._trial import LIMITS, Begin, Trial, in_the_long_run

LEASE = 2.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    with closing(Pair()) as pair:
        yield pair


def test_a_failover_that_loses_writes(pair: Pair, trial: Begin) -> None:
    """S10, S11; rows 16, 21: whom the new primary does not know overlaps for a lease at most."""
    with trial(pair, lease=LEASE) as run:
        for _ in run.rounds():
            pair.fall_behind()
            run.until_bodies_end()  # so that slots are in other hands than the replica knows
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            run.forgot("failed over", pair.failover())
            run.end_bodies()


@pytest.fixture(params=[Sentinel, Cluster], ids=lambda kind: kind.__name__.lower())
def replicated(request: pytest.FixtureRequest) -> Iterator[Sentinel | Cluster]:
    with closing(request.param()) as deployment:
        yield deployment


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with closing(Cluster()) as cluster:
        yield cluster


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    with closing(Sentinel()) as sentinel:
        yield sentinel


def excuse_others(run: Trial, deployment: Sentinel | Cluster) -> None:
    """Excuse what sentinels did by themselves: they replace a primary that is slow."""
    if isinstance(deployment, Sentinel):
        for at in deployment.failovers_of_their_own():
            # For another it began earlier; and what the old one grants until it is left is lost.
            left = at + LEASE / 4
            run.forgot("replaced", (at - LEASE, left))
            run.forgot("named", (at, left))


def test_a_primary_is_killed(replicated: Sentinel | Cluster, trial: Begin) -> None:
    """S10, S11; row 21: kill -9, and the store follows the failover. In turns: the replica has got
    nothing for a while, and whatever replication had let it have.
    """
    with trial(replicated, lease=LEASE) as run:
        for number in run.rounds():
            if number % 2 == 0:
                replicated.fall_behind()
                run.until_bodies_end()
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            run.forgot("failed over", replicated.failover())
            run.end_bodies()
        replicated.until_whole()
        excuse_others(run, replicated)


@in_the_long_run
def test_a_primary_stands_still(replicated: Sentinel | Cluster, trial: Begin) -> None:
    """SIGSTOP of a primary: it is promoted away, and what it had not passed on is lost.

    It stands still until clients have given it up. In a cluster some may ask it all the same in the
    moment in which it goes on and has not received that yet: what it says then is lost as well.
    """
    with trial(replicated, lease=LEASE, url=f"{replicated.url}?socket_timeout=1") as run:
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            before = time.monotonic()
            with replicated.stands_still() as until_promoted:
                run.forgot("promoted away", (before, until_promoted()))
                run.end_bodies()
                before = time.monotonic()
            if isinstance(replicated, Cluster):
                run.forgot("went on", (before, time.monotonic()))
        replicated.until_whole()
        excuse_others(run, replicated)


@in_the_long_run
def test_a_replica_takes_over_by_order(cluster: Cluster, trial: Begin) -> None:
    """CLUSTER FAILOVER hands over all that was written: no lease is lost, and no bodies overlap."""
    with trial(cluster, lease=LEASE) as run:
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            cluster.failover_by_order()
            run.end_bodies()
        cluster.until_whole()
    assert run.figures.lost == 0
    assert set(run.figures.errors) <= {"WaitTimeout"}


@in_the_long_run
def test_sentinels_replace_a_primary_that_lives(sentinel: Sentinel, trial: Begin) -> None:
    """SENTINEL FAILOVER, and nobody demotes the old primary: all leave it all the same.

    What it grants until then is lost.
    """
    with trial(sentinel, lease=LEASE) as run:
        for _ in run.rounds():
            run.processes.keep_holding(run.processes.alive[:2], LIMITS)
            with sentinel.replaced_by_order() as (before, promoted, left):
                run.forgot("replaced", (before, left))
                run.forgot("named", (promoted, left))
                run.end_bodies()
        sentinel.until_whole()
        excuse_others(run, sentinel)
