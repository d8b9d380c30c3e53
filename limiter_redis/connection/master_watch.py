"""Asks the Sentinels again and again which server is the master, beside all calls.

Connections that are whole lead to a master of before until a Sentinel demotes it: ten seconds
later, or never, if none reaches it. So it is not enough to ask when a connection is made. A
subscription to `+switch-master` would say it at once, but not if the message is missed; then the
Sentinels have to be asked all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from redis.exceptions import RedisError

from limiter_core.system_clock import system_clock as time
from limiter_core.threads import SystemEvent, SystemThread
from limiter_redis.connection.backoff import LONGEST_REFUSED, Backoff
from limiter_redis.connection.exchange import connect_within, exchange, new_connection
from limiter_redis.connection.master import Address, Master
from limiter_redis.connection.sentinel import (
    QUESTION,
    master_of,
    not_found,
    to_front,
    trouble_of,
)
from limiter_redis.connection.settings import sync_client
from limiter_redis.protocol.commands import packed_command

ANSWER = 1.0
"""Seconds that a Sentinel has to answer, with the connection to it."""

_SHORTEST, _LONGEST = 0.1, 1.0
_PART = 4
"""A look comes so often in a lease, if the Sentinels answer: what an old master grants ends well
within one lease. One that is silent delays the first looks by a second each."""


class MasterWatch:
    """Asks all Sentinels, and notes what the one with the latest configuration says.

    A Sentinel that was cut off from the others names the master of before. Connections, which ask
    one Sentinel only, ask that with the latest configuration first from then on.

    Args:
        service: the master's name.
        sentinels: connection settings, one for each; the next to be asked is in front.
        master: notes which master they name.
        shortest_lease: returns the seconds of the shortest lease that depends on it.
        looked: is called after each look, with the reason if no Sentinel answered.
    """

    def __init__(
        self,
        service: str,
        sentinels: list[dict[str, Any]],
        master: Master,
        shortest_lease: Callable[[], float],
        looked: Callable[[Exception | None], object],
    ) -> None:
        self._service = service
        self._sentinels = sentinels
        self._master = master
        self._shortest_lease = shortest_lease
        self._looked = looked
        self._stopped = SystemEvent()
        self._thread: SystemThread | None = None
        self._epoch: int | None = None
        """The latest that any Sentinel named; None before the first look."""

    def ensure_running(self) -> None:
        """Start it, if it does not run.

        Raises:
            RuntimeError: no thread can begin.
        """
        if self._thread is None:
            thread = SystemThread(self._run, "limiter-sentinels")
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Have it end; it may wait for an answer a little longer."""
        self._stopped.set()

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        asked = [_Sentinel(address, self._service) for address in list(self._sentinels)]
        try:
            while not self._stopped.is_set():
                self._look(asked)
                pause = self._shortest_lease() / _PART
                self._stopped.wait(max(_SHORTEST, min(_LONGEST, pause)))
        finally:
            self._thread = None  # also where a logging handler raises: it is started again
            for each in asked:
                each.close()

    def _look(self, asked: list[_Sentinel]) -> None:
        before = self._master.address
        best: tuple[int, Address, _Sentinel] | None = None
        troubles: list[str] = []
        # Those that failed come last: each may take its second.
        for each in sorted(asked, key=lambda each: each.has_failed):
            if self._stopped.is_set():
                return
            try:
                epoch, address = each.ask()
            except Exception as error:  # noqa: BLE001  (a credential provider raises what it likes)
                troubles.append(trouble_of(each.address, str(error)))
                continue
            if best is None or epoch > best[0]:
                best = epoch, address, each
            if self._epoch is not None and epoch > self._epoch:
                break  # there is a new master: nobody waits for the others
        # Where those that knew better do not answer, one that was cut off does not count.
        if best is None or (troubles and self._epoch is not None and best[0] < self._epoch):
            self._looked(not_found(self._service, troubles))
            return
        self._epoch = best[0]
        if self._master.address == before:  # else a connection has asked after this began
            self._master.address = best[1]
        to_front(self._sentinels, best[2].address)
        self._looked(None)


class _Sentinel:
    """One Sentinel, and the connection to it, which is kept.

    Args:
        address: its connection settings.
        service: the name of the master that it is asked for.
    """

    def __init__(self, address: dict[str, Any], service: str) -> None:
        self.address = address
        self._client = sync_client(address, socket_timeout=ANSWER)
        # The address is of a master that is being promoted, too; the state has the epoch.
        state = packed_command("SENTINEL", "MASTER", service)
        self._question = packed_command(*QUESTION, service) + state
        self._connection: Any = None
        self._backoff = Backoff(LONGEST_REFUSED)
        self._error: Exception | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it did not answer the last time."""
        return self._error is not None

    def ask(self) -> tuple[int, Address]:
        """Return which master it names, and since which epoch of the Sentinels' configuration.

        Raises:
            Exception: it does not answer, or names none.
        """
        if self._error is not None and not self._backoff.is_due(time.monotonic()):
            raise self._error
        try:
            found = self._answer(time.monotonic() + ANSWER)
        except Exception as error:
            self.close()
            self._backoff.failed()
            self._error = error
            raise
        self._backoff.over()
        self._error = None
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _answer(self, deadline: float) -> tuple[int, Address]:
        if self._connection is None:
            connection = new_connection(self._client, deadline)
            connect_within(connection, deadline)
            self._connection = connection
        address, *state = exchange(self._connection, self._question, 2, deadline)
        if isinstance(address, RedisError):
            raise address
        return _epoch_of(state), master_of(address)


def _epoch_of(state: list[Any]) -> int:
    """Return the epoch in an answer to `SENTINEL MASTER`; 0 if that is refused."""
    words = cast(list[Any], state[0]) if state and isinstance(state[0], list) else []
    fields = dict(zip(words[::2], words[1::2], strict=False))
    return int(fields.get(b"config-epoch", 0))
