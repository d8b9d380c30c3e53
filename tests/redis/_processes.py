"""Worker processes of the tests: started, listened to, frozen and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tests._fork_server import ForkedProcess

from ._servers import PATIENCE
from ._tools import until_now

WORKERS = Path(__file__).parent / "workers"


def written(file: IO[Any]) -> str:
    """Return what a process has written to a file so far.

    The file's position is the process's as well, so it stays where it is: else what is written
    amid the reading would go to the file's beginning.
    """
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


class Worker:
    """A process that runs one of the scripts in workers/, and what it has said so far."""

    def __init__(self, script: str, **given: Any) -> None:
        self._process = ForkedProcess(
            [str(WORKERS / script), json.dumps(given)],
            imports=("asyncio", "limiter_redis"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            strict=True,
        )
        self.said: list[dict[str, Any]] = []
        self.errors = ""
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def event(self, name: str) -> dict[str, Any] | None:
        """Return the first event of this name, None if there was none yet."""
        return next((said for said in self.said if said["event"] == name), None)

    def count(self, name: str) -> int:
        """Return how many events of this name there were."""
        return sum(said["event"] == name for said in self.said)

    def wait_for(self, name: str, *, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until it says so; returns what it said."""

        def said_or_dead() -> bool:
            over = self._process.poll() is not None and not self._readers[0].is_alive()
            return over or self.event(name) is not None

        until_now(said_or_dead, f"a worker says {name!r}", patience=patience)
        found = self.event(name)
        assert found is not None, f"the worker ended without {name!r}: {self.said} {self.errors}"
        return found

    def tell(self) -> None:
        """Have it let go."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it as the system does when memory runs out; it has no time for anything."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Stop it where it is."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def end(self) -> None:
        """Wait until it ends by itself, cleanly."""
        self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        assert self._process.returncode == 0, self.errors
        assert self.errors == ""

    def close(self) -> None:
        """Remove it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.errors = self._process.stderr.read()


def most_at_once(bodies: Iterable[tuple[float, float]]) -> int:
    """Return how many of these intervals overlapped at the worst moment."""
    moments = sorted(moment for begin, end in bodies for moment in ((begin, 1), (end, -1)))
    inside = most = 0
    # At one and the same moment, ends come first.
    for _, change in sorted(moments, key=lambda moment: (moment[0], moment[1])):
        inside += change
        most = max(most, inside)
    return most
