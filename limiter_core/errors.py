"""Every error of the package, in one tree.

Misuse (`ConfigurationError`, `KeyDerivationError`) and a failing store (`StoreError`) never
share a class, and each class also is the built-in one a caller would look for. All arguments
are positional, so that every error survives pickling on its way through a task queue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

__all__ = (
    "ConfigurationError",
    "Evicted",
    "KeyDerivationError",
    "LeaseLost",
    "LimitReached",
    "LimiterError",
    "Preempted",
    "QueueFull",
    "StoreError",
    "StoreUnavailable",
    "Superseded",
    "WaitTimeout",
)


def named_key(key: str, name: str, *, quoted: bool = True) -> str:
    """Return a key for a message, and the name of the limit where the key does not show it."""
    shown = all(part in key for part in re.split("[,&]", name))
    text = repr(key) if quoted else key
    return text if shown else f"{text} ({name})"


def slots_text(in_use: int, limit: int) -> str:
    """Return how many slots of a key are in use, for a message."""
    if limit:
        return f"{in_use} of {limit} slots in use"
    return f"it is paused (its limit is 0), {in_use} {'slot' if in_use == 1 else 'slots'} in use"


class LimiterError(Exception):
    """The root: catch it to catch everything that this package raises on purpose."""


class ConfigurationError(LimiterError, ValueError):
    """A limit, a URL or a call that can never work, whatever the load: fix the code."""


class KeyDerivationError(LimiterError, ValueError):
    """A strategy could not turn this call into a key.

    The named argument does not exist (the message lists those that do), or its value cannot
    stand in a key.
    """


class _Described(LimiterError):
    """An error with fields: built from positional arguments, pickled by them too."""

    def __init__(self, message: str, *fields: Any) -> None:
        # Only the message goes up: OSError, a base of `WaitTimeout`, rewrites longer `args`.
        super().__init__(message)
        self._fields = fields

    def __reduce__(self) -> tuple[type[_Described], tuple[Any, ...]]:
        return type(self), self._fields


class LimitReached(_Described):
    """The call was refused, because its key is full and it may not (or no longer) wait.

    Attributes:
        key: the key that is full.
        max_concurrent: the limit in force for this call, in slots.
        in_use: the slots in use when the call was refused.
        retry_after: seconds until a slot is expected to be free: from the mean hold of limits of
            this name that this process has measured, with some jitter. None without one, and on a
            paused key. A hint: a slot may be free at any time.
        reason: why, in a word, as events and metrics have it.
        name: what the limit is called; empty if that is not known here.
        blocked_by: all keys that block the call, in the order of its limits.
    """

    reason: ClassVar[str] = "full"

    def __init__(  # noqa: PLR0917  (errors are pickled by position)
        self,
        key: str,
        max_concurrent: int,
        in_use: int,
        retry_after: float | None = None,
        name: str = "",
        blocked_by: Sequence[str] = (),
    ) -> None:
        self.key = key
        self.blocked_by = tuple(blocked_by) or (key,)
        self.max_concurrent = max_concurrent
        self.in_use = in_use
        self.retry_after = retry_after
        self.name = name
        fields = key, max_concurrent, in_use, retry_after, name, self.blocked_by
        super().__init__(self._message(), *fields)

    def _message(self) -> str:
        where = named_key(self.key, self.name)
        full = "is full" if self.max_concurrent else "admits no call"
        return f"{where} {full}: {slots_text(self.in_use, self.max_concurrent)}"


class WaitTimeout(LimitReached, TimeoutError):
    """The call's `timeout` passed before a slot was free. It left the queue."""

    reason = "timeout"

    def _message(self) -> str:
        return (
            f"timed out waiting for {named_key(self.key, self.name)}: "
            f"{slots_text(self.in_use, self.max_concurrent)}"
        )


class QueueFull(LimitReached):
    """`max_waiting` calls already wait on the key, so this one was not let in to wait."""

    reason = "queue_full"

    def _message(self) -> str:
        queue = f"the queue of {named_key(self.key, self.name)} is full"
        if not self.max_concurrent:
            return f"{queue}: {slots_text(self.in_use, 0)}"
        return f"{queue}, and so are its slots: {self.in_use} of {self.max_concurrent} in use"


class Evicted(LimitReached):
    """An operator ended the waiting of the call (`evict_waiter`)."""

    reason = "evicted"

    def _message(self) -> str:
        return f"an operator ended the waiting of this call for {named_key(self.key, self.name)}"


class Superseded(_Described):
    """A newer call took this one's place in the queue (`KEEP_LATEST` or `CANCEL_RUNNING`).

    Attributes:
        key: the key on which the newer call arrived.
        reason: why, in a word, as events and metrics have it.
        name: what the limit is called; empty if that is not known here.
    """

    reason: ClassVar[str] = "superseded"

    def __init__(self, key: str, name: str = "") -> None:
        self.key = key
        self.name = name
        message = f"a newer call on {named_key(key, name)} took the place of this one"
        super().__init__(message, key, name)


class LeaseLost(_Described):
    """The slot is gone while the body still ran.

    Attributes:
        lease_id: the lease that ended.
        keys: the keys it held slots of.
        reason: why, as a sentence fragment: it expired, was evicted, outlived its `max_hold`, ...
    """

    def __init__(self, lease_id: str, keys: Sequence[str], reason: str) -> None:
        self.lease_id = lease_id
        self.keys = tuple(keys)
        self.reason = reason
        names = ", ".join(repr(key) for key in self.keys)
        super().__init__(f"lost the lease on {names}: {reason}", lease_id, self.keys, reason)


class Preempted(LeaseLost):
    """A newer call under `CANCEL_RUNNING` asked this holder to make room."""


class StoreError(LimiterError):
    """The store answered with an error; `__cause__` is the driver's."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store could not be reached in time; `__cause__` is the driver's error."""
