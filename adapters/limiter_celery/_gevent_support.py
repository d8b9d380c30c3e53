"""gevent and eventlet in a worker: whether threads are greenlets, and the way into their loop.

Leases are renewed by a thread of the system, which the store sees to. What it has to say about
messages, connections and bodies is for the greenlets of the main thread: they must not be used
elsewhere, since each of them belongs to the thread of the system that made it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from limiter_core.threads import current_system_thread, new_socket_pair


class MainHub:
    """From any thread of the system into the greenlets of the thread that makes this.

    Args:
        deliver: called there, in a greenlet of its own, as often as anybody says that there is
            something to do, or less often.
    """

    def __init__(self, deliver: Callable[[], object]) -> None:
        self._deliver = deliver
        self._made_in = current_system_thread()
        # A socket of the system wakes a green one, with both gevent and eventlet.
        ours, self._wake = new_socket_pair()
        self._wake.setblocking(False)
        self._waiting = socket.socket(fileno=ours.detach())
        # A greenlet, for threads are; it starts in the thread that this is made in.
        threading.Thread(target=self._wait, name="limiter-main", daemon=True).start()

    def is_elsewhere(self) -> bool:
        """Whether the caller is in another thread of the system."""
        return current_system_thread() != self._made_in

    def wake(self) -> None:
        """Say that there is something to do."""
        with suppress(OSError):  # it is full of wake-ups
            self._wake.send(b"!")

    def _wait(self) -> None:
        while self._waiting.recv(4096):
            threading.Thread(target=self._deliver, name="limiter-main", daemon=True).start()
