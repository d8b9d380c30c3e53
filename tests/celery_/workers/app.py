"""The app of the tests: made in each worker, and in the tests themselves to send tasks.

Each body notes its begin and its end in a list of the server, with the time. A body lasts as long
as it is said when the task is sent, or until the test tells it to end (`WorkerProcesses.let_end`).
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import redis
from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from celery.signals import task_revoked
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

from limiter_celery import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConflictResolution,
    LimitedTask,
    install,
)

LOG = "test:log"
REVOKED = "test:revoked"
SENDERS = ("priority", "expiration", "type", "app_id", "message_id", "delivery_mode")


def queue_of(name: str, exchange: str, kind: str, keys: list[str], **more: Any) -> Queue:
    """Return a queue that is bound to an exchange, by one key or by several."""
    if kind == "broadcast":
        return Broadcast(name=exchange, alias=name)
    sent_to = Exchange(exchange, type=kind)
    if len(keys) > 1:
        return Queue(name, bindings=[binding(sent_to, routing_key=key) for key in keys], **more)
    return Queue(name, sent_to, routing_key=keys[0], **more)


def note(client: Any, event: str, task: Any, **more: Any) -> None:
    noted = {"event": event, "at": time.time(), "id": task.request.id, "pid": os.getpid()}
    client.rpush(LOG, json.dumps(noted | {"try": task.request.retries} | more))


def spend(client: Any, task_id: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not client.exists(f"{LOG}:may_end:{task_id}"):
        time.sleep(min(left, 0.05))


def make_app(given: dict[str, Any]) -> Celery:  # noqa: PLR0915  # a list of tasks
    url = given["url"]
    app = Celery(
        "shop",
        broker=given.get("broker", url + "/0"),
        backend=given.get("backend", url + "/1"),
        # As the base of all tasks it is that of Celery's own, too, which have no limits.
        task_cls=LimitedTask if given.get("base_of_all") else None,
    )
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=True,
        result_expires=600,
        **given.get("conf", {}),
    )
    app.conf.broker_transport_options = given.get("transport", {})
    if "queues" in given:
        app.conf.task_queues = [queue_of(**queue) for queue in given["queues"]]
        app.conf.task_default_queue = given["queues"][0]["name"]
    log = redis.Redis.from_url(url + "/3")
    if given.get("install", True):
        install(app, given.get("store", url + "/2"), **given.get("limiter", {}))
    lease = given.get("lease", 30.0)

    def one(by: Any = None, number: Any = 1, **more: Any) -> ConcurrencyLimit:
        return ConcurrencyLimit(by, max_concurrent=number, lease=lease, **more)

    def body(self: Task, seconds: float, **more: Any) -> str:
        token = getattr(self.request, "limiter_fencing_token", None)
        note(log, "begin", self, token=token, **more)
        spend(log, self.request.id, seconds)
        note(log, "end", self)
        return self.request.id

    # Shared tasks would be found in every app that a test makes.
    options: dict[str, Any] = {"bind": True, "base": LimitedTask, "shared": False}
    number = given.get("number", 1)

    @app.task(name="by_user", limits=[one("user", number)], **options)
    def by_user(self, user, seconds=0.0):
        return body(self, seconds, user=user)

    @app.task(name="tells", limits=[one("user")], max_retries=1, **options)
    def tells(self, user, seconds=0.0, again=False):
        request = self.request
        properties = {k: v for k, v in request.properties.items() if k in SENDERS}
        said = {"delivery_info": request.delivery_info, "properties": properties}
        said |= {"reply_to": request.reply_to, "correlation_id": request.correlation_id}
        headers = {k: v for k, v in (request.headers or {}).items() if "fencing" not in k}
        body(self, seconds, said=said, headers=headers)
        if again and not request.retries:
            raise self.retry(countdown=0)

    @app.task(name="late", limits=[one("user", number)], acks_late=True, **options)
    def late(self, user, seconds=0.0):
        return body(self, seconds, user=user)

    @app.task(
        name="late_requeued",
        limits=[one("user")],
        acks_late=True,
        reject_on_worker_lost=True,
        **options,
    )
    def late_requeued(self, user, seconds=0.0):
        return body(self, seconds, user=user)

    @app.task(
        name="several",
        limits=[one("user", 1), one(LIMIT_BY.constant("crm"), given.get("crm", 2))],
        **options,
    )
    def several(self, user, seconds=0.0):
        return body(self, seconds, user=user)

    @app.task(name="free", bind=True, shared=False)
    def free(self, seconds=0.0):
        return body(self, seconds)

    @app.task(name="cancel", limits=one("user", on_conflict=ConflictResolution.CANCEL), **options)
    def cancel(self, user, seconds=0.0):
        return body(self, seconds)

    @app.task(
        name="keep_latest",
        limits=one("user", on_conflict=ConflictResolution.KEEP_LATEST),
        **options,
    )
    def keep_latest(self, user, seconds=0.0):
        return body(self, seconds)

    @app.task(
        name="priority",
        limits=one(
            "user",
            on_conflict=ConflictResolution.PRIORITY,
            priority=lambda call: call["rank"],
        ),
        **options,
    )
    def priority(self, user, rank, seconds=0.0):
        return body(self, seconds, rank=rank)

    if given.get("preempting"):

        @app.task(
            name="cancel_running",
            limits=one("user", on_conflict=ConflictResolution.CANCEL_RUNNING),
            **options,
        )
        def cancel_running(self, user, seconds=0.0):
            return body(self, seconds)

    @app.task(name="impatient", limits=one("user", timeout=0.7), **options)
    def impatient(self, user, seconds=0.0):
        return body(self, seconds)

    @app.task(name="wrong_key", limits=one("user.no_such_part"), **options)
    def wrong_key(self, user):
        return body(self, 0.0)

    def broken(_view):
        raise RuntimeError("the tenant's table is gone")

    @app.task(name="broken_number", limits=one("user", broken), **options)
    def broken_number(self, user):
        return body(self, 0.0)

    @app.task(name="tenant", limits=one("user", lambda call: call["plan"]), **options)
    def tenant(self, user, plan=1, seconds=0.0):
        return body(self, seconds)

    @app.task(name="fails", limits=one("user"), **options)
    def fails(self, user):
        body(self, 0.0)
        raise ValueError("on purpose")

    @app.task(name="retries", limits=one("user"), max_retries=2, **options)
    def retries(self, user, seconds=0.0):
        body(self, seconds)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return "third time lucky"

    @app.task(name="ignores", limits=one("user"), **options)
    def ignores(self, user):
        body(self, 0.0)
        raise Ignore

    @app.task(name="rejects", limits=one("user"), acks_late=True, **options)
    def rejects(self, user, requeue=False):
        body(self, 0.0)
        if requeue and log.incr(f"test:rejected:{self.request.id}") > 1:
            return "run again"
        raise Reject("on purpose", requeue=requeue)

    @app.task(name="soft", limits=one("user"), soft_time_limit=0.5, **options)
    def soft(self, user):
        return body(self, 30.0)

    @app.task(name="hard", limits=one("user"), time_limit=1, **options)
    def hard(self, user):
        return body(self, 30.0)

    @app.task(name="dies", limits=one("user"), **options)
    def dies(self, user):
        note(log, "begin", self)
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="stubborn", limits=one("user"), **options)
    def stubborn(self, user, seconds=1.5):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return body(self, seconds)

    @app.task(name="busy", limits=one("user"), **options)
    def busy(self, user, seconds=1.0):
        note(log, "begin", self)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        note(log, "end", self)

    # A task as releases of a program have it, one after the other.
    forms = {
        "limited": [one("user")],
        "latest": [one("user", on_conflict=ConflictResolution.KEEP_LATEST)],
        "other_key": [one("user", scope="new")],
        "unlimited": None,
    }
    form = given.get("changing", "limited")
    if form in forms:
        limits = {} if forms[form] is None else {"limits": forms[form]}

        @app.task(name="changing", **limits, **options)
        def changing(self, user, seconds=0.0):
            return body(self, seconds)

    @app.task(name="gather", shared=False)
    def gather(results):
        return results

    def on_revoked(request: Any, expired: bool, **_: Any) -> None:
        log.rpush(REVOKED, json.dumps([request.id, expired]))

    if given.get("install", True):
        task_revoked.connect(on_revoked, weak=False)
    app.log_client = log
    return app
