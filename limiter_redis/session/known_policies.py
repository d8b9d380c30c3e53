"""The policies that a process knows of (S22): read before its first call, on a notice, and often.

Most processes find none. Then a call pays for a look at the clock and at an empty table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress

from limiter_core.errors import StoreError
from limiter_core.outage import RepeatedWarning
from limiter_core.policies import Policy
from limiter_core.requests import Request
from limiter_redis.protocol.policy_words import NONE, Known, known_of

VALID = 5.0
"""Seconds for which a call relies on what was read."""

_READ_EVERY = 4.0
"""Seconds between two reads in the background, where changes are published."""

_LOOK_EVERY = 0.8
"""The same in a cluster, where they are not."""

_REMEMBERED = 10.0
"""Seconds for which a process applies a change to tickets that it sent before it knew of it."""

_MOST_KEYS = 10_000


class KnownPolicies:
    """What was read last, and until when it counts.

    Args:
        look_often: whether no notices come.

    Attributes:
        by_name: the policies in force; most often none.
        valid_until: when a call has to read them first, on the local clock.
        readers: the ids of calls of event loops that do so now.
        on_change: called with the names for which something changed.
    """

    def __init__(self, *, look_often: bool = False) -> None:
        self.by_name: dict[str, Known] = {}
        self.valid_until = 0.0
        self.readers: set[str] = set()
        self.on_change: Callable[[frozenset[str]], object] = lambda _: None
        self._every = _LOOK_EVERY if look_often else _READ_EVERY
        self._read_at = -math.inf
        self._asked_keys: dict[str, float] = {}
        self._changed: dict[str, float] = {}
        self._unread = RepeatedWarning("cannot read limits by name, which do not count here")

    def is_due(self, now: float) -> bool:
        """Whether they are to be read in the background."""
        return now >= self._read_at + self._every

    def begin_reading(self, now: float) -> None:
        """Note that they are being read in the background."""
        self._read_at = now

    def noticed(self) -> None:
        """Note that they have changed: they are read at once."""
        self._read_at = -math.inf

    def unreadable(self, error: StoreError) -> None:
        """Note that the store refuses to give them (S22)."""
        self._unread.note(error)

    def update(self, policies: Iterable[Policy], read_at: float) -> None:
        """Take in what was read.

        Args:
            policies: what is in force.
            read_at: when it was asked for, on the local clock.
        """
        if read_at + VALID < self.valid_until:
            return  # another thread has read later
        known = known_of(policies, read_at)
        self.valid_until = read_at + VALID
        before = {name: each.words for name, each in self.by_name.items()}
        after = {name: each.words for name, each in known.items()}
        self.by_name = known
        if before == after:
            return
        names = frozenset(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )
        self._changed.update(dict.fromkeys(names, read_at))
        self.on_change(names)

    def words_of(self, name: str) -> str:
        """Return the policies of a name, for the script."""
        known = self.by_name.get(name)
        return NONE if known is None else known.words

    def sent(self, request: Request, now: float) -> None:
        """Note a durable request that is sent: if it waits, no listener asks again."""
        for demand in request.demands:
            self._asked_keys[demand.key] = now
        while len(self._asked_keys) > _MOST_KEYS:
            with suppress(RuntimeError):  # another thread changed it
                self._asked_keys.pop(next(iter(self._asked_keys)), None)

    def to_apply(self, now: float) -> dict[str, list[str]]:
        """Return keys by names: a ticket of this process may be judged by an older policy."""
        since = now - _REMEMBERED
        for known in (self._changed, self._asked_keys):
            for name, at in list(known.items()):  # other threads change them
                if at <= since:
                    known.pop(name, None)
        return {name: list(self._asked_keys) for name in list(self._changed) if self._asked_keys}
