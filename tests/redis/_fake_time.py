"""The server's time in the hands of a test: a script that reads it from a key."""

from __future__ import annotations

import time

from limiter_core.testing import FakeClock
from limiter_redis.protocol.script import SCRIPT, Script

from ._servers import Server

TIME_KEY = "fake-time"
"""Microseconds since the epoch; outside of every namespace."""

_REAL = "local server_time = call('TIME')\n"
_FAKE = f"""\
local faked = string.format('%.0f', call('INCR', '{TIME_KEY}'))
local server_time = {{ string.sub(faked, 1, -7), string.sub(faked, -6) }}
"""


def _replaced(text: str) -> str:
    assert text.count(_REAL) == 1, "the script does not ask for the time where it used to"
    return text.replace(_REAL, _FAKE)


FAKED = Script.of(_replaced(SCRIPT.text.decode()))
"""The store's script, on the time of `ServerClock`."""


class ServerClock(FakeClock):
    """A clock that the script goes by.

    It starts now, and so is never behind the real time, by which the server itself drops keys. No
    two calls of the script see the same microsecond, as in reality.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(time.time())
        self._server = server
        self.write()

    def advance(self, seconds: float) -> float:
        """Let time pass, on the server as well."""
        self._server.admin.incrby(TIME_KEY, round(seconds * 1_000_000))
        return super().advance(seconds)

    def write(self) -> None:
        """Tell the server (again, if it lost its data)."""
        self._server.admin.set(TIME_KEY, round(self() * 1_000_000))
