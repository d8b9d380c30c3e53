"""Which exceptions are the driver's: they become `StoreError`, all others pass through unchanged.

An exception may reach a thread amid an exchange with the server although nothing failed: a signal
handler raised it (a soft time limit, `KeyboardInterrupt`), or another thread threw it in
(`PyThreadState_SetAsyncExc`). It belongs to the caller.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from typing import Protocol

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004  (redis-py's own)
    TryAgainError,
)

from limiter_core.brief import brief
from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.signal_errors import is_of_signal
from limiter_redis.protocol.forms import has_no_scripts

NOT_READABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What reading raises where something else was written than what is read."""

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, AssertionError, RecursionError)
"""What reading a reply raises that is none: of redis-py, or of ours."""

_CREDENTIALS = frozenset({"get_credentials", "get_credentials_async"})


def is_driver_error(error: BaseException) -> bool:
    """Whether an exception is about the server, or the connection to it.

    These are: all of redis-py's, `OSError` with its subclasses, the built-in exceptions of
    `UNREADABLE` themselves, and any `Exception` out of a credential provider. None is that a signal
    handler raised, though it may be a `TimeoutError`.
    """
    if isinstance(error, RedisError | OSError) or is_unreadable(error):
        return isinstance(error, RedisError) or not is_of_signal(error)
    return isinstance(error, Exception) and any(
        frame.f_code.co_name in _CREDENTIALS for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def is_unreadable(error: BaseException) -> bool:
    """Whether an exception says that a text could not be read. No class of a user's does."""
    return isinstance(error, UNREADABLE) and type(error).__module__ == "builtins"


def may_be_on_its_way(error: BaseException) -> bool:
    """Whether what was asked for may be carried out later, after the error that it ended with.

    It is not where the server has answered, be it with an error, or with what cannot be read.
    """
    if isinstance(error, StoreError):
        cause = error.__cause__
        return cause is not None and not isinstance(cause, ResponseError)
    return True


UNAVAILABLE = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    ClusterDownError,
    ReadOnlyError,
    TryAgainError,
    OSError,
)

_PASSING = re.compile(
    r"(?:^|: -?)(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|READONLY|TRYAGAIN) "
)
"""How the errors of a server begin, also within a script, that is not itself for a while."""


class About(Protocol):
    """An operation, as far as an error needs to know it."""

    @property
    def subject(self) -> str:
        """What it is about, for people."""
        ...


def store_error(error: Exception, where: str, operations: Sequence[About] = ()) -> StoreError:
    """Return our error for one of the driver's, which becomes its cause.

    Args:
        error: the driver's.
        where: the store lives.
        operations: that were asked for; an answer is about what they are about.
    """
    away = (isinstance(error, UNAVAILABLE) or _PASSING.search(str(error)) is not None) and (
        not isinstance(error, AuthenticationError | AuthorizationError)
    )
    if away:
        ours: StoreError = StoreUnavailable(f"the store at {where} cannot be reached: {error}")
    elif "+cluster" not in where and _says_cluster(error):
        ours = StoreError(
            f"the server at {where} is a node of a cluster, and the keys lie on another: give the "
            "store the URL redis+cluster://host:port in place of redis://host:port, or a "
            "RedisCluster as its client"
        )
    elif "cluster support disabled" in str(error):
        ours = StoreError(
            f"the server at {where} is no node of a cluster: give the store the URL "
            "redis://host:port in place of redis+cluster://host:port, or a Redis as its client"
        )
    elif isinstance(error, ResponseError) and has_no_scripts(error):
        ours = StoreError(
            f"the server at {where}, or a proxy before it, refuses scripts: {error}. A store needs "
            "the command FCALL, or EVALSHA and EVAL"
        )
    else:
        about = ""
        if isinstance(error, ResponseError) and len(operations) == 1:
            about = f" (about {operations[0].subject})"
        ours = StoreError(f"the store at {where} answered: {error}{about}")
    ours.__cause__ = error
    return ours


def _says_cluster(error: Exception) -> bool:
    said = str(error)
    return isinstance(error, AskError) or "CROSSSLOT" in said or "non local key" in said


class Unreadable(ResponseError):
    """A reply that is none of the script's: of another type, or with too few lines."""


def unreadable_record(said: str, key: str) -> StoreError:
    """Return the error for what was written, or said, about a key and cannot be read."""
    about = f" of the key {key!r}" if key else ""
    return StoreError(
        f"the store's record{about} cannot be read: {brief(said)}; "
        "did another version, or something else, write there?"
    )
