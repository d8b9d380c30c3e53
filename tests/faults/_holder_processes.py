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


class HolderProcess:
    """A process under load, and what it has noted so far.

    Attributes:
        process: its id.
        world: whether its calls are tasks or threads.
        ended: how many bodies it has ended, per key.
        lost: how many of them were notified that their lease is lost.
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

    def read_notes(self) -> None:
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
        self.read_notes()
        return self.ended.total()

    def slots(self, key: str) -> int:
        """Return how many slots of a key it holds at this moment."""
        self.read_notes()
        return sum(slots.get(key, 0) for slots in self.holds.values())

    def kill(self) -> float:
        """Kill it as the system does when memory runs out; returns when it was gone."""
        self._worker.kill()
        self.gone = True
        at = time.monotonic()
        self._worker.close()
        self.read_notes()
        return at

    def freeze(self) -> None:
        """Stop it where it is, and wait until it is frozen."""
        self._worker.freeze()
        status = Path(f"/proc/{self.process}/status")
        until_now(lambda: "State:\tT" in status.read_text(), "it is frozen")
        self.since_frozen = time.monotonic()

    def thaw(self) -> tuple[float, float]:
        """Let it go on; returns from when to when it stood still."""
        since, self.since_frozen = self.since_frozen, None
        assert since is not None, "it was not frozen"
        until = time.monotonic()
        self._worker.thaw()
        return since, until

    def tell(self, line: str = "") -> None:
        """Tell it what to do: "keep holding", "end bodies", or by an empty line to finish."""
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


class HolderProcesses:
    """Several such processes, and the history of what was done to them.

    Args:
        folder: for their notes.
        given: the settings of each; see workers/holder.py.
    """

    def __init__(self, folder: Path, **given: Any) -> None:
        self.folder = folder
        self.history = History()
        self.holders: list[HolderProcess] = []
        self._given = given

    def start(self, *worlds: str, **given: Any) -> list[HolderProcess]:
        """Start processes, all at once; returns them when they run."""
        new = [HolderProcess(self.folder, world, **{**self._given, **given}) for world in worlds]
        self.holders += new
        for holder in new:
            holder.until_it_runs()
        return new

    @property
    def alive(self) -> list[HolderProcess]:
        """Those that are neither killed nor frozen."""
        return [m for m in self.holders if not m.gone and m.since_frozen is None]

    def of_world(self, world: str) -> HolderProcess:
        """Return one that is alive."""
        return random.choice([holder for holder in self.alive if holder.world == world])

    def kill(self, holder: HolderProcess) -> None:
        """Kill one, in whatever it does, and note when."""
        self.history.killed[holder.process] = holder.kill()

    def keep_holding(self, holders: Iterable[HolderProcess], keys: Iterable[str]) -> set[str]:
        """Have processes keep the slots that they get, until they hold slots of each of these keys.

        Returns:
            The bodies that they are in, by lease id.
        """
        holders = list(holders)
        for holder in holders:
            holder.tell("keep holding")
        for key in keys:
            until_now(
                lambda: any(holder.slots(key) for holder in holders),  # noqa: B023
                f"{key!r} is held on to",
            )
        return {body for holder in holders for body in holder.holds}

    def end_bodies(self) -> None:
        """Have bodies end by themselves again."""
        for holder in self.alive:
            holder.tell("end bodies")

    def thaw(self, holder: HolderProcess) -> None:
        """Let one go on, and note for how long it stood still."""
        self.history.thawed(holder.process, *holder.thaw())

    def until_bodies_end(
        self,
        keys: Iterable[str],
        bodies: int,
        patience: float,
        holders: Iterable[HolderProcess] | None = None,
    ) -> None:
        """Wait until more bodies end in every live (or given) process, and on every key.

        Bodies count that began before, too: so there have to be more of them than may be running.
        """
        holders = self.alive if holders is None else list(holders)
        own = {holder: holder.in_all() + bodies for holder in holders}
        ended = {key: self.ended(key) + bodies for key in keys}
        until_now(
            lambda: all(holder.in_all() >= count for holder, count in own.items()),
            f"every one of {len(holders)} processes ends {bodies} more bodies",
            patience=patience,
        )
        until_now(
            lambda: all(self.ended(key) >= count for key, count in ended.items()),
            f"{bodies} more bodies end on each of {', '.join(ended)}",
            patience=patience,
        )

    def ended(self, key: str) -> int:
        """Return how many bodies have ended on a key, of all processes."""
        for holder in self.holders:
            if not holder.gone:
                holder.read_notes()
        return sum(holder.ended[key] for holder in self.holders)

    def holding(self) -> set[str]:
        """Return the bodies that run at this moment, by lease id."""
        holders = [holder for holder in self.holders if not holder.gone]
        for holder in holders:
            holder.read_notes()
        return {body for holder in holders for body in holder.holds}

    def lost(self) -> int:
        """Return how many bodies were notified that their lease is lost."""
        return sum(holder.lost for holder in self.holders)

    def finish(self, patience: float) -> list[dict[str, Any]]:
        """Have all finish; returns what they say at the end."""
        holders = [holder for holder in self.holders if not holder.gone]
        for holder in holders:
            holder.tell()
        return [holder.finish(patience) for holder in holders]

    def close(self) -> None:
        """Remove all that are left."""
        for holder in self.holders:
            holder.close()
