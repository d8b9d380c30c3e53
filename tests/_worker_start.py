"""What a worker of pytest-xdist begins with; see `_forked_workers`."""

from __future__ import annotations

import os
import signal
import socket
import sys

WORKER = b"a worker"
"""What the template is asked for."""

PLAIN = [sys.executable, "-u", "-c", "import sys;exec(eval(sys.stdin.readline()))"]
"""A worker that nothing was done for yet, as execnet starts it."""


def hand_on(address: str) -> None:
    """Have a worker forked that reads and writes where this process does; end when it ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [WORKER], [0, 1, 2])
            has_begun = connection.recv(1)
        except ConnectionError:
            has_begun = b""
        if not has_begun:
            os.execv(PLAIN[0], PLAIN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker gets it, too
        for number in (0, 1):
            os.close(number)  # an open copy would hide the worker's end
        connection.recv(1)


if __name__ == "__main__":  # as the program that pytest-xdist starts
    hand_on(sys.argv[1])
elif __name__ == "__channelexec__":  # as what it has the worker do
    from tests._forked_workers import run

    run(channel)  # type: ignore[name-defined]  # noqa: F821  (execnet's)
