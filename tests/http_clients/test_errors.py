"""Errors of a limiter that also are errors of the client: made, copied, and not made twice."""

from __future__ import annotations

import copy
import pickle

import aiohttp
import httpx
import pytest

from limiter_core import (
    Evicted,
    KeyDerivationError,
    LeaseLost,
    LimiterError,
    LimitReached,
    Preempted,
    QueueFull,
    WaitTimeout,
)
from limiter_http.errors import ErrorClasses, client_error

CLASSES: dict[str, ErrorClasses] = {
    "httpx": {LimitReached: httpx.PoolTimeout, LeaseLost: httpx.ReadError},
    "aiohttp": {
        LimitReached: aiohttp.ConnectionTimeoutError,
        LeaseLost: aiohttp.ClientPayloadError,
    },
}

ERRORS: list[LimiterError] = [
    LimitReached("host=a", 3, 3, 1.5),
    WaitTimeout("host=a", 3, 3),
    QueueFull("host=a", 3, 3),
    Evicted("host=a", 3, 3),
    LeaseLost("7", ["host=a"], "it was evicted"),
    Preempted("7", ["host=a"], "a newer call took the slot"),
]


@pytest.mark.parametrize("client", CLASSES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_is_both_and_survives_copies(client: str, error: LimiterError) -> None:
    classes = CLASSES[client]
    also = next(each for kind, each in classes.items() if isinstance(error, kind))
    both = client_error(error, classes)
    assert isinstance(both, type(error))
    assert isinstance(both, also)
    assert str(both) == str(error)
    both.noted = "in flight"  # type: ignore[attr-defined]
    for other in (copy.copy(both), pickle.loads(pickle.dumps(both))):
        assert type(other) is type(both)
        assert vars(other) == vars(both)


def test_is_made_once() -> None:
    both = client_error(ERRORS[0], CLASSES["httpx"])
    assert client_error(both, CLASSES["httpx"]) is both


def test_others_stay_what_they_are() -> None:
    error = KeyDerivationError("no such argument")
    assert client_error(error, CLASSES["httpx"]) is error
