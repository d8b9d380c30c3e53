"""Choices that the rules leave open, as a plan says."""

from __future__ import annotations


class Choices:
    """Chooses as planned, then the first; remembers the alternatives."""

    def __init__(self, plan: list[int]) -> None:
        self._plan = plan
        self._made: list[int] = []
        self._counts: list[int] = []

    def choose(self, count: int) -> int:
        """Return one of `count` choices."""
        position = len(self._made)
        self._made.append(self._plan[position] if position < len(self._plan) else 0)
        self._counts.append(count)
        return self._made[-1]

    def alternatives(self) -> list[list[int]]:
        """Return the plans that differ from what was chosen beyond the plan."""
        return [
            [*self._made[:position], choice]
            for position in range(len(self._plan), len(self._made))
            for choice in range(1, self._counts[position])
        ]
