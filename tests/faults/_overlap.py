"""An overlap recorder: what was held at once, by the notes of the holders themselves.

Knows no store and no limiter. Holders note begin and end of each body in files of their own; the
test adds what it did to them, and when. All times are of CLOCK_MONOTONIC, which the processes of a
machine share. `check` counts, per key, what was held at each moment, and lets pass only what the
guarantee lets pass: beyond the limit may run

- a body whose process was frozen, for one lease from when it runs again (while it is frozen it
  does nothing, and is not counted);
- a body that had begun when the server lost its data, or had all leases end at once by a jump of
  its clock, for one lease from then.

A process that is killed explains nothing: its body ends there and then. All else is a violation.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

IN_FLIGHT = 0.25
"""Seconds in which a grant of before a fault may still reach its caller, on a busy machine."""


@dataclass(slots=True)
class Body:
    """One body: its process, its slots, its begin and its end; no token where it cannot know it."""

    process: int
    id: str
    slots: Mapping[str, int]
    token: int | None
    begin: float
    end: float = float("inf")
    lost: bool = False

    def __str__(self) -> str:
        end = "and on" if self.end == float("inf") else f"to {self.end:.4f}"
        return f"process {self.process}, {self.slots}, from {self.begin:.4f} {end}"


@dataclass(frozen=True, slots=True)
class Excuse:
    """A fault, and whose bodies may overlap because of it for one lease.

    Attributes:
        why: the fault's name.
        since: from when on; a lease later it is over.
        begun_before: bodies that began later are not excused.
        process: the only process that it excuses; None for all.
    """

    why: str
    since: float
    begun_before: float
    process: int | None = None

    def covers(self, body: Body) -> bool:
        """Whether this body is one that it excuses."""
        return body.begin < self.begun_before and self.process in (None, body.process)


@dataclass(slots=True)
class History:
    """What a test did, and when."""

    killed: dict[int, float] = field(default_factory=dict)
    frozen: list[tuple[int, float, float]] = field(default_factory=list)
    """Processes, from when they stood still until just before they went on."""
    excuses: list[Excuse] = field(default_factory=list)

    def thawed(self, process: int, since: float, until: float) -> None:
        """Note that a process stood still past its leases; what it holds then is excused."""
        self.frozen.append((process, since, until))
        self.excuses.append(Excuse("frozen", until, since, process))

    def forgot(self, why: str, since: float, until: float) -> None:
        """Note that the store forgot all leases at some moment between these two."""
        self.excuses.append(Excuse(why, since, until + IN_FLIGHT))

    def stood_still(self, process: int, at: float) -> bool:
        """Whether a process was frozen at a moment."""
        return any(each == process and since <= at < until for each, since, until in self.frozen)


@dataclass(slots=True)
class Overlap:
    """What `check` found.

    Attributes:
        violations: moments at which too much ran that nothing excuses, as text.
        peak: per key, the most slots in use at once, excused ones with them.
        used: seconds of excused overlap, per excuse and key.
        reach: seconds from a fault to the end of its last overlap, at the worst.
        allowed: seconds of overlap that each excuse would have allowed, and how many there were.
    """

    violations: list[str] = field(default_factory=list)
    peak: dict[str, int] = field(default_factory=dict)
    used: dict[tuple[Excuse, str], float] = field(default_factory=dict)
    reach: float = 0.0
    allowed: tuple[int, float] = (0, 0.0)

    @property
    def longest(self) -> float:
        """The seconds of overlap on a key after a fault, at the worst."""
        return max(self.used.values(), default=0.0)

    @property
    def faults(self) -> int:
        """After how many faults there was any overlap."""
        return len({excuse for excuse, _ in self.used})


def read(files: Iterable[Path]) -> list[Body]:
    """Return the bodies that holders noted, each in a file named by its process."""
    bodies: list[Body] = []
    for path in files:
        own: dict[str, Body] = {}
        lines = path.read_text(encoding="utf-8").split("\n")
        for line in lines[:-1]:  # what follows the last line break was cut off by a kill
            noted = json.loads(line)
            if noted["what"] == "begin":
                body = Body(
                    int(path.stem), noted["id"], noted["slots"], noted["token"], noted["at"]
                )
                assert body.id not in own, f"a lease began twice: {body}"
                own[body.id] = body
            else:
                own[noted["id"]].end, own[noted["id"]].lost = noted["at"], noted["lost"]
        bodies += own.values()
    return bodies


def check(
    bodies: Iterable[Body], limits: Mapping[str, int], history: History, lease: float
) -> Overlap:
    """Compute what overlapped, and hold it against what is allowed."""
    found = Overlap(allowed=(len(history.excuses), lease))
    by_key: dict[str, list[Body]] = defaultdict(list)
    for body in bodies:
        if body.end == float("inf"):
            body.end = history.killed.get(body.process, float("inf"))
            if body.end == float("inf"):
                found.violations.append(f"never ended: {body}")
        for key in body.slots:
            by_key[key].append(body)
    for key, own in by_key.items():
        _check_key(found, key, own, limit=limits[key], history=history, lease=lease)
        _check_tokens(found, key, own, in_order=limits[key] == 1)
    return found


def _check_key(
    found: Overlap, key: str, bodies: list[Body], *, limit: int, history: History, lease: float
) -> None:
    """Go from change to change: what is in use stays the same between two of them."""
    moments = {body.begin for body in bodies} | {body.end for body in bodies}
    for _, since, until in history.frozen:
        moments |= {since, until}
    for excuse in history.excuses:
        moments |= {excuse.since, excuse.since + lease}
    begins = sorted(bodies, key=lambda body: body.begin)
    running: list[Body] = []
    reported: set[frozenset[str]] = set()
    for at, until in pairwise(sorted(moments)):
        # At one and the same moment, ends come first.
        running = [body for body in running if body.end > at]
        while begins and begins[0].begin <= at:
            running.append(begins.pop(0))
        active = [body for body in running if not history.stood_still(body.process, at)]
        in_use = sum(body.slots[key] for body in active)
        found.peak[key] = max(found.peak.get(key, 0), in_use)
        if in_use <= limit:
            continue
        valid = [each for each in history.excuses if each.since <= at < each.since + lease]
        excused = [body for body in active if any(each.covers(body) for each in valid)]
        if in_use - sum(body.slots[key] for body in excused) > limit:
            names = frozenset(body.id for body in active)
            if names not in reported:
                reported.add(names)
                found.violations.append(
                    f"{key!r}: {in_use} of {limit} slots in use at {at:.4f} for "
                    f"{until - at:.4f} s:" + "".join(f"\n    {body}" for body in active)
                )
            continue
        for excuse in valid:
            if any(excuse.covers(body) for body in excused):
                known = found.used.get((excuse, key), 0.0)
                found.used[excuse, key] = known + until - at
                found.reach = max(found.reach, until - excuse.since)


def _check_tokens(found: Overlap, key: str, bodies: list[Body], *, in_order: bool) -> None:
    """S11: no fencing token twice; and under a limit of one they rise with the bodies."""
    seen: dict[int, Body] = {}
    bodies = [body for body in bodies if body.token is not None]
    for body in bodies:
        assert body.token is not None
        if body.token in seen:
            found.violations.append(
                f"{key!r}: token {body.token} twice:\n    {seen[body.token]}\n    {body}"
            )
        seen[body.token] = body
    if not in_order:
        return
    for earlier, later in pairwise(sorted(bodies, key=lambda body: body.begin)):
        assert earlier.token is not None
        assert later.token is not None
        if earlier.end <= later.begin and earlier.token >= later.token:
            found.violations.append(
                f"{key!r}: tokens {earlier.token}, {later.token} do not rise:\n"
                f"    {earlier}\n    {later}"
            )
