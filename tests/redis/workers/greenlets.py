"""A process whose threads are green: what it does, it prints, a word at a time.

Its arguments: "gevent" or "eventlet"; "before" or "after" the imports of the package; a URL.
"""

from __future__ import annotations

import sys
import time
import warnings

library, when, url = sys.argv[1:]

warnings.simplefilter("ignore")  # eventlet's, on itself


def patch():
    if library == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        import eventlet

        eventlet.monkey_patch()


block = time.sleep
"""Of the system, before it is patched: it stops all greenlets of its thread."""

if when == "before":
    patch()

import gc
import logging
import threading

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter

if when == "after":
    import limiter_redis  # noqa: F401

    patch()

from limiter_core._collected import do_later
from limiter_core.threads import SystemThread

ONE = ConcurrencyLimit(LIMIT_BY.constant("k"), 1, lease=3)
SHORT = ConcurrencyLimit(LIMIT_BY.constant("m"), 2, lease=1)


def say(*words):
    print(*words, flush=True)  # noqa: T201


def compute(seconds):
    """Let no other greenlet run. A fifth of it is computed: that keeps the suite short."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        while time.monotonic() < now + 0.01:
            pass
        block(0.04)


beats = []


def beat():
    while True:
        beats.append(time.monotonic())
        time.sleep(0.01)


def share(limiter, first, second):
    """One holds, the other waits; then it is handed on. `first` and `second` start them."""
    done, held = [], []

    def hold():
        with limiter.hold(ONE):
            held.append(1)
            time.sleep(1.0)
            done.append("first")

    def wait():
        while not held:
            time.sleep(0.01)
        with limiter.hold(ONE, timeout=10):
            done.append("second")

    started = time.monotonic()
    for start, work in ((first, hold), (second, wait)):
        start(work)
    while len(done) < 2 and time.monotonic() < started + 15:
        time.sleep(0.01)
    return " ".join(done), time.monotonic() - started


def crowd(limiter):
    """Some compute for longer than a lease, while the others ask, wait and are granted."""
    left, ended = [1.3, 0.0, 1.3, 0.0, 0.0], []
    logging.getLogger("limiter").disabled = True  # an answer that is read so late is an outage

    def work():
        try:
            with limiter.hold(SHORT, timeout=30) as lease:
                compute(left.pop())
                ended.append("lost" if lease.lost else "served")
        except Exception as error:
            ended.append(repr(error))

    for _ in range(5):
        green(work)
    started = time.monotonic()
    while len(ended) < 5 and time.monotonic() < started + 35:
        time.sleep(0.01)
    logging.getLogger("limiter").disabled = False
    return " ".join(sorted(set(ended)))


class Closing:
    """As a connection that is collected: it closes itself, and other greenlets run meanwhile."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        time.sleep(0.2)  # the fault itself


def collect(limiter):
    """The garbage collector finds it while this greenlet has a lock; others want that lock."""
    tracker, done = limiter._engine.store.session.tracker, []

    def hold():
        with limiter.hold(SHORT):
            done.append(1)

    for _ in range(2):
        green(hold)
    Closing()
    with tracker._lock:
        gc.collect()
    started = time.monotonic()
    while len(done) < 2 and time.monotonic() < started + 15:
        time.sleep(0.01)
    return len(done)


def later(begin):
    """What a thread of the system has done in the background, as a finalizer in it does."""
    done, started = [], time.monotonic()
    begin(lambda: do_later(lambda: done.append(1)))
    while not done and time.monotonic() < started + 10:
        time.sleep(0.01)
    return bool(done)


def green(work):
    threading.Thread(target=work, daemon=True).start()


def system(work):
    SystemThread(work, "system").start()


def pooled(work):
    """In a thread of the system that belongs to the library, as its users have it."""
    if library == "gevent":
        import gevent

        gevent.get_hub().threadpool.apply(work)
    else:
        from eventlet import tpool

        tpool.execute(work)


with SyncLimiter(url) as limiter:
    green(beat)
    with limiter.hold(ONE) as lease:
        say("computes")
        compute(6.0)
        say("lost" if lease.lost else "kept")
    for name, first, second in (
        ("green-green", green, green),
        ("green-system", green, system),
        ("system-green", system, green),
        ("system-system", system, system),
    ):
        del beats[:]
        order, _ = share(limiter, first, second)
        # None of those that wait stops the others, as long as the holder has the slot: a second.
        say(name, order, "free" if len(beats) > 5 else f"stopped: {len(beats)} beats")
    say("crowd", crowd(limiter))
    say("collect", collect(limiter))
    say("later", later(system), later(pooled))
    say("asks")
    sys.stdin.readline()
    with limiter.hold(ONE, timeout=10):
        say("handed")
say("closed")
