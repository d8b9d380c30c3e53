"""Which exceptions are the driver's: they become `StoreError`, all others pass through unchanged.

An exception may reach a thread amid an exchange with the server although nothing failed: a signal
handler raised it (a soft time limit, `KeyboardInterrupt`), or another thread threw it in
(`PyThreadState_SetAsyncExc`). It belongs to the caller.
"""

from __future__ import annotations

import traceback

from redis.exceptions import RedisError, ResponseError

from limiter_core.errors import StoreError

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, AssertionError, RecursionError)
"""What reading a reply raises that is none: of redis-py, or of ours."""

_CREDENTIALS = frozenset({"get_credentials", "get_credentials_async"})


def is_driver_error(error: BaseException) -> bool:
    """Whether an exception tells of the server, or of the way to it.

    These are: all of redis-py's, `OSError` with its subclasses, the built-in exceptions of
    `UNREADABLE` themselves, and any `Exception` out of a credential provider.
    """
    if isinstance(error, RedisError | OSError) or is_unreadable(error):
        return True
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
