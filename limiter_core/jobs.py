"""Gates for job queues: what every adapter puts between its framework and a store.

A job that has to wait does not sit in a worker: it gets a *durable ticket* (S17), its queue parks
it, and the process that frees the slot gets the ticket's payload and wakes it::

    outcome = await gate.admit(Job(ticket, limits, arguments, payload, order), on_lost)
    if isinstance(outcome, Waiting):
        park()                                   # 1. in the framework's own queue
        if await gate.handed_over(outcome):      # 2. look again: it may be granted meanwhile
            wake_it_ourselves()
    elif isinstance(outcome, Held): ...          # a redelivery: the job runs already; come later
    else:
        try: run the body
        finally: await outcome.release()         # wakes the next

`wake` gets a `Notice` for each ticket whose waiting ended by a step of this process: from any
thread, so it hands the work on and returns. A job that is gone is dropped (`gate.drop`), which
hands its slot on; `error_of(notice)` returns why a job is not to run.

Jobs are served while a worker of the gate's name sweeps. One that shuts down calls `gate.leave()`
as soon as it fetches no more jobs, and `arrive()` if it fetches again.
"""

from __future__ import annotations

from limiter_core._background import BackgroundTasks
from limiter_core._checks import check_on_store_error
from limiter_core._functions import check_argument_names
from limiter_core._job_gate import ANSWER_PATIENCE, JobGate
from limiter_core._job_parts import CLAIM, Job, Waiting, error_of, loss_text, timeout_error
from limiter_core._prepare import check_limits
from limiter_core._sync_job_gate import SyncJobGate
from limiter_core.requests import Held

__all__ = (
    "ANSWER_PATIENCE",
    "CLAIM",
    "BackgroundTasks",
    "Held",
    "Job",
    "JobGate",
    "SyncJobGate",
    "Waiting",
    "check_argument_names",
    "check_limits",
    "check_on_store_error",
    "error_of",
    "loss_text",
    "timeout_error",
)

Errands = BackgroundTasks
"""The old name of `BackgroundTasks`; it goes with the next release."""
