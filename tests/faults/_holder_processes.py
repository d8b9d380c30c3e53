"""The processes under load: started, killed, frozen, and made to finish, with a note of when."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.redis._processes import Worker
from tests.redis._tools import until_now

from ._overlap import History

HOLDER = Path(__file__).parent / "workers" / "holder.py"
WORLDS = ("asyncio", "threads")


class Member:
    """A process of the crew, and what it has noted so far.

    Attributes:
        process: its id.
        world: whether its calls are tasks or threads.
        ended: how many bodies it has ended, per key.
        lost: how many of them were told that their lease is lost.
        holds: the bodies that it is in, by lease id: the slots they hold.
    """

    def __init__(self, folder: Path, world: str, **given: Any) -> None:
        self.world = world
        started = folder / f"new-{random.getrandbits(64):x}"
        self._worker = Worker(str(HOLDER), notes=str(started), world=world, **given)
        self.process = int(self._worker._process.pid)
        self._offset = 0
        self._file = folder / f"{self.process}.notes"
        self._started = started
        self.ended: Counter[str] = Counter()
        self.lost = 0
        self.holds: dict[str, dict[str, int]] = {}
        self.since_frozen: float | None = None
        self.gone = False

    def until_it_runs(self) -> None:
        """Wait until it makes calls; its notes go by its process from then on."""
        self._worker.wait_for("runs")
        self._started.rename(self._file)

    def look(self) -> None:
        """Read what it has noted since the last look."""
        with self._file.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            noted = json.loads(line)
            if noted["what"] == "begin":
                self.holds[noted["id"]] = noted["slots"]
            else:
                self.ended.update(list(self.holds.pop(noted["id"])))
                self.lost += noted["lost"]

    def in_all(self) -> int:
        """Return how many bodies it has ended, one that held two keys as two."""
        self.look()
        return self.ended.total()

    def slots(self, key: str) -> int:
        """Return how many slots of a key it holds at this moment."""
        self.look()
        return sum(slots.get(key, 0) for slots in self.holds.values())

    def kill(self) -> float:
        """Kill it as the system does when memory runs out; returns when it was gone."""
        self._worker.kill()
        self.gone = True
        at = time.monotonic()
        self._worker.close()
        self.look()
        return at

    def freeze(self) -> None:
        """Stop it where it is, and wait until it stands still."""
        self._worker.freeze()
        status = Path(f"/proc/{self.process}/status")
        until_now(lambda: "State:\tT" in status.read_text(), "it stands still")
        self.since_frozen = time.monotonic()

    def thaw(self) -> tuple[float, float]:
        """Let it go on; returns from when to when it stood still."""
        since, self.since_frozen = self.since_frozen, None
        assert since is not None, "it was not frozen"
        until = time.monotonic()
        self._worker.thaw()
        return since, until

    def tell(self, line: str = "") -> None:
        """Tell it what to do: "cling", "let go", or by an empty line to finish."""
        stdin = self._worker._process.stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()

    def finish(self, patience: float) -> dict[str, Any]:
        """Wait until all its calls, and it, have ended cleanly; returns what it says."""
        try:
            done = self._worker.wait_for("done", patience=patience)
        except AssertionError as error:
            self.tell("tell")
            calls = "\n".join(self._worker.wait_for("told")["calls"])
            raise AssertionError(f"{error}\nin {self.world}:\n{calls}") from error
        self._worker.end()
        self.close()
        return done

    def close(self) -> None:
        """Remove it, whatever it does."""
        self.gone = True
        self._worker.close()


class Crew:
    """Several of them, and the history of what was done to them.

    Args:
        folder: for their notes.
        given: what each of them is told; see workers/holder.py.
    """

    def __init__(self, folder: Path, **given: Any) -> None:
        self.folder = folder
        self.history = History()
        self.members: list[Member] = []
        self._given = given

    def start(self, *worlds: str, **given: Any) -> list[Member]:
        """Start members, all at once; returns them when they run."""
        new = [Member(self.folder, world, **{**self._given, **given}) for world in worlds]
        self.members += new
        for member in new:
            member.until_it_runs()
        return new

    @property
    def alive(self) -> list[Member]:
        """Those that are neither killed nor frozen."""
        return [m for m in self.members if not m.gone and m.since_frozen is None]

    def of_world(self, world: str) -> Member:
        """Return one that is alive."""
        return random.choice([member for member in self.alive if member.world == world])

    def kill(self, member: Member) -> None:
        """Kill one, in whatever it does, and note when."""
        self.history.killed[member.process] = member.kill()

    def cling(self, members: Iterable[Member], keys: Iterable[str]) -> set[str]:
        """Have members hold on to what they get, until they hold slots of each of these keys.

        Returns:
            The bodies that they are in, by lease id.
        """
        members = list(members)
        for member in members:
            member.tell("cling")
        for key in keys:
            until_now(
                lambda: any(member.slots(key) for member in members),  # noqa: B023
                f"{key!r} is held on to",
            )
        return {body for member in members for body in member.holds}

    def let_go(self) -> None:
        """Have bodies end by themselves again."""
        for member in self.alive:
            member.tell("let go")

    def thaw(self, member: Member) -> None:
        """Let one go on, and note for how long it stood still."""
        self.history.thawed(member.process, *member.thaw())

    def goes_on(
        self,
        keys: Iterable[str],
        bodies: int,
        patience: float,
        members: Iterable[Member] | None = None,
    ) -> None:
        """Wait until every member alive (or of those given), and every key, sees more bodies end.

        Bodies count that began before, too: so there have to be more of them than may be running.
        """
        members = self.alive if members is None else list(members)
        own = {member: member.in_all() + bodies for member in members}
        ended = {key: self.ended(key) + bodies for key in keys}
        until_now(
            lambda: all(member.in_all() >= count for member, count in own.items()),
            f"every one of {len(members)} processes ends {bodies} more bodies",
            patience=patience,
        )
        until_now(
            lambda: all(self.ended(key) >= count for key, count in ended.items()),
            f"{bodies} more bodies end on each of {', '.join(ended)}",
            patience=patience,
        )

    def ended(self, key: str) -> int:
        """Return how many bodies have ended on a key, of all members."""
        for member in self.members:
            if not member.gone:
                member.look()
        return sum(member.ended[key] for member in self.members)

    def holding(self) -> set[str]:
        """Return the bodies that members are in at this moment, by lease id."""
        members = [member for member in self.members if not member.gone]
        for member in members:
            member.look()
        return {body for member in members for body in member.holds}

    def lost(self) -> int:
        """Return how many bodies have been told that their lease is lost."""
        return sum(member.lost for member in self.members)

    def finish(self, patience: float) -> list[dict[str, Any]]:
        """Have all finish; returns what they say at the end."""
        members = [member for member in self.members if not member.gone]
        for member in members:
            member.tell()
        return [member.finish(patience) for member in members]

    def close(self) -> None:
        """Remove all that are left."""
        for member in self.members:
            member.close()
