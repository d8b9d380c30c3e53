"""Copies of limiters, in this process and in others."""

from __future__ import annotations

from typing import Any, Self, cast

from limiter_core._engine import Engine
from limiter_core._operator import Operator

_MADE_AGAIN = ("_face", "_operator")


class Copyable:
    """What `copy` and `pickle` make of a limiter.

    A copy has the same store, so it shares the slots; the original closes that. What is pickled
    comes back with a store of the same URL, or with the store that was given, if that can be sent.
    """

    def __copy__(self) -> Self:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied._use(cast(Any, self)._engine.copied())  # noqa: SLF001  (its own kind)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Slots are out there, and not in the object: no copy could have some of its own.
        copied = memo[id(self)] = self.__copy__()
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _MADE_AGAIN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._use(state["_engine"])

    def _use(self, engine: Engine) -> None:
        face = cast(Any, engine).face
        operator = Operator(engine.store, face)
        self.__dict__.update(_engine=engine, _face=face, _operator=operator)
