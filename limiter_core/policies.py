"""Limits by name: what an operator says of all keys of a limit; and the log of such changes.

A *policy* is a number, a share of what the code declares, or a pause, for every key of the limits
of one name: those in use, and future ones. A key's own override or pause counts before it. Stores
keep policies until they are reset or their time is over, on the store's clock (rule S22).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from limiter_core._checks import MAX_NUMBER, check_name, check_number, check_seconds, printable
from limiter_core._identity import process_label
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError

__all__ = (
    "CHANGES_KEPT",
    "PAUSED",
    "Action",
    "AsyncPolicyStore",
    "Change",
    "Policy",
    "PolicyStore",
    "number_of",
    "parsed_number",
)

CHANGES_KEPT = 100
"""Changes that a store's log keeps; older ones are dropped."""

PAUSED = "paused"
"""What a `Change` has as `old` or `new` for a pause."""

MAX_REASON_LENGTH = 500
MAX_BY_LENGTH = 200
MAX_PERCENT = 10_000
MAX_DIGITS = 20  # what an earlier version could store is still read
_PERCENT = re.compile(r"(\d{1,5})\s*%", re.ASCII)

Action = Literal["set", "reset", "pause", "resume", "evict"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator said of the limits of a name: a number, a share, or a pause.

    A name has at most one of the first two, and one pause. While it is paused no call is admitted,
    whatever the number.

    Attributes:
        name: the limits' name.
        limit: the number that replaces what the code declares; None for a share or a pause.
        percent: the share of what the code declares, rounded up; None for a number or a pause.
        by: the operator's name.
        reason: why; empty if none was given.
        set_at: when, in seconds since the epoch, by the store's clock.
        ends_at: when it ends, likewise; None: when it is reset.
        ends_in: seconds until then, None likewise.
    """

    name: str
    limit: int | None = None
    percent: int | None = None
    by: str = ""
    reason: str = ""
    set_at: float = 0.0
    ends_at: float | None = None
    ends_in: float | None = None

    @property
    def paused(self) -> bool:
        """Whether it is a pause."""
        return self.limit is None and self.percent is None

    @property
    def value(self) -> str:
        """The number, the share (`50%`), or `paused`."""
        if self.percent is not None:
            return f"{self.percent}%"
        return PAUSED if self.limit is None else str(self.limit)

    def number(self, declared: int) -> int:
        """Return the limit in force where the code declares this number."""
        if self.percent is not None:
            return -(-declared * self.percent // 100)
        return 0 if self.limit is None else self.limit


@dataclass(frozen=True, slots=True)
class Change:
    """One change that an operator made: an entry of the log.

    Attributes:
        action: what was done.
        key: the key that it was done to; empty if it was a name, or is not known.
        name: the name of the limits that it was done to; empty if it was a key.
        old: what was in force: a number, a share (`50%`), `paused`; of an eviction the lease or
            ticket. Empty for what the code declares.
        new: what is in force since then, likewise.
        by: the operator's name.
        reason: why; empty if none was given.
        lasts: seconds after which it ends by itself; None: when it is reset.
        at: when, in seconds since the epoch, by the store's clock.
    """

    action: Action
    key: str = ""
    name: str = ""
    old: str = ""
    new: str = ""
    by: str = ""
    reason: str = ""
    lasts: float | None = None
    at: float = 0.0


@runtime_checkable
class PolicyStore(Protocol):
    """What the sync face of a store has besides `SyncStore` if it keeps policies and a log.

    Its `Capabilities.policies` is True. The rules are S22 and S23 of `limiter_core.store`.
    """

    def change_policy(self, change: Change) -> Change:
        """Carry out a change of a name: set, reset, pause or resume; and log it.

        The calls that wait are judged by it when this returns, those that come later within a
        second, or, in a process that missed the notice, within 5 s.

        Returns:
            The entry of the log: with `old` and `at`.
        """
        ...

    def policies(self) -> tuple[Policy, ...]:
        """Return what is in force, in the order of the names; of a name its pause comes last."""
        ...

    def log_change(self, change: Change) -> Change:
        """Add a change that was made to a key to the log; returns the entry, with `at`."""
        ...

    def changes(self) -> tuple[Change, ...]:
        """Return the log, the last change first; at most `CHANGES_KEPT`."""
        ...


@runtime_checkable
class AsyncPolicyStore(Protocol):
    """The same for the async face of a store: `PolicyStore`, awaited."""

    async def change_policy(self, change: Change) -> Change:
        """Carry out a change of a name; see `PolicyStore.change_policy`."""
        ...

    async def policies(self) -> tuple[Policy, ...]:
        """Return what is in force; see `PolicyStore.policies`."""
        ...

    async def log_change(self, change: Change) -> Change:
        """Add a change to the log; see `PolicyStore.log_change`."""
        ...

    async def changes(self) -> tuple[Change, ...]:
        """Return the log; see `PolicyStore.changes`."""
        ...


def number_of(policies: Iterable[Policy], name: str, declared: int) -> int:
    """Return the limit in force for a call of a name that declares this number.

    Args:
        policies: what is in force.
        name: the limit's name.
        declared: what the code declares.
    """
    number = declared
    for policy in policies:
        if policy.name == name:
            if policy.paused:
                return 0
            number = policy.number(declared)
    return number


def parsed_number(value: str) -> tuple[int | None, int | None]:
    """Return the number, or the share in percent, that the text of a change stands for.

    Raises:
        ConfigurationError: it is neither.
    """
    found = _PERCENT.fullmatch(value.strip())
    if found is not None and int(found[1]) <= MAX_PERCENT:
        return None, int(found[1])
    if value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS:
        return int(value), None
    raise ConfigurationError(
        f"the limit of a name is a whole number from 0 to {MAX_NUMBER:,}, or a share of what the "
        f'code declares from "0%" to "{MAX_PERCENT}%", got {brief(value)}'
    )


def check_policy_value(value: object) -> str:
    """Return the number or share that an operator gives, as a change has it.

    Raises:
        ConfigurationError: it is neither.
    """
    if not isinstance(value, str):
        return str(check_number(value, "the limit", least=0))
    number, percent = parsed_number(value)
    return str(check_number(number, "the limit", least=0)) if percent is None else f"{percent}%"


def check_policy_name(name: object) -> str:
    """Return the name that an operator gives.

    Raises:
        ConfigurationError: it can be none of a limit.
    """
    found = check_name(name)
    if found is None:
        raise ConfigurationError("give the name of a limit, as inspect() shows it, got None")
    return found


def check_lasts(lasts: float | timedelta | None) -> float | None:
    """Return the seconds after which a policy ends, None for never.

    Raises:
        ConfigurationError: it is no duration, or none that a store can count.
    """
    if lasts is None:
        return None
    seconds = check_seconds(lasts, "lasts")
    if not 1e-3 <= seconds <= 1e9:
        raise ConfigurationError(f"lasts must be from 1 ms to 1e9 s, got {brief(lasts)}")
    return seconds


def check_note(by: Any, reason: Any) -> tuple[str, str]:
    """Return the operator's name and the reason, as they are logged.

    Raises:
        ConfigurationError: one of them is no text.
    """
    for what, given in (("by", by), ("reason", reason)):
        if given is not None and not isinstance(given, str):
            raise ConfigurationError(f"{what} must be text, got {brief(given)}")
    who = process_label() if by is None or not by.strip() else by
    return _shortened(who, MAX_BY_LENGTH), _shortened(reason or "", MAX_REASON_LENGTH)


def _shortened(text: str, length: int) -> str:
    text = printable(text.strip())
    return text if len(text) <= length else f"{text[: length - 1]}…"
