"""Groups: the colour, the letter and the name that distinguish calls for a reader."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from limiter_cli.demo.plan import Planned
from limiter_cli.output import printable

__all__ = ("Group", "Groups", "plain")

# Readable as blocks on black and on white.
_COLOURS = (
    "#4c8dd6",
    "#e08a2e",
    "#3fa66b",
    "#b667c9",
    "#c9a227",
    "#d65b5b",
    "#3ca7b5",
    "#8a7bdc",
    "#8a9a3a",
    "#c56a94",
)
_OTHERS = "#8a8f98"
_NAME_LENGTH = 24
_NAMED = re.compile(r"(?:^|[/&,])([^=/&,]+)=")  # the grammar of keys is that of `limiter_core.keys`


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that look alike: of one tenant, or of one function.

    Attributes:
        name: what they have in common.
        letter: one character, of this group alone; a star for all groups beyond the tenth.
        colour: `#rrggbb`, likewise.
    """

    name: str
    letter: str
    colour: str


class Groups:
    """Which group each call belongs to.

    Attributes:
        by: the argument whose values make the groups; None where the functions do.
        shown: the groups, those with most calls first; at most ten and one for all others.
    """

    def __init__(self, calls: Sequence[Planned], by: str | None) -> None:
        self.by = by
        counts = Counter(self._name(planned) for planned in calls)
        self._groups: dict[str, Group] = {}
        self.shown: list[Group] = []
        for (name, _), colour in zip(_most_common(counts), _COLOURS, strict=False):
            group = Group(name, self._letter_for(name), colour)
            self._groups[name] = group
            self.shown.append(group)
        self._other = Group("others", "*", _OTHERS)
        if len(counts) > len(self.shown):
            self.shown.append(self._other)

    @classmethod
    def of(cls, calls: Sequence[Planned], by: str | None = None) -> Groups:
        """Group calls by an argument; without one, by the argument that most of the limits name.

        The keys show which one that is: `tenant=acme` names `tenant`.
        """
        if by is None:
            named: Counter[str] = Counter()
            for planned in calls:
                for claim in planned.claims:
                    named.update(_NAMED.findall(claim.key))
            by = max(named, key=lambda name: named[name], default=None)
        return cls(calls, by)

    def __getitem__(self, planned: Planned) -> Group:
        return self._groups.get(self._name(planned), self._other)

    def _name(self, planned: Planned) -> str:
        if self.by is None:
            return plain(planned.call.function)
        return plain(f"{planned.view.get(self.by, f'no {self.by}')}")

    def _letter_for(self, name: str) -> str:
        taken = {group.letter for group in self.shown}
        wanted = [c for c in name if c.isascii() and c.isalnum()]
        return next(c for c in wanted + list(string.ascii_letters) if c not in taken)


def plain(text: str) -> str:
    """Return a name from a file as a reader can be shown it: printable and short."""
    seen = printable(text)
    return seen if len(seen) <= _NAME_LENGTH else f"{seen[: _NAME_LENGTH - 1]}…"


def _most_common(counts: Counter[str]) -> list[tuple[str, int]]:
    """Return the counts, highest first, by name where they are equal: the same on every run."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
