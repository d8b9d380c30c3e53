"""Warnings of what the lease renewer cannot do for now."""

from __future__ import annotations

from collections.abc import Callable

from redis.exceptions import RedisError

from limiter_core.errors import StoreError
from limiter_core.outage import Outage, shared_outage

NOT_SUBSCRIBED = "cannot receive messages, will try again"


class Warnings:
    """Warns of the troubles of one node, now and then as long as they last.

    Args:
        where: says where the store is: all nodes, and stores of this process there, warn once.
    """

    def __init__(self, where: Callable[[], str]) -> None:
        self._where = where
        self._outages: dict[str, Outage] = {}

    def warn(self, what: str, error: Exception) -> None:
        """Note a failure."""
        outage = self._outages.get(what)
        if outage is None:
            outage = self._outages[what] = shared_outage(self._where(), what)
        outage.began(error, unknown=not isinstance(error, StoreError | RedisError | OSError))

    def over(self, what: str) -> None:
        """Note that a trouble is over, if it was met here: another node may still have it."""
        outage = self._outages.pop(what, None)
        if outage is not None:
            outage.over()

    def carried_out(self) -> None:
        """Note that operations were carried out."""
        for what in list(self._outages):
            if what != NOT_SUBSCRIBED:
                self.over(what)
