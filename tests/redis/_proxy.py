"""A TCP proxy before a server, which loses what passes, holds it up, or hangs up."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards connections to a port of this machine, and misbehaves as told.

    Attributes:
        url: the URL of the server by way of the proxy.
        connections: how many were accepted so far.
        lost: how many replies were lost so far.
        losing: replies that are still to be lost: the request gets through, its reply does not,
            and the connection ends.
        refusing: whether new connections are closed at once.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._clear = threading.Event()
        self._clear.set()
        self.connections = 0
        self.lost = 0
        self.losing = 0
        self.refusing = False
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_up(self) -> None:
        """Let nothing pass, in either direction, until `let_pass`."""
        self._clear.clear()

    def let_pass(self) -> None:
        """Let everything pass, also what was held up."""
        self._clear.set()

    def hang_up(self) -> None:
        """End all connections."""
        with self._lock:
            ended, self._open = self._open, []
        for end in ended:
            _end(end)

    def close(self) -> None:
        """End all connections, and accept no more."""
        self._clear.set()
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing it ends no `accept` that waits
        self._listener.close()
        self.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing or self._closed:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self.connections += 1
                self._open += [client, server]
            if self._closed:
                self.hang_up()
            for source, target, replies in ((client, server, False), (server, client, True)):
                pump = threading.Thread(
                    target=self._pump, args=(source, target, replies), daemon=True
                )
                pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._clear.wait()
                if replies and self._is_to_be_lost(data):
                    break
                target.sendall(data)
        _end(source)
        _end(target)

    def _is_to_be_lost(self, data: bytes) -> bool:
        # Only a reply of the script is one that somebody misses: a text of lines.
        with self._lock:
            if self.losing <= 0 or not data.startswith(b"$") or b"granted" not in data:
                return False
            self.losing -= 1
            self.lost += 1
            return True


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
