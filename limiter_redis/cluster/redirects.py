"""What the answer of a node means for a call: whether it is to be sent again, and where.

A step of the script touches keys that it finds out about as it goes, and it must find all of them
or none. While a slot is moved key by key its keys lie on two nodes; then no node may carry out any
step on it: `CLOSED_SLOT` has the old one refuse, and the new one is not asked (no ASKING) before
the slot is its own. So a slot that moves is closed until it has arrived, and calls wait for that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    MovedError,
    TimeoutError,  # noqa: A004  (redis-py's own)
    TryAgainError,
)

from limiter_core.backoff import backoff
from limiter_core.errors import ConfigurationError, StoreError, StoreUnavailable
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.script import Script
from limiter_redis.session.tracker import Hub
from limiter_redis.transport.sync_transport import UNAVAILABLE, store_error

_PAUSE = 0.02
_LONGEST_PAUSE = 0.2
_MOVES = 3
"""Redirections of a call that are followed at once; then the nodes do not agree, and it waits."""

CLOSED_SLOT = """\
do -- Is the slot on its way to another node? Then this key, which nobody has, is not ours to see.
  local seen = redis.pcall('EXISTS', KEYS[1] .. '}:none')
  if type(seen) == 'table' and seen.err then
    return redis.error_reply('TRYAGAIN the slot is on its way to another node')
  end
end
"""


@functools.lru_cache(maxsize=16)
def in_slots(script: Script) -> Script:
    """Return the script as it goes to the nodes of a cluster."""
    return Script.of(CLOSED_SLOT + script.text.decode())


class Tries:
    """How often a call was sent, and until when it may be sent again.

    Args:
        give_up_at: when the caller's patience ends, on the caller's clock.
    """

    __slots__ = ("_failed", "_moves", "give_up_at")

    def __init__(self, give_up_at: float) -> None:
        self.give_up_at = give_up_at
        self._moves = 0
        self._failed = 0

    def pause_after(self, error: Exception, now: float) -> float | None:
        """Return the seconds after which to send it again, None for never."""
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


def passes(error: Exception) -> bool:
    """Whether what a node said, or that it could not be reached, is likely to pass."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    return isinstance(error, (AskError, *UNAVAILABLE))


def failure(
    error: Exception, where: str, operations: Sequence[protocol.Operation] = ()
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


class MinReplicas(NamedTuple):
    """How many replicas have to have a grant before it counts, and how long they may take."""

    least: int
    timeout: float

    def command(self) -> tuple[str, int, int]:
        """Return what asks for it, behind the step on its connection."""
        return "WAIT", self.least, max(1, round(self.timeout * 1000))

    def missed(self, confirmed: int) -> StoreUnavailable:
        """Return what a caller hears whose grant is not safe."""
        return StoreUnavailable(
            f"only {confirmed} of {self.least} replicas confirmed the grant within "
            f"{self.timeout} s; it was given back"
        )


def checked_min_replicas(given: object) -> MinReplicas | None:
    """Return what a user asks for.

    Raises:
        ConfigurationError: it is no pair of a number of 1 or more and seconds.
    """
    if given is None:
        return None
    match given:
        case (int(count), int() | float() as timeout) if count >= 1 and timeout > 0:
            return MinReplicas(count, float(timeout))
        case _:
            raise ConfigurationError(
                "min_replicas is a pair: how many replicas (1 or more), and the seconds they may "
                f"take, as in (1, 0.1); got {given!r}"
            )


def min_replicas_of(query: dict[str, str]) -> tuple[int, float] | None:
    """Return what a URL asks for.

    Raises:
        ConfigurationError: these are no numbers, or there is a timeout alone.
    """
    if not query:
        return None
    try:
        return int(query["min_replicas"]), float(query.get("min_replicas_timeout", "0.1"))
    except (KeyError, ValueError):
        raise ConfigurationError(
            "a URL asks for replicas by min_replicas=1&min_replicas_timeout=0.1 (in seconds), got "
            f"{query!r}"
        ) from None


class Grants(NamedTuple):
    """What a reply grants to the calling process.

    Attributes:
        places: of the operations that got slots.
        waiters: ids, as the script writes them, of waiters who were handed some.
    """

    places: list[int]
    waiters: list[str]


def grants_of(operations: Sequence[protocol.Operation], lines: Sequence[str]) -> Grants | None:
    """Return what a reply of the script grants, None if it grants nothing."""
    places = [
        place
        for place, operation in enumerate(operations)
        if lines[place].startswith("granted ") and operation.text.split(" ", 3)[2] != "look"
    ]
    news = [line.split(" ", 3) for line in lines[len(operations) :] if line.startswith("answer ")]
    waiters = [words[1] for words in news if words[2] == "granted"]
    return Grants(places, waiters) if places or waiters else None


def give_back(
    operations: Sequence[protocol.Operation], lines: list[str], grants: Grants, hub: Hub
) -> list[protocol.Operation]:
    """Return the releases of what replicas did not confirm.

    The waiters among them are told to look again, in `lines`: they keep their places by their
    arrival orders.
    """
    releases = [protocol.give_back(operations[place]) for place in grants.places]
    for word in grants.waiters:
        live = hub.live.get(unquote(word))
        if live is not None:  # else its release is on its way
            releases.append(protocol.release(unquote(word), live.key))
        for place, line in enumerate(lines):
            if line.startswith(f"answer {word} granted "):
                lines[place] = f"answer {word} look"
    return releases
