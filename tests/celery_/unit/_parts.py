"""The parts of the limiter in a worker, built without a worker.

What they use is real: a store in memory, Celery's own consumer, requests and messages, an unstarted
pool, and kombu's transport in memory as broker. Nothing waits for time to pass: what a timer or a
scheduler has to do is done when a test says so.
"""

from __future__ import annotations

import time
import uuid
from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.bootsteps import RUN
from celery.concurrency import solo
from celery.worker import consumer as celery_consumer
from celery.worker import state
from celery.worker.request import create_request_cls
from kombu.asynchronous.timer import Timer
from kombu.common import QoS

from limiter_celery import ConcurrencyLimit, ConflictResolution, LimitedTask
from limiter_celery._admission import Admission
from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._deferred_deliveries import DeferredDeliveries
from limiter_celery._expiring_set import ExpiringSet
from limiter_celery._main_loop import MainLoop
from limiter_celery._parked_tasks import ParkedTasks
from limiter_celery._queues import consume_granted
from limiter_celery._refusal_reasons import RefusalReasons
from limiter_celery._refusals import REPORTED_FOR, Refusals
from limiter_celery._release_tracker import ReleaseTracker
from limiter_celery._request import LimitedRequest, RequestParts
from limiter_celery._request_factory import RequestFactory
from limiter_celery._revocations import Revocations
from limiter_celery._scheduler import Scheduler
from limiter_celery._start_reservations import StartReservations
from limiter_celery._worker_state import WorkerState
from limiter_core.jobs import SyncJobGate, error_of
from limiter_core.requests import Notice
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

NAME = "celery:unit"
"""The name of the gate, and of what is noted in the store beside it."""


class UnconnectedConsumer(celery_consumer.Consumer):
    """Celery's consumer, without the steps that connect it to a broker."""

    class Blueprint(celery_consumer.Consumer.Blueprint):
        default_steps = ()


def make_app() -> Celery:
    """Make an app with limited tasks: `one`, one that is acknowledged late, one that supersedes."""
    app = Celery("unit", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = f"unit-{uuid.uuid4().hex}"  # the transport is one for all
    latest = ConflictResolution.KEEP_LATEST

    def body(user: str = "eve") -> None: ...

    options: dict[str, Any] = {"base": LimitedTask, "shared": False}
    app.task(name="one", limits=ConcurrencyLimit("user"), **options)(body)
    app.task(name="late", limits=ConcurrencyLimit("user"), acks_late=True, **options)(body)
    app.task(name="latest", limits=ConcurrencyLimit("user", on_conflict=latest), **options)(body)
    app.finalize()
    consume_granted(app, lambda _: True)
    return app


def make_consumer(app: Celery) -> Any:
    """Make a consumer that notes the requests it was to process in `processed`."""
    processed: list[Any] = []
    consumer = UnconnectedConsumer(
        processed.append,
        app=app,
        pool=solo.TaskPool(1),
        timer=Timer(),
        controller=SimpleNamespace(state=state),
    )
    consumer.processed = processed
    consumer.event_dispatcher = None
    consumer.qos = QoS(lambda prefetch_count: None, 4)
    consumer.blueprint.state = RUN
    return consumer


class Parts:
    """One of each, as a worker wires them; but for what dispatches, which a test builds itself."""

    def __init__(self, store: Any = None) -> None:
        self.clock = FakeClock(time.time())  # the gate compares its time with that of the system
        self.store = MemoryStore(clock=self.clock) if store is None else store
        self.tickets = self.store.sync_face()
        self.app = make_app()
        self.connection = self.app.connection_for_write()
        self.channel = self.connection.default_channel
        self.consumer = make_consumer(self.app)
        self.worker = WorkerState()
        self.notices: list[Notice] = []
        self.of_own_steps: list[bool] = []
        self.gate = SyncJobGate(self.store, NAME, self._note)
        self.main_loop = MainLoop()
        self.scheduler = Scheduler("unit")
        self.markers = CompletionMarkers(self.tickets, NAME, 60.0)
        self.revocations = Revocations(self.tickets, NAME, 60.0)
        self.starts = StartReservations(self.tickets, NAME, 30.0)
        self.reasons = RefusalReasons(self.tickets, NAME)
        self.parked_tasks = ParkedTasks(
            self.tickets, self.starts, self.reasons, self.scheduler.call_later
        )
        self.deferred = DeferredDeliveries(
            consumer=self.consumer, main_loop=self.main_loop, worker=self.worker
        )
        self.releases = ReleaseTracker(
            gate=self.gate,
            markers=self.markers,
            pool=self.consumer.pool,
            main_loop=self.main_loop,
            scheduler=self.scheduler,
            worker=self.worker,
            visibility_timeout=3600.0,
        )
        self.admission = Admission(
            gate=self.gate,
            markers=self.markers,
            starts=self.starts,
            reasons=self.reasons,
            revocations=self.revocations,
            parked_tasks=self.parked_tasks,
            releases=self.releases,
            deferred=self.deferred,
            without_store=False,
        )
        self.request_class = LimitedRequest.using(
            RequestParts(
                admission=self.admission,
                releases=self.releases,
                revocations=self.revocations,
                worker=self.worker,
            )
        )

    def removed(self) -> list[tuple[str, str]]:
        """Return which tickets are not to run, and why, as the notices say."""
        errors = [(notice.id, error_of(notice)) for notice in self.notices]
        return [
            (ticket, self.reasons.of(ticket, error).text)
            for ticket, error in errors
            if error is not None
        ]

    def make_refusals(self, requests: RequestFactory) -> Refusals:
        """Make what reports tasks; it does so when the scheduler runs."""
        return Refusals(
            app=self.app,
            requests=requests,
            markers=self.markers,
            scheduler=self.scheduler,
            main_loop=self.main_loop,
            gate=self.gate,
            worker=self.worker,
            reports=ExpiringSet(self.tickets, f"{NAME}:reports", REPORTED_FOR),
            reasons=self.reasons,
            store=self.tickets,
        )

    def _note(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.of_own_steps.append(self.worker.in_own_step)

    def receive(self, name: str | None, *args: Any, **options: Any) -> LimitedRequest:
        """Send a task, and return the request that a consumer makes of its message.

        Without the name of a task: of the message that waits in the queue of granted tasks.
        """
        queue = self.app.conf.task_default_queue
        if name is None:
            queue += ".granted"
        else:
            self.app.send_task(name, args, connection=self.connection, **options)
        message = self.app.amqp.queues[queue](self.channel).get()
        assert message is not None, f"there is no message in {queue}"
        task = self.app.tasks[message.headers["task"]]
        made = create_request_cls(
            self.request_class, task, self.consumer.pool, "unit", None, app=self.app
        )
        request: LimitedRequest = made(
            message,
            app=self.app,
            task=task,
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
            headers=message.headers,
            body=message.body,
        )
        state.task_reserved(request)
        return request

    def published(self) -> int:
        """Return how many messages wait in the queue of granted tasks."""
        name = f"{self.app.conf.task_default_queue}.granted"
        return self.app.amqp.queues[name](self.channel).queue_declare().message_count

    def state_of(self, request: LimitedRequest) -> str:
        """Return what the results' backend says of a task."""
        return self.app.AsyncResult(request.id).state

    def run_timer(self) -> None:
        """Run all that the consumer's timer has to do, as if its time had come."""
        due, self.consumer.timer.queue[:] = list(self.consumer.timer.queue), []
        for each in due:
            each.entry()

    def finish(self) -> None:
        """Have the scheduler run all it was given, whatever its time; it is of no more use then."""
        self.scheduler.start()
        self.scheduler.stop(10.0)

    def close(self) -> None:
        """End all."""
        self.scheduler.stop(10.0)
        self.releases.release_all()
        self.gate.close()
        for request in (*state.reserved_requests, *state.active_requests):
            state.task_ready(request)
        self.connection.close()
        self.app.close()
