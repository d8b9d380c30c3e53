"""Names of limits: how events, metrics, logs and operators call a limit. Never part of a key.

Keys are unbounded, names are as many as there are limits in the code. A limit has the `name` that
it was given, or else the one that its strategy says of itself (`strategies.name_parts`).
"""

from __future__ import annotations

import itertools
import logging

from limiter_core.arguments import ArgumentView
from limiter_core.limits import ConcurrencyLimit
from limiter_core.requests import Demand

__all__ = ("MAX_COUNTED", "OTHER", "counted_name", "counted_names", "name_at", "name_of")

logger = logging.getLogger("limiter")

MAX_COUNTED = 100
"""Names that one process counts separately."""

OTHER = "other"
"""What is counted in place of all further names."""

_counted: dict[str, tuple[str]] = {}
"""For each name that counts, and for the first that does not, what is counted in its place."""
_numbers = itertools.count()


def name_of(limit: ConcurrencyLimit, view: ArgumentView) -> str:
    """Return the name of a limit for a call; most limits have the same for all calls."""
    fixed = limit.fixed_name
    return limit.name_for(view.function_name) if fixed is None else fixed


def name_at(demands: tuple[Demand, ...], key: str) -> str:
    """Return the name of the limit that demands slots of a key, empty if none does."""
    for demand in demands:
        if demand.key == key:
            return demand.name
    return ""


def counted_name(name: str) -> str:
    """Return the name under which events and metrics count a limit.

    The first `MAX_COUNTED` names of a process are counted separately, all further ones as `OTHER`:
    a name that contains values (`LIMIT_BY.constant(f"user-{id}")`) must not make a time series for
    each of them.
    """
    return counted_names(name)[0]


def counted_names(name: str) -> tuple[str]:
    """Return the names of a call under one limit: for most calls a tuple that is there already."""
    found = _counted.get(name)
    if found is None:
        if len(_counted) > MAX_COUNTED:
            return (OTHER,)
        # Of two threads with a new name each, none gets the number of the other.
        rank = next(_numbers)
        found = _counted.setdefault(name, (name,) if rank < MAX_COUNTED else (OTHER,))
        if rank == MAX_COUNTED and found == (OTHER,):
            logger.warning(
                "this process has limits of more than %s names; from %r on they are counted as %r. "
                "Give a limit a name of its own where its strategy contains values",
                MAX_COUNTED,
                name,
                OTHER,
            )
    return found
