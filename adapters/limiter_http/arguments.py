"""Arguments of a request for its strategies: none is read or parsed that no strategy asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from limiter_core import KeyDerivationError

__all__ = ("ReadArguments", "Readers", "Reasons")

Readers = Mapping[str, Callable[[Any], Any]]
"""For each name, what reads an argument from a source; None if the source has none."""

Reasons = Mapping[str, str]
"""For each name, why a source may have none."""

_MISSING: Any = object()


class ReadArguments(Mapping[str, Any]):
    """Arguments by name, each read from its source when it is asked for.

    Args:
        source: what the readers get.
        first: more arguments, which go before those of the readers.
        last: more arguments, which come behind them.

    Attributes:
        owner: what has the arguments, for the error.
        readers: the arguments that a source has.
        why_not: why a source may not have them.
    """

    __slots__ = ("_first", "_last", "_source")

    owner: ClassVar[str] = "a request"
    readers: ClassVar[Readers]
    why_not: ClassVar[Reasons] = {}

    def __init__(
        self, source: Any, first: Mapping[str, Any] = {}, last: Mapping[str, Any] = {}
    ) -> None:
        self._source = source
        self._first = first
        self._last = last

    def __getitem__(self, name: str) -> Any:
        value = self._find(name)
        if value is not _MISSING:
            return value
        if name not in self.why_not:
            raise KeyError(name)
        raise KeyDerivationError(
            f"{self.owner} has no argument {name!r} here: {self.why_not[name]}; "
            f"there are: {', '.join(sorted(self))}"
        )

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        return filter(self.__contains__, dict.fromkeys((*self._first, *self.readers, *self._last)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _find(self, name: str) -> Any:
        if name in self._first:
            return self._first[name]
        read = self.readers.get(name)
        if read is None:
            return self._last.get(name, _MISSING)
        value = read(self._source)
        return _MISSING if value is None else value
