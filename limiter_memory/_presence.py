"""The workers of each gate's name, and until when each counts as present (S17)."""

from __future__ import annotations

from limiter_core.requests import PRESENCE, Presence

_LASTS = round(PRESENCE * 1_000_000)
_REMEMBERED = 60_000_000
"""How long a worker that is gone is remembered beside others, in microseconds."""


class Presences:
    """The workers of each name. Times are microseconds."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, dict[str, int]] = {}

    def until(self, name: str) -> int:
        """Return when the name will be absent unless a worker is seen again; 0 if none ever was."""
        workers = self._names.get(name)
        return max(workers.values()) if workers else 0

    def has(self, name: str, now: int) -> bool:
        """Whether a worker of the name is present. Without a name it is always true."""
        return not name or self.until(name) > now

    def knows(self, presence: Presence, now: int) -> bool:
        """Whether this very worker is there."""
        return self._names.get(presence.name, {}).get(presence.worker, 0) > now

    def note(self, presence: Presence, now: int) -> bool:
        """Note that a worker was seen, or leaves; whether its name came or went by that."""
        was_there = self.has(presence.name, now)
        workers = self._names.setdefault(presence.name, {})
        if not presence.leaving:
            workers[presence.worker] = now + _LASTS
        elif workers.get(presence.worker, now + 1) > now:
            workers[presence.worker] = now
        latest = max(workers.values())
        for worker in [w for w, until in workers.items() if until < now - _REMEMBERED]:
            if workers[worker] < latest:
                del workers[worker]
        return self.has(presence.name, now) is not was_there
