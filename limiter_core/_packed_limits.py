"""The first part of a ticket's payload: its keys, each with the name of its limit."""

from __future__ import annotations


def packed_limits(limits: tuple[tuple[str, str], ...]) -> bytes:
    """Return keys, each with the name of its limit, as the payload of a ticket begins with them.

    Neither a key nor a name has control characters.
    """
    return "\x1e".join(map("\x1f".join, limits)).encode()


def unpacked_limits(packed: bytes) -> tuple[tuple[str, str], ...]:
    """Return what was packed; an earlier version packed the first key alone."""
    found = [each.partition("\x1f") for each in packed.decode().split("\x1e")]
    return tuple((key, name) for key, _, name in found)
