"""`Delivery`: how far one delivery of a task has come; and the job that the gate is asked about."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

from limiter_celery._parked_message import (
    HEADERS,
    KEYS,
    PUBLICATION,
    Origin,
    parked_message_of,
)
from limiter_celery._queues import may_hold_copies, queue_of
from limiter_celery._task import limits_of_task, view_of
from limiter_core.jobs import Job
from limiter_core.lease import SyncLease
from limiter_core.system_clock import system_clock as time


@dataclass(eq=False, slots=True, kw_only=True)
class Delivery:
    """What the adapter knows of a request. Times are those of the local clock, but for `order`."""

    ticket: str  # names this attempt of the task
    queue: str  # from which it was taken
    origin: Origin | None  # where its message came from first; None if it did not wait
    order: int  # its place in line, in microseconds since the epoch
    redelivered: bool  # the broker delivers it again
    connection: int  # the number of the connection to the broker by which it came
    publication: str | None = None  # the id of its message, if that was published again
    received_at: float
    is_local: bool = False  # delivered by this process: only the ticket has its message
    reserved_until: float = 0.0  # of a local one: how long its slot is kept though not claimed
    grant: tuple[tuple[str, ...], int] = ((), 0)  # its keys; of a local one the fencing token, too
    job: Job | None = None  # of a local one: what the gate is asked
    lease: SyncLease | None = None  # its slot, once it was claimed
    outcome_unknown: bool = False  # the store was asked for it, and the reply was lost
    submitted: bool = False  # it was given to the pool, or is about to be
    loss: str = ""  # why its body is stopped: its lease is lost
    handed_over: bool = False  # another delivery takes its place; this one is not to run
    started_at: float | None = None  # when its body started
    requeued: bool = False  # the broker has its message again
    has_marker: bool = False  # its completion is noted, for late copies
    finished: bool = False  # its slot was given back
    id: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def waited(self) -> bool:
        """Whether it waited, and this is a delivery made for its grant, or for its end."""
        return self.origin is not None

    @property
    def may_be_copy(self) -> bool:
        """Whether another copy of the message may have run to its end."""
        return self.waited or self.redelivered or self.outcome_unknown

    def has_slot(self) -> bool:
        """Whether a slot is kept for it; without a question to the store."""
        return self.lease is not None or (self.is_local and time.monotonic() < self.reserved_until)

    def submit(self) -> bool:
        """Note that it goes to the pool; False if it was handed over before."""
        with self._lock:
            self.submitted = not self.handed_over
            return self.submitted

    def hand_over(self) -> bool:
        """Note that another delivery takes its place; False if it is in the pool already."""
        with self._lock:
            self.handed_over = self.handed_over or not self.submitted
            return self.handed_over

    def finish(self) -> bool:
        """Note its end; False if it was noted before."""
        with self._lock:
            was_finished, self.finished = self.finished, True
            return not was_finished


def delivery_of(request: Any, origin: Origin | None, connection: int) -> Delivery:
    """Return the delivery of a request that was just received by a connection to the broker."""
    headers: Any = request.request_dict
    app = request.app
    # The task must not see these headers: it would send them along with a retry.
    keys: list[Any] = headers.get(KEYS) or []
    publication: str | None = headers.get(PUBLICATION)
    for name in HEADERS:
        headers.pop(name, None)
    queue = queue_of(app, request.message) if origin is None else origin.queue
    return Delivery(
        ticket=ticket_of(app, queue, headers),
        queue=queue,
        origin=origin,
        order=_order_of(request) if origin is None else origin.order,
        redelivered=bool(request.delivery_info.get("redelivered")),
        connection=connection,
        publication=publication,
        received_at=time.monotonic(),
        grant=(() if origin is None else tuple(map(str, keys)), 0),
    )


def ticket_of(app: Any, queue: str, headers: Any) -> str:
    """Return the ticket of a message of this queue: it names one attempt of a task."""
    parts = headers["id"], headers.get("retries") or 0, headers.get("replaced_task_nesting") or 0
    # Where several queues have a copy each, each copy is one of its own.
    copy = (queue,) if may_hold_copies(app, queue) else ()
    return ":".join(map(str, parts + copy))


_last_order = 0


def _order_of(request: Any) -> int:
    """Return the place in line of a request that was just received, behind all before it.

    With a countdown, it takes its place when that is over. Requests are received one after the
    other; pools of threads admit several at once.
    """
    global _last_order  # noqa: PLW0603  (one order in a process)
    _last_order = max(time.time_ns() // 1000, _last_order + 1)
    if request.eta is not None:
        return max(_last_order, int(request.eta.timestamp() * 1e6))
    return _last_order


def job_of(request: Any) -> Job | None:
    """Return what the gate is asked for a request.

    None for arguments that do not fit the task: its body will raise.
    """
    task = request.task
    try:
        arguments = view_of(task, request.args, request.kwargs)
    except TypeError:
        return None
    return Job(
        request.delivery.ticket,
        limits_of_task(task),
        arguments,
        payload=parked_message_of(request).pack(),
        order=request.delivery.order,
        label=f"{task.name}[{request.id}]",
        headers=request.request_dict,
        keys=request.delivery.grant[0],
    )
