"""`limiter run --timeout` before a server that answers what no Redis answers, late, or never."""

import sys
import time

import pytest

pytest.importorskip("redis")

from tests.redis._hostile_server import HOSTILE, HostileServer

NO_STORE = 69
ENDS_IN = 15.0
"""Seconds in which it ends; its socket alone would let it wait for a minute."""
PATIENT = "socket_timeout=60"


@pytest.fixture
def ends(run, key, tmp_path):
    """Run it; it has to end in time, without a slot and without the command."""

    def ends(url):
        path = tmp_path / "began"
        code = f"open({str(path)!r}, 'w')"
        start = time.monotonic()
        command = (sys.executable, "-c", code)
        result = run("run", key, "--url", url, "--timeout", "1", "--", *command)
        assert time.monotonic() - start < ENDS_IN
        assert result.exit_code == NO_STORE, result.output
        assert not path.exists()
        assert "Traceback" not in result.output

    return ends


@pytest.mark.parametrize("kind", ["url", "cluster_url"])
@pytest.mark.parametrize(
    "reply",
    [
        "an array",
        "too few words",
        "garbage",
        "a text that never ends",
        "silence",
        "a reply, byte by byte, that never ends",
        "a truncated reply",
    ],
)
def test_it_ends_in_time(ends, reply, kind):
    with HostileServer(HOSTILE[reply]) as server:
        ends(f"{getattr(server, kind)}?{PATIENT}")


def test_it_ends_in_time_where_the_server_is_frozen(ends, own_server):
    with own_server.frozen():
        ends(f"{own_server.url}?{PATIENT}")
