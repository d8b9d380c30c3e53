"""From any thread into the worker's main loop: its event loop, or its timer if it has none.

With gevent and eventlet, leases are renewed by a thread of the system, which the store starts. What
it reports concerns messages, connections and bodies. Those belong to the greenlets of the main
thread, and must not be used by another thread of the system.
"""

from __future__ import annotations

import collections
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from limiter_core.threads import are_green, current_system_thread, new_socket_pair

logger = logging.getLogger("limiter")


class MainLoop:
    """Runs functions in the thread of the main loop, and logs what they raise.

    (It would end the worker.)
    """

    def __init__(self) -> None:
        self._functions: collections.deque[Callable[[], object]] = collections.deque()
        self._timer: Any = None
        self._green_thread: int | None = None
        # Sockets of the system, since they wake a greenlet from any thread.
        self._receiver: Any = None
        self._sender: Any = None

    def connect(self, hub: Any, timer: Any) -> None:
        """Use the worker's event loop, or its timer if the hub is None.

        Called for each connection to the broker: Celery removes all readers of the hub before.
        """
        self._timer = timer
        if self._sender is None and (hub is not None or are_green()):
            self._receiver, self._sender = new_socket_pair()
            self._sender.setblocking(False)
            if hub is not None:
                self._receiver.setblocking(False)
            else:
                self._green_thread = current_system_thread()
                self._receiver = socket.socket(fileno=self._receiver.detach())
                self._start_greenlet(self._receive)
        if hub is None:
            timer.call_after(0, self.run_pending)
        else:
            hub.add_reader(self._receiver, self._read)
            self._read()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run a function soon, or once there is a connection; from any thread."""
        self._functions.append(function)
        if self._sender is not None:
            with suppress(OSError):  # its buffer is full, so the loop will wake
                self._sender.send(b"!")
        elif self._timer is not None:
            self._timer.call_after(0, self.run_pending)

    def is_unreachable(self) -> bool:
        """Whether the caller is in a thread without greenlets: it cannot use their locks."""
        return self._green_thread not in (None, current_system_thread())

    def close(self) -> None:
        """Close its sockets: a function that is given from now on does not run."""
        if self._sender is not None:
            self._sender.close()
            if self._green_thread is None:  # else the greenlet that reads it closes it
                self._receiver.close()

    def run_pending(self) -> None:
        """Run the functions that wait; in the thread of the main loop."""
        for _ in range(len(self._functions)):
            try:
                function = self._functions.popleft()
            except IndexError:
                return
            try:
                function()
            except Exception:
                logger.exception("a function of the limiter failed in the worker's main loop")

    def _read(self, *_: Any) -> None:
        with suppress(OSError):  # nothing is left
            while self._receiver.recv(4096):
                pass
        self.run_pending()

    def _receive(self) -> None:
        with self._receiver:
            while self._receiver.recv(4096):
                self._start_greenlet(self.run_pending)

    def _start_greenlet(self, function: Callable[[], object]) -> None:
        """Start a greenlet of the main thread, since threads are greenlets here."""
        threading.Thread(target=function, name="limiter-main", daemon=True).start()
