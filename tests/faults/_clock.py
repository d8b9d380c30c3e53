"""A server's clock that jumps: the store's script, with a shift that a test sets."""

from __future__ import annotations

from limiter_redis._script import SCRIPT, Script

from ._deployments import Deployment

SHIFT = "clock-shift"
"""The Redis key of the seconds by which the clock is wrong; outside of every namespace."""

_REAL = "local server_time = call('TIME')\n"
_SHIFTED = (
    _REAL + f"server_time = {{ server_time[1] + (call('GET', '{SHIFT}') or 0), server_time[2] }}\n"
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
    for server in deployment.primaries():
        server.admin.set(SHIFT, seconds)
