"""A server's clock that jumps: the store's script, with a shift that a test sets."""

from __future__ import annotations

import redis

from limiter_redis.protocol.script import SCRIPT, Script
from tests.redis._servers import Server

from ._deployments import Deployment

SHIFTS = ("{limiter:one}clock-shift", "{limiter:faults}clock-shift")
"""The Redis keys of the seconds by which the clock is wrong: beside the keys that a step is about,
so that it is right in a cluster, too. For the limits of workers/holder.py.
"""

_REAL = "local server_time = call('TIME')\n"
_SHIFTED = _REAL + (
    "local shift = call('GET', match(keys[1], '^{.-}') .. 'clock-shift') or 0\n"
    "server_time = { server_time[1] + shift, server_time[2] }\n"
)


def _replaced(text: str) -> str:
    assert text.count(_REAL) == 1, "the script does not ask for the time where it used to"
    return text.replace(_REAL, _SHIFTED)


SHIFTED = Script.of(_replaced(SCRIPT.text.decode()))


def set_clock(deployment: Deployment, seconds: int) -> None:
    """Have the clock be wrong by so much.

    It must not be behind the true one, by which the server itself drops keys: a clock that is to
    jump back has to be ahead first.
    """
    for name in SHIFTS:
        told = [_tell(server, name, seconds) for server in deployment.primaries()]
        assert any(told), f"no process has the slot of {name}"


def _tell(server: Server, name: str, seconds: int) -> bool:
    try:
        server.admin.set(name, seconds)
    except redis.exceptions.MovedError:  # it is another node's
        return False
    return True
