"""A replica takes over, under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from ._replicated import Cluster, Pair, Sentinel
from ._trial import LIMITS, SECONDS, Begin


@pytest.fixture
def pair() -> Iterator[Pair]:
    with closing(Pair()) as pair:
        yield pair


def test_a_failover_that_loses_writes(pair: Pair, trial: Begin) -> None:
    """S10, S11; rows 16, 21: whom the new primary does not know overlaps for a lease at most."""
    with trial(pair, lease=2.0) as run:
        for _ in run.rounds():
            pair.fall_behind()
            run.goes_on()  # so that slots are in other hands than the replica knows
            run.crew.cling(run.crew.alive[:2], LIMITS)
            run.forgot("failed over", pair.failover())
            run.let_go()


@pytest.mark.skipif(SECONDS == 0, reason="takes long: run it with LIMITER_FAULT_SECONDS=30")
@pytest.mark.parametrize("kind_of", [Sentinel, Cluster])
def test_deployments_fail_over(kind_of: Callable[[], Any]) -> None:
    """What the scenarios are to run on, once the store follows a failover by itself."""
    with closing(kind_of()) as deployment:
        before = {server.port for server in deployment.primaries()}
        deployment.failover()
        after = {server.port for server in deployment.primaries()}
        assert len(after - before) == 1
