"""A RabbitMQ server for the tests, where one is installed: on free ports, in its own folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import amqp

from tests.redis._ports import free_port

PATIENCE = 60.0


def program() -> str | None:
    """Return the server's program, None if there is none."""
    found = shutil.which("rabbitmq-server")
    if found is None:
        return None
    # The program that a distribution installs in the path may require a user of its own.
    own = sorted(Path("/usr/lib/rabbitmq").glob("lib/*/sbin/rabbitmq-server"))
    return str(own[-1]) if own else found


class RabbitMQServer:
    """The server; `url` is its address."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._folder = Path(tempfile.mkdtemp(prefix="limiter-rabbit-"))
        port, distribution, names = free_port(), free_port(), str(free_port())
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self._environment = {
            **os.environ,
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": f"limiter{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "logs"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "ERL_EPMD_PORT": names,
        }
        # Else it starts one that stays when it is gone.
        epmd = shutil.which("epmd")
        self._epmd = None if epmd is None else subprocess.Popen([epmd, "-port", names])
        self._process = subprocess.Popen(
            [binary],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._address = f"127.0.0.1:{port}"
        give_up_at = time.monotonic() + PATIENCE
        while True:
            try:
                self.empty()
            except Exception:
                assert self._process.poll() is None, "RabbitMQ ended by itself"
                assert time.monotonic() < give_up_at, "RabbitMQ does not answer"
                time.sleep(0.2)
            else:
                return

    def empty(self) -> None:
        """Remove the messages that earlier tests left in the queues."""
        connection = amqp.Connection(host=self._address, connect_timeout=2)
        connection.connect()
        for queue in ("celery", "celery.granted"):
            with suppress(amqp.NotFound):
                connection.channel().queue_purge(queue)
        connection.close()

    def count(self, queue: str) -> int:
        """Return how many messages are in a queue, and no worker has them."""
        connection = amqp.Connection(host=self._address, connect_timeout=2)
        connection.connect()
        try:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)
        finally:
            connection.close()

    def close_connections(self) -> None:
        """Have it close the connections of all its clients."""
        tool = str(Path(self._binary).with_name("rabbitmqctl"))
        command = [tool, "close_all_connections", "on purpose"]
        subprocess.run(command, env=self._environment, check=True, capture_output=True)

    def close(self) -> None:
        """Kill it, and remove its files."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(PATIENCE)
        shutil.rmtree(self._folder, ignore_errors=True)
