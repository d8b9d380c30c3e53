"""Tasks of Celery whose waits are traced; see tests/_traced_jobs.py."""

from __future__ import annotations

import time

from celery import Celery

from limiter_celery import ConcurrencyLimit, LimitedTask, install
from tests._job_events import URL, may_end
from tests._traced_jobs import STRATEGY, trace

trace()

SERVER = URL.removesuffix("/0")
app = Celery("shop", broker=URL, backend=f"{SERVER}/1")
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
install(app, f"{SERVER}/2")


@app.task(name="work", base=LimitedTask, limits=ConcurrencyLimit(STRATEGY, 1, name="billing"))
def work() -> None:
    while not may_end():
        time.sleep(0.01)
