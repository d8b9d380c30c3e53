"""Tasks of Celery for the burst of tests/_job_events.py."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from limiter_celery import ConcurrencyLimit, LimitedTask, install
from tests._job_events import OPTIONS, URL, by, may_end, noted, observe, options_of

observe()

SERVER = URL.removesuffix("/0")
app = Celery("shop", broker=URL, backend=f"{SERVER}/1")
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
install(app, f"{SERVER}/2")


def body(name: str) -> None:
    with noted(name):
        while not may_end():
            time.sleep(0.01)


for _name in OPTIONS:
    _limit: Any = ConcurrencyLimit(by(_name), **options_of(_name))
    app.task(name=_name, base=LimitedTask, limits=_limit)(body)
