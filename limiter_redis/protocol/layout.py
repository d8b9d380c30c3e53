"""Which layout of the store this release reads and writes; see `lua/layout.lua`.

Processes of two releases may share a namespace if their layouts have the same number. Else the one
that comes later gets a `StoreError`, which names both.
"""

from __future__ import annotations

from redis.exceptions import NoPermissionError

from limiter_core import __version__
from limiter_core.brief import brief
from limiter_core.errors import StoreError
from limiter_redis.protocol.commands import Operation
from limiter_redis.protocol.errors import Unreadable, store_error
from limiter_redis.protocol.keyspace import Keyspace
from limiter_redis.protocol.words import unword, word

LAYOUT = 2
"""Raised with each change of keys, records or messages that the release before cannot read."""

UNKNOWN = "-"
"""The reply where it may not be read: calls go on, as those of releases that note none."""

_OLDER = "a release before 1.0.0rc1"


def look() -> Operation:
    """Return the operation that reads which layout is in force, and notes ours if none is."""
    return Operation(f"inspect - layout {LAYOUT} {word(__version__)}", (), "")


def unread(error: StoreError) -> str:
    """Return what counts as the reply to `look` where there is none.

    Raises:
        StoreError: this error, unless it says that the user may not.
    """
    if isinstance(error.__cause__, NoPermissionError):
        return UNKNOWN
    raise error


def check(line: str, where: str, names: Keyspace) -> None:
    """Refuse a layout that is not ours.

    Args:
        line: the reply to `look`.
        where: the store is, without secrets.
        names: those of the namespace.

    Raises:
        StoreError: it is another one.
    """
    number, _, release = line.partition(" ")
    if number in (UNKNOWN, str(LAYOUT)):
        return
    if not number.isdecimal():
        raise store_error(Unreadable(f"{names.common}:layout cannot be read: {brief(line)}"), where)
    other, until = unword(release), f"delete the Redis key {names.common}:layout"
    if not other:
        other, until = _OLDER, "this one goes on"
    raise StoreError(
        f"the namespace {names.namespace!r} of the store at {where} has layout {number}, of "
        f"{other}, and this is {__version__} with layout {LAYOUT}: let all processes run one "
        "release, or give this one a namespace of its own; once all processes of the other have "
        f"ended, {until}"
    )
