"""Jobs of Celery. The module is what its workers run; as a program it sends the jobs."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from limiter_celery import LIMIT_BY, ConcurrencyLimit, LimitedTask, install
from tests.faults.workers.job_notes import BODY, CLAIM, LEASE, LIMITS, NUMBERS, URL, noted

STORE = URL.removesuffix("/0") + "/2"

app = Celery("faults", broker=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    broker_transport_options={
        "visibility_timeout": 3,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # A worker that is killed while it looks for such messages keeps others from it for so long:
        # by default for five minutes.
        "unacked_mutex_expire": 2,
    },
)
install(app, STORE, claim=CLAIM)


def limit(name: str) -> ConcurrencyLimit:
    return ConcurrencyLimit(LIMIT_BY.constant(name), LIMITS[name], lease=LEASE)


def body(task: Any, number: int) -> None:
    request = task.request
    with noted(number, request.limiter_fencing_token, f"{request.id}:{request.retries}:0"):
        time.sleep(BODY)


@app.task(bind=True, name="one", base=LimitedTask, limits=limit("one"))
def one(self: Any, number: int) -> None:
    body(self, number)


@app.task(bind=True, name="two", base=LimitedTask, limits=limit("two"))
def two(self: Any, number: int) -> None:
    body(self, number)


@app.task(bind=True, name="both", base=LimitedTask, limits=[limit("one"), limit("two")])
def both(self: Any, number: int) -> None:
    body(self, number)


if __name__ == "__main__":
    for number in NUMBERS:
        (one, two, both)[number % 3].delay(number)
