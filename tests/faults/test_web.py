"""Slots around HTTP, at both ends, whose requests end in every way there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from limiter_core import SyncLimiter
from limiter_redis import RedisStore
from tests.redis._servers import Process, server_program
from tests.redis._tools import until_now

from ._deployments import each_but_layout, keys_for_ever
from ._overlap import check
from ._trial import GRACE, SECONDS, Figures
from ._web import Web
from .workers.body_notes import LEASE, LIMITS

REQUESTS = 10_000 if SECONDS else 300
KILLS = 20 if SECONDS else 2
SLOWEST = 10.0
"""Requests per second, at the least: a killed process keeps slots to the end of its leases."""

LATE = 2.0
"""Seconds for the last look at the store, on a busy machine."""

OF_KILLED_SERVERS = {"broken", "no connection"}

# The environment of arq and SAQ, in which their fault trials run, has neither.
pytest.importorskip("fastapi")
pytest.importorskip("httpx2")
pytestmark = pytest.mark.timeout(REQUESTS / SLOWEST + 120)


def test_requests_to_web_servers(tmp_path: Path, figures: Callable[[], Figures]) -> None:
    """Middleware, dependencies, streams, websockets: clients leave, and servers are killed."""
    fates = requests_end(tmp_path, figures(), "sockets")
    assert {"read", "half read", "left"} == fates - OF_KILLED_SERVERS


@pytest.mark.parametrize("client", ["httpx", "httpx2", "aiohttp"])
def test_requests_of_http_clients(
    client: str, tmp_path: Path, figures: Callable[[], Figures]
) -> None:
    """Half-read streams, timeouts, cancellations: servers are killed, and clients are."""
    fates = requests_end(tmp_path, figures(), client) - OF_KILLED_SERVERS - {"dropped"}
    # aiohttp has no time limit for the pool alone.
    while_waiting = "timeout" if client == "aiohttp" else "refused"
    assert fates == {"read", "half read", "read timeout", "cancelled", while_waiting}


def test_agents(tmp_path: Path, figures: Callable[[], Figures]) -> None:
    """50 agents a process, streamed and not: cancelled, closed by other tasks, and killed."""
    pytest.importorskip("pydantic_ai")
    fates = requests_end(tmp_path, figures(), "agents")
    assert fates == {"read", "half read", "half read elsewhere", "cancelled", "refused"}


def requests_end(folder: Path, figures: Figures, client: str) -> set[str]:
    """Have four clients send requests, while processes are killed; returns how requests ended."""
    with (
        closing(Process(server_program())) as store,
        Web(store.url, folder, client) as web,
    ):
        began = time.monotonic()
        web.until(lambda: web.requests() > 0, "a request has ended", REQUESTS)
        for number in range(KILLS):
            web.kill_one()
            enough = (number + 1) * REQUESTS // KILLS
            web.until(
                lambda: web.requests() >= enough,  # noqa: B023  (called before the next round)
                f"{enough} requests have ended",
                REQUESTS / SLOWEST,
            )
        web.finish()
        figures.seconds = time.monotonic() - began
        figures.full_again = until_nothing_is_held(store)
        bodies, fates = web.bodies(), web.fates()
        figures.faults, figures.lease = KILLS, LEASE
        figures.bodies, figures.lost = len(bodies), web.lost()
        figures.after = len(bodies) / figures.seconds
        figures.errors = fates
        figures.overlap = check(bodies, LIMITS, web.history, LEASE)
        assert figures.overlap.violations == [], "\n".join(figures.overlap.violations)
        # So many slots were in use at once: the load was there.
        assert figures.overlap.peak == LIMITS
        disagreements = web.disagreements()
        assert disagreements == [], "\n".join(disagreements)
        assert "Traceback" not in web.said(), web.said()
    return set(fates)


def until_nothing_is_held(server: Process) -> float:
    """Wait until no slot is taken, one lease later at the most; returns for how long."""
    began = time.monotonic()
    with closing(RedisStore(server.url)) as store:
        limiter = SyncLimiter(store)
        until_now(
            lambda: not any(limiter.inspect(key).in_use for key in LIMITS),
            "no slot is taken",
            patience=LEASE + LATE,
        )
        assert not any(limiter.inspect(key).waiting for key in LIMITS)
    took = time.monotonic() - began
    assert keys_for_ever([server]) == [], "S14: these would stay for ever"
    for name in each_but_layout(server):
        assert server.admin.ttl(name) <= LEASE + GRACE, f"S14: {name} stays too long"
    return took
