"""A deployment with Sentinel: a primary, its replica, and three sentinels."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.redis._servers import PATIENCE, Process, server_program
from tests.redis._tools import until_now

from ._replication import (
    AT_ONCE,
    cut_replication,
    mend_replication,
    until_follows,
    until_in_step,
)

SERVICE = "limits"
_NOTED_WITHIN = 0.25
"""Seconds in which the message of a switch is noted, on a busy machine."""


class Sentinel:
    """A primary, a replica and three sentinels, which agree on a failover by themselves."""

    def __init__(self, *settings: str) -> None:
        program = server_program()
        self._servers: list[Process] = []
        self._sentinels: list[SentinelProcess] = []
        self._switches: _Switches | None = None
        self._begun_at = 0.0
        self._made: list[tuple[float, float]] = []
        """When failovers were made here: from, until."""
        try:
            self._servers += [Process(program, *AT_ONCE, *settings) for _ in range(2)]
            primary, replica = self._servers
            replica.admin.replicaof("127.0.0.1", primary.port)
            until_in_step(replica)
            self._sentinels += [SentinelProcess(program) for _ in range(3)]
            for sentinel in self._sentinels:
                sentinel.watch(primary.port)
            until_now(self._know_each_other, "the sentinels know each other and the replica")
            self._switches = _Switches(self._sentinels[0])
        except BaseException:
            self.close()
            raise
        self._behind: Process | None = None
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        self.url = f"redis+sentinel://{addresses}/{SERVICE}/0"

    def primaries(self) -> list[Process]:
        """Return the server that the sentinels name."""
        state: Any = self._sentinels[0].admin.sentinel_get_master_addr_by_name(SERVICE)
        return [server for server in self._servers if server.port == int(state[1])]

    def fall_behind(self) -> None:
        """From now on the replica gets nothing, and the primary does not mind."""
        self.until_whole()
        [primary] = self.primaries()
        self._behind = self._other_than(primary)
        cut_replication(primary, self._behind)

    def failover(self) -> tuple[float, float]:
        """Kill the primary, and wait until the sentinels name another; the old one comes back.

        Returns:
            The moments before and after; before and after that it was whole.
        """
        if self._behind is None:
            self.until_whole()
        before = self._begun_at = time.monotonic()
        [old] = self.primaries()
        old.kill()
        promoted = self._until_promoted(old)
        old.start()
        return before, promoted

    def failovers_of_their_own(self) -> list[float]:
        """Return when the sentinels replaced a primary that lived: it was slow to answer them."""
        assert self._switches is not None
        return [
            at
            for at in self._switches.moments
            if not any(begun <= at <= until + _NOTED_WITHIN for begun, until in self._made)
        ]

    @contextmanager
    def stands_still(self) -> Generator[Callable[[], float]]:
        """Freeze the primary; gives what waits for the other one's promotion, and says when."""
        self.until_whole()
        self._begun_at = time.monotonic()
        [old] = self.primaries()
        with old.frozen():
            yield lambda: self._until_promoted(old)

    def failover_by_order(self) -> tuple[float, float]:
        """Have the replica promoted although the primary lives, and wait until all name it.

        Returns:
            The moments before and after.
        """
        [old] = self.primaries()
        before = self._begun_at = time.monotonic()
        self._sentinels[0].admin.sentinel_failover(SERVICE)
        return before, self._until_promoted(old)

    @contextmanager
    def not_demoted(self, primary: Process) -> Generator[None]:
        """Let no sentinel make a replica of a primary, as if none reached it."""
        rights = "ACL", "SETUSER", "default"
        primary.admin.execute_command(*rights, "-replicaof", "-slaveof")
        try:
            yield
        finally:
            primary.admin.execute_command(*rights, "+replicaof", "+slaveof")

    @contextmanager
    def replaced_by_order(self) -> Generator[tuple[float, float, float]]:
        """Replace a primary that lives on, and that nobody demotes.

        Gives the moments before and after, and that from which on no client asks it any more.
        """
        self.until_whole()
        [old] = self.primaries()
        new = self._other_than(old)

        def is_left() -> bool:
            asked, enough = old.calls(), new.calls() + 30
            until_now(lambda: new.calls() > enough, "the other one is asked")
            return old.calls() == asked

        with self.not_demoted(old):
            moments = self.failover_by_order()
            until_now(is_left, "it is asked no more")
            yield (*moments, time.monotonic())

    def until_whole(self) -> None:
        """Wait until the old primary follows the new one, and all sentinels know."""
        until_now(self._know_each_other, "the sentinels know each other and the replica")
        [primary] = self.primaries()
        replica = self._other_than(primary)
        if replica.admin.role()[0] == "master":
            # Sentinels, too, would do this; but ten seconds later.
            replica.admin.replicaof("127.0.0.1", primary.port)
        until_follows(replica, primary)

    def close(self) -> None:
        """Kill all."""
        if self._switches is not None:
            self._switches.close()
        for process in (*self._sentinels, *self._servers):
            process.close()

    def _until_promoted(self, old: Process) -> float:
        new = self._other_than(old)
        until_now(lambda: self._named() == {new.port}, "all sentinels name the other server")
        until_now(lambda: new.admin.role()[0] == "master", "it is a primary")
        if self._behind is not None:
            mend_replication(self._behind)
            self._behind = None
        promoted = time.monotonic()
        self._made.append((self._begun_at, promoted))
        return promoted

    def _other_than(self, server: Process) -> Process:
        [other] = [each for each in self._servers if each is not server]
        return other

    def _named(self) -> set[int]:
        named: set[int] = set()
        for sentinel in self._sentinels:
            state: Any = sentinel.admin.sentinel_get_master_addr_by_name(SERVICE)
            named.add(int(state[1]))
        return named

    def _know_each_other(self) -> bool:
        states = [sentinel.admin.sentinel_master(SERVICE) for sentinel in self._sentinels]
        return all(
            state["num-other-sentinels"] == len(self._sentinels) - 1 and state["num-slaves"] == 1
            for state in states
        )


class _Switches:
    """When a sentinel named another primary."""

    def __init__(self, sentinel: Process) -> None:
        self.moments: list[float] = []
        self._messages = sentinel.admin.pubsub(ignore_subscribe_messages=True)
        self._messages.subscribe(**{"+switch-master": self._note})
        self._thread = self._messages.run_in_thread(sleep_time=0.1, daemon=True)

    def _note(self, _: object) -> None:
        self.moments.append(time.monotonic())

    def close(self) -> None:
        self._thread.stop()
        self._thread.join(PATIENCE)


class SentinelProcess(Process):
    """A sentinel: the same program, with a file that it writes its findings to."""

    def __init__(self, program: str) -> None:
        self._own = Path(tempfile.mkdtemp(prefix="limiter-test-"))
        file = self._own / "sentinel.conf"
        file.touch()
        # The file has to be the first argument.
        start = self._own / "sentinel"
        start.write_text(f'#!/bin/sh\nexec "{program}" "{file}" "$@"\n', encoding="utf-8")
        start.chmod(0o755)
        super().__init__(str(start), "--sentinel")

    def close(self) -> None:
        """Kill it, and remove what it left."""
        super().close()
        shutil.rmtree(self._own, ignore_errors=True)

    def watch(self, port: int) -> None:
        """Have it watch a primary, and act within a second."""
        self.admin.sentinel_monitor(SERVICE, "127.0.0.1", port, 2)
        for name, value in (("down-after-milliseconds", 500), ("failover-timeout", 3000)):
            self.admin.sentinel_set(SERVICE, name, value)
