"""How many replicas have to have a grant before it counts (`min_replicas`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError, StoreUnavailable
from limiter_redis.protocol import commands


class MinReplicas(NamedTuple):
    """How many replicas have to have a grant before it counts, and how long they may take."""

    least: int
    timeout: float

    def command(self) -> tuple[str, int, int]:
        """Return what asks for it, behind the step on its connection."""
        return "WAIT", self.least, max(1, round(self.timeout * 1000))

    def missed(self, confirmed: int) -> StoreUnavailable:
        """Return what a caller receives whose grant is not safe."""
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
                f"take, as in (1, 0.1); got {brief(given)}"
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
            "a URL asks for replicas by min_replicas=1&min_replicas_timeout=0.1 (in seconds)"
        ) from None


class Grants(NamedTuple):
    """What a reply grants to the calling process.

    Attributes:
        positions: those of the operations that got slots.
        waiters: ids, as the script writes them, of waiters that were handed some.
    """

    positions: list[int]
    waiters: list[str]


def grants_of(operations: Sequence[commands.Operation], lines: Sequence[str]) -> Grants | None:
    """Return what a reply of the script grants, None if it grants nothing."""
    positions = [
        position
        for position, operation in enumerate(operations)
        if lines[position].startswith("granted ") and operation.text.split(" ", 3)[2] != "look"
    ]
    news = [line.split(" ", 3) for line in lines[len(operations) :] if line.startswith("answer ")]
    waiters = [words[1] for words in news if words[2] == "granted"]
    return Grants(positions, waiters) if positions or waiters else None


def give_back(
    operations: Sequence[commands.Operation],
    lines: list[str],
    grants: Grants,
    key_of_request: Callable[[str], str | None],
) -> list[commands.Operation]:
    """Return the releases of what replicas did not confirm.

    What this process has to know is added to `lines`. The waiters among them are notified to look
    again: they keep their places by their arrival orders. A lease that the reply grants is lost,
    though news of its grant may have come before, or may come still.
    """
    releases = [commands.give_back(operations[each]) for each in grants.positions]
    for position in grants.positions:
        _, word, mode, _ = operations[position].text.split(" ", 3)
        if mode != "reclaim":  # it is held meanwhile, and asked for again
            lines.append(f"lost {word} given-back {lines[position].split(' ')[1]}")
    for word in grants.waiters:
        found = key_of_request(unquote(word))
        if found is not None:  # else its release is on its way
            releases.append(commands.release(unquote(word), found))
        for position, line in enumerate(lines):
            if line.startswith(f"answer {word} granted "):
                lines[position] = f"answer {word} look"
    return releases
