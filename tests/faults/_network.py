"""Ways to a server that can be cut: by a proxy, and by a network of the system's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Self

import pytest

from tests.redis._proxy import Proxy

REQUESTS, REPLIES = False, True


class TwoWayProxy(Proxy):
    """A proxy that can hold up one direction and let the other pass.

    What was blocked arrives later, as it does in a network that heals: also requests of callers who
    are long gone, over connections that they have closed.
    """

    def __init__(self, port: int) -> None:
        # First, since the proxy takes connections from the beginning.
        self._open_ways = {REQUESTS: threading.Event(), REPLIES: threading.Event()}
        self.heal()
        super().__init__(port)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listener.getsockname()
        return host, port

    def connect_to(self, port: int) -> None:
        """Lead to another server from now on, and end the connections to the one before."""
        self._target = ("127.0.0.1", port)
        self.hang_up()

    def block(self, *ways: bool) -> None:
        """Let requests, replies, or (if none is named) neither pass."""
        for way in ways or (REQUESTS, REPLIES):
            self._open_ways[way].clear()

    @contextmanager
    def cut(self, *ways: bool) -> Generator[None]:
        """Hold up requests, replies, or both, for a while."""
        self.block(*ways)
        try:
            yield
        finally:
            self.heal()

    def heal(self) -> None:
        """Let everything pass, also what was held up."""
        for way in self._open_ways.values():
            way.set()

    def close(self) -> None:
        """End all connections, and accept no more; what is held up is not delivered."""
        super().close()
        self.heal()

    def _pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open_ways[replies].wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Network:
    """A network namespace beside that of the test, with one cable between them.

    Attributes:
        name: the namespace, as `ip netns` knows it.
        host: the test's address in it.
        guest: the address inside of it.
    """

    def __init__(self) -> None:
        number = os.getpid() % 250 + 1
        self.name = f"limiter-{os.getpid()}"
        self._cable = f"lim{os.getpid()}"
        self.host, self.guest = f"10.213.{number}.1", f"10.213.{number}.2"
        inner = ("ip", "-n", self.name)
        try:
            _run("ip", "netns", "add", self.name)
            far_end = ("type", "veth", "peer", "name", "eth0", "netns", self.name)
            _run("ip", "link", "add", self._cable, *far_end)
            _run("ip", "address", "add", f"{self.host}/30", "dev", self._cable)
            _run("ip", "link", "set", self._cable, "up")
            _run(*inner, "address", "add", f"{self.guest}/30", "dev", "eth0")
            _run(*inner, "link", "set", "eth0", "up")
        except subprocess.CalledProcessError as error:
            self.close()
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")

    @contextmanager
    def unplugged(self) -> Generator[None]:
        """Pull the cable: nothing passes, and neither side is notified."""
        _run("ip", "link", "set", self._cable, "down")
        try:
            yield
        finally:
            _run("ip", "link", "set", self._cable, "up")

    @contextmanager
    def unreachable(self) -> Generator[None]:
        """Lose all that the test's side sends; what the others send arrives."""
        _run("ip", "route", "add", "blackhole", f"{self.guest}/32")
        try:
            yield
        finally:
            _run("ip", "route", "delete", "blackhole", f"{self.guest}/32")

    def close(self) -> None:
        """Remove it, and the cable with it."""
        for command in (("link", "delete", self._cable), ("netns", "delete", self.name)):
            with suppress(subprocess.CalledProcessError):
                _run("ip", *command)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def why_no_networks() -> str | None:
    """Return why there can be no network namespaces, None if there may be."""
    if shutil.which("ip") is None:
        return "the program `ip` is not there"
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may make network namespaces"
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
