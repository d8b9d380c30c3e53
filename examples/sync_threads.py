"""Threads: `SyncLimiter` is `Limiter` without `await`.

Eight threads resize pictures, and the disk can handle two at a time. A ninth call only checks
whether there is room, and does something else if there is none.

It prints::

    8 pictures resized, at most 2 at once
    busy: the thumbnail is made later
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter

limiter = SyncLimiter("memory://")
disk = ConcurrencyLimit(LIMIT_BY.constant("disk"), max_concurrent=2)

lock = threading.Lock()
resized: list[int] = []
running = most = 0


@limiter.limited(disk)
def resize(picture: int) -> None:
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    time.sleep(0.01)
    with lock:
        running -= 1
        resized.append(picture)


with ThreadPoolExecutor(max_workers=8) as threads:
    list(threads.map(resize, range(8)))
print(f"{len(resized)} pictures resized, at most {most} at once")

with limiter.hold(disk), limiter.hold(disk):
    lease = limiter.try_acquire(disk)
    print("room for a thumbnail" if lease else "busy: the thumbnail is made later")
