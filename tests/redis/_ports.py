"""Ports for the servers of tests: no two processes of tests ever have the same."""

from __future__ import annotations

import functools
import getpass
import random
import socket
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows: there the tests run one after the other
    fcntl = None

# Below those that systems give to connections by themselves: a client whose server is away could
# get the server's own port, and be connected to itself.
_PORTS = range(17_000, 32_000)

_random = random.SystemRandom()  # not the generator that Hypothesis seeds
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, and that is given to no other process of tests."""
    while True:
        port = _random.choice(_PORTS)
        if port not in _given and _is_free(port) and _reserve(port):
            _given.add(port)
            return port


@contextmanager
def reserved(port: int, patience: float) -> Generator[None]:
    """Have a certain port for a while; waits for other processes of tests that have it."""
    give_up_at = time.monotonic() + patience
    while not _reserve(port):
        assert time.monotonic() < give_up_at, f"others had port {port} for {patience} s"
        time.sleep(0.05)
    try:
        yield
    finally:
        if fcntl is not None:
            fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, port)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _reserve(port: int) -> bool:
    """Lock the port's byte of a file, until this process ends."""
    if fcntl is not None:
        try:
            fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
    return True


@functools.cache
def _locks() -> TextIO:
    return (Path(tempfile.gettempdir()) / f"limiter-test-ports-{getpass.getuser()}").open("a")
