"""The policies of a memory store, and its log of changes (S22, S23). Times in microseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from limiter_core.policies import CHANGES_KEPT, Change, Policy, parsed_number
from limiter_core.requests import Demand, Request

Kind = Literal["limit", "pause"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy, and when it ends; None: when it is reset."""

    policy: Policy
    ends: int | None


class Policies:
    """What is in force for names, and the log."""

    def __init__(self) -> None:
        self.settings: dict[tuple[str, Kind], Setting] = {}
        self.changes: deque[Change] = deque(maxlen=CHANGES_KEPT)

    def change(self, change: Change, now: int) -> Change:
        """Carry out a change of a name, and log it; returns the entry."""
        self._drop_ended(now)
        kind: Kind = "pause" if change.action in ("pause", "resume") else "limit"
        place = change.name, kind
        before = self.settings.get(place)
        at = now / 1e6
        if change.action in ("reset", "resume"):
            self.settings.pop(place, None)
        else:
            limit, percent = (None, None) if kind == "pause" else parsed_number(change.new)
            lasts = change.lasts
            ends = None if lasts is None else now + round(lasts * 1e6)
            policy = Policy(change.name, limit, percent, change.by, change.reason, at)
            self.settings[place] = Setting(policy, ends)
        return self.log(replace(change, old="" if before is None else before.policy.value), now)

    def log(self, change: Change, now: int) -> Change:
        """Add a change to the log; returns the entry."""
        entry = replace(change, at=now / 1e6)
        self.changes.appendleft(entry)
        return entry

    def in_force(self, now: int) -> tuple[Policy, ...]:
        """Return the policies in force, in the order of their names; of a name the pause last."""
        self._drop_ended(now)
        return tuple(
            setting.policy
            if setting.ends is None
            else replace(
                setting.policy, ends_at=setting.ends / 1e6, ends_in=(setting.ends - now) / 1e6
            )
            for _, setting in sorted(self.settings.items())
        )

    def judged(self, demands: tuple[Demand, ...], now: int) -> tuple[Demand, ...]:
        """Return demands with the numbers in force; the same tuple if no policy is for them.

        A number below the cost of a call admits it as little as 0, and counts as 0: a call is
        refused for its cost only by what the code declares (S8).
        """
        found = tuple(self._judged(demand, now) for demand in demands)
        return demands if found == demands else found

    def _judged(self, demand: Demand, now: int) -> Demand:
        pause = self._setting(demand.name, "pause", now)
        setting = pause or self._setting(demand.name, "limit", now)
        if setting is None or demand.cost > demand.limit > 0:
            return demand
        number = setting.policy.number(demand.limit)
        return demand._replace(limit=number if number >= demand.cost else 0)

    def next_end(self, demands: Sequence[Demand], now: int) -> int | None:
        """Return when the next policy of these demands ends; None: none does by itself."""
        ends = [
            setting.ends
            for demand in demands
            for kind in _KINDS
            if (setting := self._setting(demand.name, kind, now)) and setting.ends is not None
        ]
        return min(ends, default=None)

    def applied(self, request: Request, now: int) -> Request:
        """Return a request as it is judged."""
        demands = self.judged(request.demands, now)
        return request if demands is request.demands else request._replace(demands=demands)

    def _setting(self, name: str, kind: Kind, now: int) -> Setting | None:
        setting = self.settings.get((name, kind))
        if setting is None or (setting.ends is not None and setting.ends <= now):
            return None
        return setting

    def _drop_ended(self, now: int) -> None:
        for place, setting in list(self.settings.items()):
            if setting.ends is not None and setting.ends <= now:
                del self.settings[place]


_KINDS: tuple[Kind, ...] = ("limit", "pause")
