"""The plan of a replay: each call with its limits, and what it will claim of which key.

Everything a call could fail on because of the input is found here, before the clock starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from limiter_cli.demo.calls import Call
from limiter_cli.demo.inputs import InputError, Problem
from limiter_core import (
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    KeyDerivationError,
    SyncLimiter,
)

__all__ = ("CallView", "Claim", "Planned", "plan")


class CallView(ArgumentView):
    """The argument view of a call from the log.

    Attributes:
        priority: what the log says; no argument, so that no strategy finds it by accident.
    """

    __slots__ = ("priority",)

    def __init__(self, call: Call) -> None:
        super().__init__(call.arguments, call.function)
        self.priority = call.priority


class Claim(NamedTuple):
    """What a call wants of one key.

    Attributes:
        key: the key's text.
        cost: slots.
        limit: the slots that the call's own limit gives the key.
    """

    key: str
    cost: int
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """One call of the log, ready to be made.

    Attributes:
        place: its number in the order of the calls, from 0.
        line: its line in the log.
        call: the line itself.
        limits: the limits of its function; none, where no table names it.
        claims: one for each limit.
        view: what the limiter sees of it.
    """

    place: int
    line: int
    call: Call
    limits: tuple[ConcurrencyLimit, ...]
    claims: tuple[Claim, ...]
    view: CallView = field(repr=False)


def plan(
    calls: Sequence[tuple[int, Call]],
    limits: Mapping[str, tuple[ConcurrencyLimit, ...]],
    path: Path,
) -> list[Planned]:
    """Bring calls and limits together.

    Args:
        calls: line numbers and calls.
        limits: the limits of each function.
        path: the log, for messages.

    Raises:
        InputError: names each line whose arguments do not fit the limits of its function.
    """
    # On a store of its own: `inspect` returns key and limit of a call without making it.
    inspector = SyncLimiter("memory://")
    planned: list[Planned] = []
    problems: list[Problem] = []
    for line, call in calls:
        view = CallView(call)
        its_limits = limits.get(call.function, ())
        try:
            claims = tuple(_claim(inspector, limit, view) for limit in its_limits)
            _check_distinct(claims)
        except (ConfigurationError, KeyDerivationError) as error:
            problems.append((line, str(error)))
        else:
            planned.append(Planned(len(planned), line, call, its_limits, claims, view))
    if problems:
        raise InputError(path, problems)
    return planned


def _claim(inspector: SyncLimiter, limit: ConcurrencyLimit, view: CallView) -> Claim:
    snapshot = inspector.inspect(limit, view)
    cost: Any = limit.cost(view) if callable(limit.cost) else limit.cost
    return Claim(snapshot.key, cost, snapshot.limit)


def _check_distinct(claims: Sequence[Claim]) -> None:
    keys = [claim.key for claim in claims]
    if len(set(keys)) < len(keys):
        raise ConfigurationError(
            f"the limits of one function need a key each, got {', '.join(map(repr, keys))}: "
            "give one of them another by, or a scope"
        )
