"""Revokes that outlive the workers which were told of them.

A worker forgets what was revoked when it ends; a task that waits for a slot does not end with it.
So each revoke is noted in the store, too, for as long as Celery remembers it. A worker that begins
learns those; a task that waited when it was revoked is not run then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

from limiter_core.requests import Demand, Mode, Request
from limiter_core.store import SyncStore
from limiter_core.system_clock import system_clock as time

_LIMIT = 2**31

Stamps = dict[str, list[Any]]
"""The values of each header with which tasks were stamped."""


def stamps_of(headers: Any) -> Stamps:
    """Return stamps as Celery takes them: one value or several of each, or "header=value" texts."""
    if isinstance(headers, list):
        headers = dict(each.split("=")[:2] for each in cast(list[str], headers))
    given = cast(Mapping[str, Any], headers or {})
    return {name: _listed(value) for name, value in given.items() if value is not None}


def have_in_common(stamps: Stamps, others: Stamps) -> bool:
    """Whether a task with these stamps was revoked by those."""
    return any(value in others.get(name, ()) for name, values in stamps.items() for value in values)


def _listed(value: Any) -> list[Any]:
    # As Celery has it: a text is one value, anything that can be gone through is several.
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return list(cast(Iterable[Any], value)) if several else [value]


class Revocations:
    """The revokes that the store remembers.

    Args:
        face: where they are kept.
        name: whose they are.
        lasts: seconds for which each is remembered.

    Attributes:
        learned: whether it is known what was revoked before this worker began.
    """

    def __init__(self, face: SyncStore, name: str, lasts: float) -> None:
        self._face = face
        self._key = f"{name}:revoked"
        self._lasts = lasts
        self._known: dict[str, float] = {}
        self.learned = False

    def note(self, task_id: str) -> None:
        """Have the store remember that a task was revoked.

        Raises:
            StoreError: the store could not be used.
        """
        self._note(task_id)

    def note_stamps(self, stamps: Stamps) -> None:
        """Have the store remember that tasks with these stamps were revoked.

        Raises:
            StoreError: the store could not be used.
        """
        for mark in _marks(stamps):
            self._note(mark)

    def learn(self) -> None:
        """Learn what was revoked before this worker began.

        Raises:
            StoreError: the store could not be used.
        """
        now = time.time()
        holders = self._face.inspect(self._key).holders
        self._known = {holder.id.partition(":")[2]: now - holder.held_for for holder in holders}
        self.learned = True

    def cover(self, task_id: str, stamps: Stamps, since: float) -> bool:
        """Whether a task that waits since then (seconds of the epoch) was revoked meanwhile.

        A revoke from before is that of a task of the same id, or the same stamps, sent earlier;
        whether it holds for this one, Celery decides.
        """
        known = self._known
        if not known:
            return False
        return any(known.get(mark, 0.0) >= since for mark in (task_id, *_marks(stamps)))

    def _note(self, mark: str) -> None:
        demand = Demand(self._key, _LIMIT)
        # The same id whichever worker notes it, so there is one; at the time of the latest.
        ticket = f"revoked:{mark}"
        self._face.release(ticket, [self._key])
        self._face.acquire(Request(ticket, (demand,), lease=self._lasts, mode=Mode.TRY))


def _marks(stamps: Stamps) -> list[str]:
    """Return a short text for each stamp."""
    return [
        hashlib.sha256(f"{name}={value!s}".encode()).hexdigest()
        for name, values in stamps.items()
        for value in values
    ]
