"""Revokes that outlive the workers which received them.

A worker forgets what was revoked when it ends; a task that waits for a slot does not end with it.
So each revoke is noted in the store, too, for as long as Celery remembers it. A worker that starts
loads them, and does not run a task that was revoked while it waited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

from limiter_celery._expiring_set import ExpiringSet
from limiter_core.store import SyncStore
from limiter_core.system_clock import system_clock as time

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
    # As in Celery: a text is one value, any other iterable is several.
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return list(cast(Iterable[Any], value)) if several else [value]


class Revocations:
    """The revokes that the workers of one name share; all methods but `cover` may raise StoreError.

    Args:
        store: where they are kept.
        name: of the workers.
        seconds: for which each is remembered.
    """

    def __init__(self, store: SyncStore, name: str, seconds: float) -> None:
        self._noted = ExpiringSet(store, f"{name}:revoked", seconds)
        self._revoked_at: dict[str, float] = {}
        self.loaded = False

    def note(self, task_id: str) -> None:
        """Note in the store that a task was revoked."""
        # The same member whichever worker notes it, so there is one. Its age counts from now on.
        member = f"revoked:{task_id}"
        self._noted.remove(member)
        self._noted.add(member)

    def note_stamps(self, stamps: Stamps) -> None:
        """Note in the store that tasks with these stamps were revoked."""
        for digest in _digests(stamps):
            self.note(digest)

    def load(self) -> None:
        """Load what was revoked before this worker started; `loaded` is true from then on."""
        now = time.time()
        ages = self._noted.ages()
        self._revoked_at = {name.partition(":")[2]: now - age for name, age in ages.items()}
        self.loaded = True

    def cover(self, task_id: str, stamps: Stamps, since: float) -> bool:
        """Whether a task that has waited since then (seconds of the epoch) was revoked meanwhile.

        An earlier revoke was for a task of the same id, or the same stamps, that was sent earlier;
        whether it holds for this one, Celery decides.
        """
        if not self._revoked_at:
            return False
        names = (task_id, *_digests(stamps))
        return any(self._revoked_at.get(name, 0.0) >= since for name in names)


def _digests(stamps: Stamps) -> list[str]:
    """Return a short text for each stamp."""
    return [
        hashlib.sha256(f"{name}={value!s}".encode()).hexdigest()
        for name, values in stamps.items()
        for value in values
    ]
