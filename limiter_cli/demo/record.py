"""The record of a replay: which call held what when, counted by its own rules.

It gets the events of calls (arrive, begin, end, leave), and never asks the store: so it finds when
a store let too many in.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from limiter_cli.demo.plan import Claim, Planned

__all__ = ("UNHAPPY", "Excess", "KeyRecord", "Outcome", "Record", "Turn", "percentile")


class Outcome(enum.Enum):
    """How a call ended."""

    RAN = "ran"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    SUPERSEDED = "superseded"
    CUT_SHORT = "cut short"


UNHAPPY = (Outcome.REFUSED, Outcome.TIMED_OUT, Outcome.SUPERSEDED, Outcome.CUT_SHORT)
"""The ways to end that are not a body run to its end."""

_AT_ONCE = 0.001
"""Seconds that getting a free slot may take; no waiting that a reader should see."""


@dataclass(slots=True, eq=False)
class Turn:
    """What became of one call. Times are seconds of the log; None for what did not happen.

    Attributes:
        planned: the call.
        arrived_at: when it asked for its slots.
        began_at: when it had them.
        ended_at: when its body was over; a moment later its slots were free.
        left_at: when all was over, whichever way.
        outcome: which way.
        key: the key that refused or superseded it.
        lanes: for each key it held, the numbers of its slots, from 0.
    """

    planned: Planned
    arrived_at: float
    began_at: float | None = None
    ended_at: float | None = None
    left_at: float | None = None
    outcome: Outcome | None = None
    key: str | None = None
    lanes: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    def waited(self, until: float) -> float:
        """Return the seconds it waited for its slots, or waits already at `until`."""
        for end in (self.began_at, self.left_at):
            if end is not None:
                return end - self.arrived_at
        return until - self.arrived_at


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit was exceeded.

    Attributes:
        key: on this key,
        in_use: with so many slots in use,
        turn: when this call began.
    """

    key: str
    in_use: int
    turn: Turn

    @property
    def limit(self) -> int:
        """The limit that the call declared."""
        return next(claim.limit for claim in self.turn.planned.claims if claim.key == self.key)


@dataclass(slots=True, eq=False)
class KeyRecord:
    """All about one key.

    Attributes:
        key: its text.
        limits: the numbers of slots that calls declared it to have.
        turns: its calls, in order of arrival.
        in_use: slots in use now.
        peak: the most that ever were.
    """

    key: str
    limits: set[int] = field(default_factory=set[int])
    turns: list[Turn] = field(default_factory=list[Turn])
    in_use: int = 0
    peak: int = 0
    _taken: list[bool] = field(default_factory=list[bool])

    def take(self, cost: int) -> tuple[int, ...]:
        """Count slots in; return the lowest numbers that were free."""
        self.in_use += cost
        self.peak = max(self.peak, self.in_use)
        self._taken += [False] * (self.in_use - len(self._taken))
        free = [lane for lane, taken in enumerate(self._taken) if not taken]
        lanes = tuple(free[:cost])
        for lane in lanes:
            self._taken[lane] = True
        return lanes

    def give(self, lanes: Sequence[int]) -> None:
        """Count slots out."""
        self.in_use -= len(lanes)
        for lane in lanes:
            self._taken[lane] = False

    def waits(self) -> list[float]:
        """Return how long each call that got its slots waited for them, in seconds, ascending."""
        return sorted(turn.waited(0) for turn in self.turns if turn.began_at is not None)

    def ended_as(self, *outcomes: Outcome) -> list[Turn]:
        """Return the calls that ended in these ways: because of this key, where one key is why."""
        return [
            turn for turn in self.turns if turn.outcome in outcomes and turn.key in (None, self.key)
        ]

    def waiting_steps(self, least: float) -> list[tuple[float, float, int]]:
        """Return how many calls waited: (from, until, how many), without the times of none.

        Args:
            least: seconds a step must last to be worth showing. A call that takes the place of
                another waits beside it for a moment.
        """
        changes: list[tuple[float, int]] = []
        for turn in self.turns:
            seconds = turn.waited(turn.arrived_at)
            if seconds > _AT_ONCE:
                changes += [(turn.arrived_at, 1), (turn.arrived_at + seconds, -1)]
        changes.sort()
        steps: list[tuple[float, float, int]] = []
        count = 0
        for (at, change), (until, _) in itertools.pairwise(changes):
            count += change
            if count and until - at > least:
                steps.append((at, until, count))
        return steps

    def load(self) -> float:
        """Return the seconds that calls held slots and waited: how busy the key was."""
        seconds = 0.0
        for turn in self.turns:
            seconds += turn.waited(turn.arrived_at)
            if turn.began_at is not None and turn.ended_at is not None:
                seconds += (turn.ended_at - turn.began_at) * len(turn.lanes[self.key])
        return seconds


class Record:
    """What happened, call by call and key by key.

    Attributes:
        turns: every call that arrived, in that order.
        keys: every key that a call claimed, in order of first arrival.
        excesses: every time a limit was exceeded.
        lasted: when the last call left, in seconds of the log.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.keys: dict[str, KeyRecord] = {}
        self.excesses: list[Excess] = []
        self.lasted = 0.0

    def arrived(self, planned: Planned, at: float) -> Turn:
        """Note that a call asks for its slots."""
        turn = Turn(planned, at)
        self.turns.append(turn)
        for claim in planned.claims:
            key = self.keys.setdefault(claim.key, KeyRecord(claim.key))
            key.limits.add(claim.limit)
            key.turns.append(turn)
        return turn

    def began(self, turn: Turn, at: float) -> None:
        """Note that a call has its slots; judge whether there was room for it."""
        turn.began_at = at
        for claim in turn.planned.claims:
            key = self.keys[claim.key]
            turn.lanes[claim.key] = key.take(claim.cost)
            self._judge(claim, key, turn)

    def ended(self, turn: Turn, at: float) -> None:
        """Note that a call's body is over, before it releases its slots."""
        turn.ended_at = at
        for key, lanes in turn.lanes.items():
            self.keys[key].give(lanes)

    def left(self, turn: Turn, at: float, outcome: Outcome, key: str | None = None) -> None:
        """Note how it all ended."""
        turn.left_at = at
        turn.outcome = outcome
        turn.key = key
        self.lasted = max(self.lasted, at)

    def count(self, outcome: Outcome) -> int:
        """Return how many calls ended this way."""
        return sum(turn.outcome is outcome for turn in self.turns)

    def busiest(self) -> list[KeyRecord]:
        """Return all keys: those whose limit was exceeded, then the busiest first."""
        exceeded = {excess.key for excess in self.excesses}
        return sorted(
            self.keys.values(), key=lambda key: (key.key not in exceeded, -key.load(), key.key)
        )

    def _judge(self, claim: Claim, key: KeyRecord, turn: Turn) -> None:
        if key.in_use > claim.limit:
            self.excesses.append(Excess(claim.key, key.in_use, turn))


def percentile(ascending: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile: the least value that so many percent do not exceed."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]
