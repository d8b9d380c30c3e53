"""Why a worker ended the waiting of a task: kept in the store until the task is reported.

The store only notes that the task is not to run, as if an operator had evicted it. Whichever worker
reports it has to know the reason; the one that ended its waiting may have been killed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from limiter_celery._expiring_set import ExpiringSet
from limiter_core.errors import Evicted, WaitTimeout
from limiter_core.keys import bounded
from limiter_core.store import SyncStore

Reason = Literal["expired", "revoked", "timeout"]
"""The task has expired or was revoked, or the `timeout` of its limit is over."""

_REASONS: tuple[Reason, ...] = ("expired", "revoked", "timeout")

_KEPT_FOR = 86_400.0
"""Seconds for which a reason is kept if nobody reports the task: all workers may be gone."""


class Why(NamedTuple):
    """Why a task is not to run.

    Attributes:
        text: what is reported.
        error: the refusal; None if the task was cancelled.
        noted: what is kept in the store; None if the store itself knows why.
    """

    text: str
    error: Exception | None
    noted: Reason | None


class RefusalReasons:
    """The reasons that the workers of one name share; all methods may raise StoreError.

    Args:
        store: where they are kept.
        name: of the workers.
    """

    def __init__(self, store: SyncStore, name: str) -> None:
        self._noted = ExpiringSet(store, f"{name}:reasons", _KEPT_FOR)

    def note(self, ticket: str, reason: Reason) -> None:
        """Note why the waiting of a task is about to be ended."""
        self._noted.add(_member(ticket, reason))

    def of(self, ticket: str, error: Exception) -> Why:
        """Return why a task is not to run.

        Args:
            ticket: names the attempt.
            error: why, as far as the store knows.
        """
        reason = self._noted_for(ticket) if isinstance(error, Evicted) else None
        if reason is None:
            return Why(str(error), error, None)
        if reason == "timeout" and isinstance(error, Evicted):
            slots, in_use = error.max_concurrent, error.in_use
            over = WaitTimeout(error.key, slots, in_use, None, error.name, error.blocked_by)
            return Why(str(over), over, reason)
        return Why(reason, None, reason)

    def forget(self, ticket: str, reason: Reason | None) -> None:
        """Forget the reason of a task, if one was noted: it was reported, or runs."""
        if reason is not None:
            self._noted.remove(_member(ticket, reason))

    def _noted_for(self, ticket: str) -> Reason | None:
        for reason in _REASONS:
            if self._noted.age(_member(ticket, reason)) is not None:
                return reason
        return None


def _member(ticket: str, reason: Reason) -> str:
    return f"{bounded(ticket)}:{reason}"
