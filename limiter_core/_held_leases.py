"""What a waiting call holds, behind its label in the store: others see which calls it blocks.

Only calls that hold something, wait without a timeout, and have done so for a while, carry it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ("HeldLease", "carries_held", "held_in", "with_held", "without_held")

SEPARATOR = "\x1e"
"""Between a label, with its trace, and the leases. No label that a caller gives contains it."""

MAX_LENGTH = 4000
"""Characters. A call that holds more is not announced: nobody sees that others wait for it."""


class HeldLease(NamedTuple):
    """A lease that a waiting call holds.

    Attributes:
        id: of the lease.
        keys: of which it holds slots.
    """

    id: str
    keys: tuple[str, ...]


def with_held(label: str, held: Sequence[HeldLease]) -> str:
    """Return a label that carries leases; the label alone if they are too many."""
    text = json.dumps(held, separators=(",", ":"))
    return label if len(text) > MAX_LENGTH else f"{label}{SEPARATOR}{text}"


def without_held(label: str) -> str:
    """Return a label without the leases that it carries."""
    return label.partition(SEPARATOR)[0]


def carries_held(label: str) -> bool:
    """Whether a label carries leases."""
    return SEPARATOR in label


def held_in(label: str) -> tuple[HeldLease, ...]:
    """Return the leases that a label carries; none if they cannot be read."""
    text = label.partition(SEPARATOR)[2]
    if not text:
        return ()
    try:
        return tuple(HeldLease(str(id_), tuple(map(str, keys))) for id_, keys in json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return ()
