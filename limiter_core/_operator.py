"""What an operator does to a store, written once for both worlds: the change, and its log entry.

The methods of `Operator` are generators that yield what a face returned; `run_operation` sends it
back as it is, `run_async` (of `_prepare`) awaits it first.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, cast

from limiter_core._operator_checks import check_id, check_key, check_override
from limiter_core.errors import ConfigurationError, StoreError
from limiter_core.policies import (
    PAUSED,
    Change,
    Policy,
    check_lasts,
    check_note,
    check_policy_name,
    check_policy_value,
    number_of,
)
from limiter_core.requests import Demand, KeySnapshot
from limiter_core.store import Store

logger = logging.getLogger("limiter")

R = TypeVar("R")
Operation = Generator[Any, Any, R]


def run_operation(steps: Operation[R]) -> R:
    """Carry out an operation whose face returns its results at once."""
    result: Any = None
    while True:
        try:
            result = steps.send(result)
        except StopIteration as done:
            return cast(R, done.value)


class Operator:
    """The operator's calls on one face of a store.

    Args:
        store: the store.
        face: its face for threads, or that for event loops.
    """

    def __init__(self, store: Store, face: Any) -> None:
        self._face = face
        # A store that was written before it was in the protocol does not have the field; one around
        # another store may hand on that store's capabilities, and lack the operations.
        declared = getattr(store.capabilities, "policies", False)
        self._has_policies = bool(declared) and hasattr(face, "log_change")
        self._store = store

    # -- one key ---------------------------------------------------------------------------------

    def set_limit(self, key: str, limit: int, reason: Any, by: Any) -> Operation[None]:
        """Override what the code declares for a key."""
        key, limit = check_key(key), check_override(limit)
        change = _change(by, reason, action="set", key=key, new=str(limit))
        change = yield from self._with_old(change)
        yield self._face.set_limit(key, limit)
        yield from self._log(change)

    def reset_limit(self, key: str, reason: Any, by: Any) -> Operation[None]:
        """Return to what the code declares for a key."""
        change = _change(by, reason, action="reset", key=check_key(key))
        change = yield from self._with_old(change)
        yield self._face.reset_limit(key)
        yield from self._log(change)

    def pause(self, key: str, reason: Any, by: Any) -> Operation[None]:
        """Admit no call to a key."""
        change = _change(by, reason, action="pause", key=check_key(key), new=PAUSED)
        change = yield from self._with_old(change)
        yield self._face.pause(key)
        yield from self._log(change)

    def resume(self, key: str, reason: Any, by: Any) -> Operation[None]:
        """Admit to a key again."""
        change = _change(by, reason, action="resume", key=check_key(key))
        change = yield from self._with_old(change)
        yield self._face.resume(key)
        yield from self._log(change)

    def evict(self, lease_id: str, key: str | None, reason: Any, by: Any) -> Operation[bool]:
        """Take the slot from a holder."""
        where = "" if key is None else check_key(key)
        change = _change(by, reason, action="evict", key=where, old=check_id(lease_id))
        found: bool = yield self._face.evict(lease_id)
        if found:
            yield from self._log(change)
        return found

    def evict_waiter(
        self, ticket_id: str, key: str | None, reason: Any, by: Any
    ) -> Operation[bool]:
        """End the waiting of a ticket."""
        keys = () if key is None else (check_key(key),)
        change = _change(by, reason, action="evict", key=key or "", old=check_id(ticket_id))
        found: bool = yield self._face.evict_waiter(ticket_id, keys)
        if found:
            yield from self._log(change)
        return found

    # -- all keys of a name ------------------------------------------------------------------------

    def set_name_limit(
        self, name: str, limit: int | str, lasts: float | timedelta | None, reason: Any, by: Any
    ) -> Operation[Change]:
        """Set the limit of all keys of a name."""
        value, seconds = check_policy_value(limit), check_lasts(lasts)
        named = check_policy_name(name)
        change = _change(by, reason, action="set", name=named, new=value, lasts=seconds)
        return (yield from self._change_policy(change))

    def reset_name_limit(self, name: str, reason: Any, by: Any) -> Operation[Change]:
        """Return to what the code declares for the keys of a name."""
        change = _change(by, reason, action="reset", name=check_policy_name(name))
        return (yield from self._change_policy(change))

    def pause_name(
        self, name: str, lasts: float | timedelta | None, reason: Any, by: Any
    ) -> Operation[Change]:
        """Admit no call of a name."""
        named, seconds = check_policy_name(name), check_lasts(lasts)
        change = _change(by, reason, action="pause", name=named, new=PAUSED, lasts=seconds)
        return (yield from self._change_policy(change))

    def resume_name(self, name: str, reason: Any, by: Any) -> Operation[Change]:
        """Admit calls of a name again."""
        change = _change(by, reason, action="resume", name=check_policy_name(name))
        return (yield from self._change_policy(change))

    def policies(self) -> Operation[tuple[Policy, ...]]:
        """Return what is in force for names."""
        self._check_policies()
        found: tuple[Policy, ...] = yield self._face.policies()
        return found

    def changes(self) -> Operation[tuple[Change, ...]]:
        """Return the log."""
        self._check_policies()
        found: tuple[Change, ...] = yield self._face.changes()
        return found

    # -- looking ---------------------------------------------------------------------------------

    def judged(self, demands: Sequence[Demand]) -> Operation[tuple[Demand, ...]]:
        """Return demands with the numbers that are in force for their names."""
        if not self._has_policies:
            return tuple(demands)
        policies = yield self._face.policies()
        numbers = [number_of(policies, each.name, each.limit) for each in demands]
        return tuple(
            each._replace(limit=number if number >= each.cost else 0)
            for each, number in zip(demands, numbers, strict=True)
        )

    # -- inside ----------------------------------------------------------------------------------

    def _change_policy(self, change: Change) -> Operation[Change]:
        self._check_policies()
        entry: Change = yield self._face.change_policy(change)
        return entry

    def _check_policies(self) -> None:
        if not self._has_policies:
            raise ConfigurationError(
                f"{self._store!r} keeps no limits by name and no log of changes: it was written "
                "before they were in the protocol of stores. Change the keys one by one"
            )

    def _with_old(self, change: Change) -> Operation[Change]:
        """Return a change of a key, with what is in force now."""
        if not self._has_policies:
            return change
        before: KeySnapshot = yield self._face.inspect(change.key)
        if change.action in ("pause", "resume"):
            return replace(change, old=PAUSED if before.paused else "")
        return replace(change, old="" if before.override is None else str(before.override))

    def _log(self, change: Change) -> Operation[None]:
        """Log a change that was made; it stands if that fails, with a warning."""
        if not self._has_policies:
            return
        try:
            yield self._face.log_change(change)
        except StoreError as error:
            logger.warning("the change was made, but not noted in the store's log: %s", error)


def _change(by: Any, reason: Any, **what: Any) -> Change:
    operator, why = check_note(by, reason)
    return Change(**what, by=operator, reason=why)
