"""The messages that kombu lost, by the log of a real server."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from tests.redis._servers import Process, server_program

from ._broker_log import lost_messages
from ._deployments import KEEPING

kombu: Any = pytest.importorskip("kombu")


def test_a_message_that_is_taken_and_not_noted_is_lost_and_no_other() -> None:
    """One is acknowledged, one is unacknowledged, one is given back, one waits, one is lost."""
    with (
        closing(Process(server_program(), *KEEPING)) as server,
        kombu.Connection(server.url) as connection,
        closing(connection.SimpleQueue("jobs")) as queue,
    ):
        for number in range(5):
            queue.put(number, headers={"argsrepr": f"({number},)"})
        queue.get(timeout=10).ack()
        queue.get(timeout=10)
        given_back = queue.get(timeout=10)
        assert lost_messages(server.folder) == set()

        server.admin.rpop("jobs")
        given_back.requeue()

        assert lost_messages(server.folder) == {"(3,)"}
