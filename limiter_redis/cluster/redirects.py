"""What the answer of a node means for a call: whether it is to be sent again, and where.

A step of the script touches keys that it finds out about as it goes, and it must find all of them
or none. While a slot is moved key by key its keys lie on two nodes; then no node may carry out any
step on it: `CLOSED_SLOT` has the old one refuse, and the new one is not asked (no ASKING) before
the slot is its own. So a slot that moves is closed until it has arrived, and calls wait for that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004  (redis-py's own)
    MovedError,
    ResponseError,
    TimeoutError,  # noqa: A004  (redis-py's own)
    TryAgainError,
)

from limiter_core.backoff import backoff
from limiter_core.errors import StoreError, StoreUnavailable
from limiter_redis.connection.deadlines import NoAnswer
from limiter_redis.protocol import commands
from limiter_redis.protocol.errors import UNAVAILABLE, store_error
from limiter_redis.protocol.script import Script

_PAUSE = 0.02
_LONGEST_PAUSE = 0.2
_MOVES = 3
"""Redirections of a call that are followed at once; then the nodes do not agree, and it waits."""

CLOSED_SLOT = """\
-- Is the slot on its way to another node? Then this key, which nobody has, is not ours to see.
local function refusal()
  local seen = redis.pcall('EXISTS', keys[1] .. '}:none')
  if type(seen) == 'table' and seen.err then
    return redis.error_reply('TRYAGAIN the slot is on its way to another node')
  end
end
"""


@functools.lru_cache(maxsize=16)
def in_slots(script: Script) -> Script:
    """Return the script as it goes to the nodes of a cluster."""
    return script.refusing(CLOSED_SLOT)


class Retry:
    """How often a call was sent, and until when it may be sent again.

    Args:
        give_up_at: when the caller's patience ends, on the caller's clock; None: only a call whose
            connection was lost is sent again, once and at once.

    Attributes:
        trouble: why its connection was lost, or could not be had, the last time that this was
            known; not that an answer did not come in time.
    """

    __slots__ = ("_failed", "_moves", "give_up_at", "trouble")

    def __init__(self, give_up_at: float | None) -> None:
        self.give_up_at = give_up_at
        self._moves = 0
        self._failed = 0
        self.trouble: Exception | None = None

    def backoff_after(self, error: Exception, now: float) -> float | None:
        """Return the seconds after which to send it again, None for never."""
        if not isinstance(error, TimeoutError | NoAnswer | ResponseError):
            self.trouble = error
        if self.give_up_at is None:
            return self._at_once_after(error)
        if isinstance(error, MovedError) and self._moves < _MOVES:
            self._moves += 1
            return 0.0
        if not passes(error):
            return None
        # A reply that is lost is asked for once more in any case: the connection may have been dead
        # for long.
        if now >= self.give_up_at and (self._failed or isinstance(error, TimeoutError)):
            return None
        pause = backoff(self._failed, _PAUSE, _LONGEST_PAUSE)
        self._failed += 1
        return pause

    def reason(self, error: Exception) -> Exception:
        """Return why it failed in the end: what was cut off by a deadline says nothing of that."""
        late = isinstance(error, NoAnswer) and self.trouble is not None
        return NoAnswer(str(self.trouble)) if late else error

    def _at_once_after(self, error: Exception) -> float | None:
        # A connection that lay idle may be dead. All operations may be repeated (S1).
        lost = isinstance(error, ConnectionError | OSError)
        no_use = isinstance(error, AuthenticationError | TimeoutError | NoAnswer)
        if self._failed or not lost or no_use:
            return None
        self._failed = 1
        return 0.0


def passes(error: Exception) -> bool:
    """Whether what a node said, or that it could not be reached, is likely to pass."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    return isinstance(error, (AskError, *UNAVAILABLE))


def failure(
    error: Exception, where: str, operations: Sequence[commands.Operation] = ()
) -> StoreError:
    """Return our error for one that did not pass in time."""
    if isinstance(error, AskError) and "+cluster" in where:  # also a MovedError: they disagree
        moving = f"a slot is on its way to another node ({error})"
        ours = StoreUnavailable(f"the store at {where} cannot be reached: {moving}")
        ours.__cause__ = error
        return ours
    return store_error(error, where, operations)


def is_about_the_map(error: Exception) -> bool:
    """Whether slots may belong to other nodes than the map says."""
    if isinstance(error, MovedError):  # an AskError to redis-py
        return True
    return not isinstance(error, AskError | TryAgainError | BusyLoadingError)
