"""The policies of a name, as calls and tickets carry them; see `lua/policies.lua`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from limiter_core.policies import Policy, number_of

__all__ = ("NONE", "Known", "known_of", "policy_words")

NONE = "-"
"""In place of the policy of a name that has none."""


def policy_words(policies: Iterable[Policy]) -> str:
    """Return the policies of one name as one word: `pause,value,end`; `-` for none."""
    pause, value, ends = "-", "-", "0"
    for policy in policies:
        end = "0" if policy.ends_at is None else str(round(policy.ends_at * 1e6))
        if policy.paused:
            pause = end
        else:
            value, ends = policy.value, end
    return NONE if pause == value == "-" else f"{pause},{value},{ends}"


class Known(NamedTuple):
    """The policies of one name, as a process knows them.

    Attributes:
        policies: one or two.
        words: the same for the script.
        ends: when each ends, on the local clock.
    """

    policies: tuple[Policy, ...]
    words: str
    ends: tuple[float, ...]

    def limit_word(self, declared: int, cost: int, now: float) -> str:
        """Return a limit as a call sends it: what the policies make of it, and themselves."""
        name = self.policies[0].name
        lasting = [p for p, end in zip(self.policies, self.ends, strict=True) if now < end]
        number = number_of(lasting, name, declared)
        if cost > declared > 0:
            return str(declared)  # refused, whatever an operator says
        return f"{number if number >= cost else 0}|{declared}|{self.words}"


def known_of(policies: Iterable[Policy], read_at: float) -> dict[str, Known]:
    """Return policies by their names.

    Args:
        policies: what was read.
        read_at: when it was asked for, on the local clock: no later than the store's `now`.
    """
    by_name: dict[str, list[Policy]] = {}
    for policy in policies:
        by_name.setdefault(policy.name, []).append(policy)
    return {
        name: Known(
            tuple(some),
            policy_words(some),
            tuple(math.inf if each.ends_in is None else read_at + each.ends_in for each in some),
        )
        for name, some in by_name.items()
    }
