"""Which server is the master, as far as the connections of a store know from Sentinels."""

from __future__ import annotations

from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
)

Address = tuple[str, int]


class Master:
    """The master that a Sentinel named last to any connection of a store.

    Attributes:
        address: where it listens; None: no Sentinel was asked yet.
    """

    def __init__(self) -> None:
        self.address: Address | None = None


class ToMaster:
    """A connection to a server that was the master when it was opened, and may be it no more.

    A server that stood still, or that was cut off, continues as a master until a Sentinel demotes
    it, which may take ten seconds. What it grants is held by others. So all connections of a store
    end as soon as one of them knows of another master.
    """

    connection_pool: Any

    @property
    def is_outdated(self) -> bool:
        """Whether a Sentinel has named another master since."""
        connection: Any = self
        master: Master = self.connection_pool.sentinel_manager.master
        return master.address != (connection.host, connection.port)


def check_master(connection: Any) -> None:
    """Refuse a connection that was opened behind Sentinels, if it leads to a master of before.

    Raises:
        ConnectionError: it does.
    """
    if isinstance(connection, ToMaster) and connection.is_outdated:
        raise ConnectionError("another master was promoted since the connection was opened")
