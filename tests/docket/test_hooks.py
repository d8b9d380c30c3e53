"""What this adapter takes from Docket that is private: a release that changed it fails here."""

from __future__ import annotations

import inspect
from typing import Any

from docket import Docket, Execution, Worker
from docket import dependencies as docket_dependencies
from docket.dependencies import AdmissionBlocked


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(of: Any) -> str:
    return " ".join(inspect.getsource(of).split())


def test_a_worker_knows_its_tasks_and_those_that_were_cancelled() -> None:
    """A running task is found by its key; one that `docket.cancel` ended has not failed."""
    text = source(Worker)
    assert "self._tasks_by_key: dict[TaskKey, asyncio.Task[None]] = {}" in text
    assert "self._cancelled_by_docket: set[asyncio.Task[None]] = set()" in text
    assert "task in self._cancelled_by_docket" in text


def test_a_worker_counts_the_iterations_of_a_task() -> None:
    assert "self._execution_counts[execution.key] += 1" in source(Worker)
    assert "self._execution_counts[key] >= iterations_by_key[key]" in source(Worker.run_at_most)


def test_a_worker_has_a_stack_that_it_leaves_when_its_tasks_have_ended() -> None:
    assert "self._stack" in source(Worker.__aenter__)
    assert "AsyncExitStack" in source(Worker)
    assert "self._stack" in source(Worker.__aexit__)


def test_a_docket_hears_of_cancelled_tasks() -> None:
    assert parameters(Docket._pubsub) == ["self"]
    assert parameters(Docket.cancel_channel) == ["self", "task_key"]
    for name in ("stream_key", "queue_key", "parked_task_key", "runs_key", "key"):
        assert hasattr(Docket, name), name


def test_a_dependency_tells_what_it_depends_on() -> None:
    kind = docket_dependencies._Depends
    assert parameters(kind.__init__) == ["self", "factory", "bindings"]
    made = kind(dict, of="parameters")
    assert made.factory is dict
    assert list(made.bindings) == ["of"]


def test_an_execution_notes_its_end_and_how_it_was_delivered() -> None:
    assert "self._ended" in source(Execution)
    for name in ("message_id", "generation", "redelivered"):
        assert name in source(Execution), name


def test_a_worker_marks_a_run_as_cancelled_by_a_method_that_may_be_given_a_reason() -> None:
    assert "_mark_as_terminal(ExecutionState.CANCELLED)" in source(Execution.mark_as_cancelled)
    assert parameters(Execution._mark_as_terminal)[:3] == ["self", "state", "error"]
    text = source(Worker)
    assert "await e.execution.mark_as_cancelled()" in text
    assert "await execution.mark_as_cancelled()" in text


def test_what_tells_a_worker_that_a_task_does_not_run() -> None:
    assert parameters(AdmissionBlocked.__init__)[1:] == [
        "execution",
        "reason",
        "handled",
        "reschedule",
        "retry_delay",
    ]


def test_an_execution_reads_all_that_is_stored_with_its_run_when_it_is_claimed() -> None:
    text = source(Execution.claim)
    assert "self._apply_runs_data(_hash_reply(runs_data))" in text
    assert parameters(Execution.claim) == ["self", "worker"]
    assert parameters(Execution._apply_runs_data) == ["self", "data"]
    assert "await execution.claim(self.name)" in source(Worker)
