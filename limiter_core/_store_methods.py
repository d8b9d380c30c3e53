"""Methods that a store may lack which was written before they were in the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from inspect import signature
from typing import Any

from limiter_core.store import AsyncStore, SyncStore


def methods_in_background(
    face: SyncStore | AsyncStore,
) -> tuple[Callable[[str, Sequence[str], str], None], Callable[[str, str], None]]:
    """Return `abandon` and `let_expire` of a store.

    A store that was written before they were in the protocol has neither: there a lease whose
    caller was interrupted, or forgot it, is left to its end. One that does not know which delivery
    of a job is meant is asked to abandon none, for it might take the slot from the next one; it
    lets a lease expire by the id alone.
    """

    def leave_to_its_end(*_: object) -> None:
        pass

    abandon: Callable[..., None] = getattr(face, "abandon", leave_to_its_end)
    let_expire: Callable[..., None] = getattr(face, "let_expire", leave_to_its_end)

    def abandon_no_job(lease_id: str, keys: Sequence[str], claimant: str) -> None:
        if not claimant:
            abandon(lease_id, keys)

    return (
        abandon if _takes(abandon, "claimant") else abandon_no_job,
        let_expire if _takes(let_expire, "claimant") else lambda lease_id, _: let_expire(lease_id),
    )


def release_of_jobs(face: SyncStore | AsyncStore) -> Callable[[str, Sequence[str], str], Any]:
    """Return `release_claim` of a store.

    A store that was written before it was in the protocol releases by the id alone.
    """
    return getattr(face, "release_claim", lambda lease_id, keys, _: face.release(lease_id, keys))


def bounded_inspect(face: SyncStore | AsyncStore) -> Callable[[str, float | None], Any]:
    """Return `inspect` of a store, with a deadline.

    A store that was written before the deadline was in the protocol has its own bounds only.
    """
    if _takes(face.inspect, "deadline"):
        return face.inspect
    return lambda key, _: face.inspect(key)


def paced_keys(face: AsyncStore, after_slice: Callable[[], Awaitable[None]]) -> AsyncIterator[str]:
    """Return `keys` of a store, which pauses between its slices.

    A store that was written before that was in the protocol searches without a pause.
    """
    if _takes(face.keys, "after_slice"):
        return face.keys(after_slice=after_slice)
    return face.keys()


def _takes(method: Callable[..., Any], argument: str) -> bool:
    return argument in _parameters(getattr(method, "__func__", method))


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(signature(function).parameters)
