"""gevent and eventlet, outside of any framework: leases outlive a body that computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter

from ._servers import PATIENCE, Server
from ._tools import until_now

WORKER = Path(__file__).parent / "workers" / "greenlets.py"
BESIDE_THREADS = WORKER.with_name("greenlets_beside_threads.py")
ONE = ConcurrencyLimit(LIMIT_BY.constant("k"), 1, lease=5)


def goes_well(url: str, library: str, when: str) -> None:
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), library, when, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdin is not None

        def said() -> str:
            return worker.stdout.readline().strip()  # type: ignore[union-attr]

        with SyncLimiter(url) as limiter:
            assert said() == "computes"
            with limiter.hold(ONE, timeout=20):
                # It gave the slot back: nobody was let in before.
                assert said() == "kept"
            for pair in ("green-green", "green-system", "system-green", "system-system"):
                assert said() == f"{pair} first second free"
            assert said() == "crowd served"
            assert said() == "collect 2"
            assert said() == "later True True"
            assert said() == "asks"
            lease = limiter.acquire(ONE, timeout=5)
            worker.stdin.write("\n")
            worker.stdin.flush()
            until_now(lambda: limiter.inspect("k").waiting == 1, "it waits", patience=5)
            lease.release()
            assert said() == "handed"
            assert said() == "closed"
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        _, errors = worker.communicate(timeout=PATIENCE)
    assert errors == ""


# eventlet cannot patch redis-py after its import: that calls a `select.poll` which is gone then.
@pytest.mark.parametrize(
    ("library", "when"), [("gevent", "before"), ("gevent", "after"), ("eventlet", "before")]
)
def test_greenlets_and_threads_share_a_limiter(library: str, when: str, server: Server) -> None:
    """One that computes past its lease keeps it; those that wait let the others run."""
    goes_well(server.url, library, when)


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_where_threads_are_those_of_the_system(library: str, server: Server) -> None:
    """`monkey_patch(thread=False)`: a greenlet that waits lets the others of its thread run."""
    worker = subprocess.run(
        [sys.executable, str(BESIDE_THREADS), library, server.url],
        capture_output=True,
        timeout=90,
        text=True,
        check=False,
    )
    pairs = ("green-green", "green-system", "system-green", "system-system")
    assert worker.stdout.splitlines() == [f"{pair} first second" for pair in pairs], worker.stderr
    assert worker.stderr == ""
