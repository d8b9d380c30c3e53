"""What a worker does again and again in the store, or until it succeeds."""

from __future__ import annotations

from dataclasses import dataclass

from limiter_celery._revocations import Revocations
from limiter_celery._scheduler import Scheduler
from limiter_celery._worker_state import WorkerState
from limiter_core import StoreError
from limiter_core.jitter import jitter
from limiter_core.jobs import SyncJobGate

_RETRY_AFTER = 1.0


@dataclass(kw_only=True, eq=False)
class Sweeper:
    """Sweeps the gate until the worker closes, and loads what was revoked before it started.

    That the store cannot be used is logged by the gate, once.
    """

    gate: SyncJobGate
    revocations: Revocations
    scheduler: Scheduler
    worker: WorkerState

    def start(self) -> None:
        """Start."""
        self.scheduler.call_soon(self._load)
        self.scheduler.call_soon(self._sweep)

    def _load(self) -> None:
        try:
            self.revocations.load()
        except StoreError:
            if not self.worker.closing:
                self.scheduler.call_later(_RETRY_AFTER, self._load)

    def _sweep(self) -> None:
        try:
            with self.worker.own_step():
                self.gate.sweep()
        except StoreError:
            pass
        finally:
            if not self.worker.closing:
                self.scheduler.call_later(jitter.uniform(0.8, 1.2), self._sweep)
