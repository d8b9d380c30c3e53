"""A process whose sockets are green and whose threads are not: `monkey_patch(thread=False)`.

Its arguments: "gevent" or "eventlet"; a URL. What it does, it prints, a word at a time.
"""

from __future__ import annotations

import sys
import time
import warnings

library, url = sys.argv[1:]

warnings.simplefilter("ignore")  # eventlet's, on itself

if library == "gevent":
    from gevent import monkey, spawn

    monkey.patch_all(thread=False)
else:
    from eventlet import monkey_patch, spawn

    monkey_patch(thread=False)

import threading

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter

ONE = ConcurrencyLimit(LIMIT_BY.constant("k"), 1, lease=3)


def system(work):
    threading.Thread(target=work, daemon=True).start()


def share(limiter, first, second):
    """One holds, the other waits; then it is handed on. `first` and `second` start them."""
    done, held = [], []

    def hold():
        with limiter.hold(ONE):
            held.append(1)
            time.sleep(0.5)
            done.append("first")

    def wait():
        while not held:
            time.sleep(0.01)
        with limiter.hold(ONE, timeout=5):
            pass
        # Only then: gevent's memory is freed at the end of a process, also if a thread uses it.
        done.append("second")

    started = time.monotonic()
    for start, work in ((first, hold), (second, wait)):
        start(work)
    while len(done) < 2 and time.monotonic() < started + 15:
        time.sleep(0.01)
    return " ".join(done)


with SyncLimiter(url) as limiter:
    for name, first, second in (
        ("green-green", spawn, spawn),
        ("green-system", spawn, system),
        ("system-green", system, spawn),
        ("system-system", system, system),
    ):
        print(name, share(limiter, first, second), flush=True)  # noqa: T201
