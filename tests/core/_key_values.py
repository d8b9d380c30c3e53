"""Values of types that may, or may not, stand in a key; and the key of a value."""

from __future__ import annotations

import dataclasses
import zoneinfo

from pydantic import BaseModel, SecretStr

from limiter_core import (
    ConcurrencyLimit,
    SyncLimiter,
)

KEYS = SyncLimiter()

LIMIT = ConcurrencyLimit("value")

BERLIN, PARIS = zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("Europe/Paris")


def key(value: object) -> str:
    return KEYS.key_for(LIMIT, {"value": value})


class Masked(BaseModel):
    user: str
    key: SecretStr


@dataclasses.dataclass
class Box:
    x: object


def same(*values: object) -> bool:
    return len({key(value) for value in values}) == 1


def apart(*values: object) -> bool:
    return len({key(value) for value in values}) == len(values)


# -- what is refused -------------------------------------------------------------------------------


class Nameless:
    pass


class Printable:
    def __str__(self) -> str:
        return "printable"


class Exact(float):
    """As numpy's `float64`."""

    def __str__(self) -> str:
        return "a float"

    __repr__ = __str__
