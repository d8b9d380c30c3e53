"""`Passage`: where one delivery of a task stands on its way through the limits."""

from __future__ import annotations

import threading
from typing import Any

from limiter_celery._parked_message import ORIGIN, REFUSED, Origin, parcel_of
from limiter_celery._queues import may_hold_copies, queue_of
from limiter_celery._task import limits_of_task, view_of
from limiter_core.arguments import ArgumentView
from limiter_core.jobs import Job
from limiter_core.lease import SyncLease
from limiter_core.system_clock import system_clock as time


class Passage:
    """What the adapter knows of a request.

    Attributes:
        ticket: names this attempt of the task; and the queue it came from, where each of several
            queues has a copy of its own.
        origin: where its message came from first; None if it did not wait.
        refused: why it is not to run, if it comes for its end only.
        queue: the queue that it came from.
        order: its place in line: when a worker first received it, or its countdown was over; in
            microseconds since the epoch.
        woken: it waited, and this is a delivery made for its grant.
        redelivered: the broker delivers it again.
        unsure: the store may have done what this delivery asked for, unheard.
        local: it was woken in this process: no broker has its message, only the ticket.
        reserved_until: until when its slot is kept for it though it was not taken up (local
            clock); of a local one.
        submitted: it was given to the pool, or is about to be.
        made_at: when it was received (local clock).
        lease: its slot, once it was taken up.
        overtaken: it was handed on; this delivery is not to run.
        began_at: when its body began (local clock).
        requeued: the broker has its message again.
        connection: which connection to the broker it came by.
        marked: its end is noted, for late copies.
        over: its slot was given back.

    Args:
        request: whose it is.
        origin: where its message came from first; None if it did not wait.
        connection: which connection to the broker is the one of now.
    """

    def __init__(self, request: Any, origin: Origin | None, connection: int) -> None:
        headers: Any = request.request_dict
        app = request.app
        self.ticket = (
            f"{request.id}:{headers.get('retries') or 0}:{request.replaced_task_nesting or 0}"
        )
        self.queue = queue_of(app, request.message) if origin is None else origin.queue
        if may_hold_copies(app, self.queue):
            self.ticket += f":{self.queue}"
        self.origin = origin
        self.woken = origin is not None
        # Not for the task, which would hand it on with a retry.
        self.refused: str | None = headers.pop(REFUSED, None)
        headers.pop(ORIGIN, None)
        self.order: int = _order_of(request) if origin is None else origin.order
        self.redelivered = bool(request.delivery_info.get("redelivered"))
        self.unsure = False
        self.made_at = time.monotonic()
        self.local = False
        self.submitted = False
        self.reserved_until = 0.0
        self.lease: SyncLease | None = None
        self.overtaken = False
        self.began_at: float | None = None
        self.requeued = False
        self.connection = connection
        self.marked = False
        self.over = False
        self.lock = threading.Lock()

    @property
    def suspicious(self) -> bool:
        """Whether another copy of the message may have been seen to its end."""
        return self.woken or self.redelivered or self.unsure

    def is_reserved(self) -> bool:
        """Whether a slot is kept for it, without a question to the store."""
        return self.lease is not None or (self.local and time.monotonic() < self.reserved_until)

    def submit(self) -> bool:
        """Note that it goes to the pool; False if it was handed on before."""
        with self.lock:
            self.submitted = not self.overtaken
            return self.submitted

    def hand_on(self) -> bool:
        """Note that another delivery takes its place; False if it is in the pool already."""
        with self.lock:
            self.overtaken = self.overtaken or not self.submitted
            return self.overtaken

    def finish(self) -> bool:
        """Note the end; False if it was noted before."""
        with self.lock:
            was_over, self.over = self.over, True
            return not was_over


_last_order = 0


def _order_of(request: Any) -> int:
    """Return the place in line of a request that was just received, behind all before it.

    Requests are received one after the other; pools of threads admit several at once.
    """
    global _last_order  # noqa: PLW0603
    _last_order = max(time.time_ns() // 1000, _last_order + 1)
    if request.eta is not None:
        return max(_last_order, int(request.eta.timestamp() * 1e6))
    return _last_order


def job_of(request: Any) -> Job | None:
    """Return what the gate is asked for a request.

    None for arguments that do not fit the task: its body will say so.
    """
    task = request.task
    view: ArgumentView
    try:
        view = view_of(task, request.args, request.kwargs)
    except TypeError:
        return None
    return Job(
        request.passage.ticket,
        limits_of_task(task),
        view,
        payload=parcel_of(request).pack(),
        order=request.passage.order,
        label=f"{task.name}[{request.id}]",
    )
