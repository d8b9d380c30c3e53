"""Tasks whose waiting ends before their turn comes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from limiter_celery import ConcurrencyLimit
from limiter_celery._completion_markers import CompletionMarkers
from limiter_celery._parked_tasks import ParkedTasks
from limiter_core import StoreUnavailable
from limiter_core.arguments import ArgumentView
from limiter_core.jobs import Job, SyncJobGate, Waiting
from limiter_core.store import SyncStore

from ._parts import NAME, Parts


class Line:
    """Tasks that wait for one slot, and what was due or removed."""

    def __init__(self, gate: SyncJobGate, tickets: SyncStore, markers: CompletionMarkers) -> None:
        self.gate = gate
        self.due: list[tuple[float, Callable[[], object]]] = []
        self.removed: list[tuple[str, str]] = []
        self.parked = ParkedTasks(
            tickets,
            gate,
            markers,
            lambda seconds, function: self.due.append((seconds, function)),
            lambda ticket, _, reason: self.removed.append((ticket, reason)),
        )

    def ask(self, ticket: str, timeout: float | None = None, **request: Any) -> Any:
        """Ask for the slot; whoever has to wait is parked."""
        limits = ConcurrencyLimit("user", timeout=timeout)
        job = Job(ticket, limits, ArgumentView({"user": "eve"}), payload=b"{}")
        outcome = self.gate.admit(job)
        if isinstance(outcome, Waiting):
            given = {"id": ticket, "name": "one", "stamps": {}, "expires": None} | request
            self.parked.add(SimpleNamespace(**given), job, outcome)
        return outcome

    def is_waiting(self, ticket: str) -> bool:
        return isinstance(self.ask(ticket), Waiting)


@pytest.fixture
def line(parts: Parts) -> Line:
    return Line(parts.gate, parts.tickets, parts.markers)


def test_revoked_tasks_leave_whichever_attempt_waits(line: Line) -> None:
    holder = line.ask("holder")
    for ticket, task_id in (("a:0", "a"), ("a:1", "a"), ("b:0", "b")):
        line.ask(ticket, id=task_id)
    line.parked.revoke({"a", "unknown"})
    assert sorted(line.removed) == [("a:0", "revoked"), ("a:1", "revoked")]
    line.parked.revoke({"a"})
    assert len(line.removed) == 2
    holder.release()
    line.parked.revoke({"b"})
    assert len(line.removed) == 2, "its turn has come: a delivery looks whether it was revoked"


def test_tasks_leave_by_their_stamps(line: Line) -> None:
    holder = line.ask("holder")
    line.ask("one", stamps={"tenant": "a"})
    line.ask("two", stamps={"tenant": ["b", "c"]})
    line.parked.revoke_by_stamps({"tenant": ["c"]})
    assert line.removed == [("two", "revoked")]
    holder.release()


def test_a_task_that_expires_leaves_at_that_time(line: Line) -> None:
    holder = line.ask("holder")
    line.ask("one", expires=datetime.now(UTC) + timedelta(seconds=60))
    ((seconds, end),) = line.due
    assert 59.0 < seconds < 60.5
    end()
    assert line.removed == [("one", "expired")]
    holder.release()


def test_a_task_that_was_forgotten_is_left_alone(line: Line) -> None:
    holder = line.ask("holder")
    line.ask("one")
    line.parked.forget("one")
    line.parked.forget("one")
    line.parked.revoke({"one"})
    assert line.removed == []
    holder.release()


def test_the_message_of_a_task_that_was_forgotten_is_not_kept(line: Line) -> None:
    """A day may be left until it expires; it began long before."""
    holder = line.ask("holder")
    line.ask("one", expires=datetime.now(UTC) + timedelta(days=1))
    parked = weakref.ref(line.parked._parked["one"])
    line.parked.forget("one")
    assert parked() is None
    ((_, end),) = line.due
    end()
    assert line.removed == []
    holder.release()


def test_a_time_that_a_task_was_given_is_not_that_of_the_next_of_its_id(line: Line) -> None:
    for _ in range(2):
        holder = line.ask("holder", 60.0)
        line.ask("one", 60.0)
        if len(line.due) == 1:
            holder.release()
            line.parked.forget("one")
            line.ask("one", 60.0).release()
    (_, of_the_first), (_, of_the_second) = line.due
    of_the_first()
    assert line.removed == []
    of_the_second()
    reason = "timed out waiting for 'user=eve': 1 of 1 slots in use"
    assert line.removed == [("one", reason)]
    holder.release()


@pytest.mark.parametrize(("kept", "ran", "removed"), [(1, 0, 1), (1, 1, 0), (0, 0, 0)])
def test_a_task_that_is_gone_is_reported_unless_it_may_have_run(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, kept: int, ran: int, removed: int
) -> None:
    """The reply to its withdrawal was lost; without markers nobody knows whether it ran."""
    markers = CompletionMarkers(parts.tickets, NAME, 60.0 * kept)
    line = Line(parts.gate, parts.tickets, markers)
    holder = line.ask("holder")
    line.ask("one")
    drop = parts.gate.drop

    def lose_reply(*given: Any, **named: Any) -> bool:
        drop(*given, **named)
        monkeypatch.undo()
        raise StoreUnavailable("its reply was lost")

    monkeypatch.setattr(parts.gate, "drop", lose_reply)
    line.parked.revoke({"one"})
    if ran:
        markers.set("one")
    ((_, again),) = line.due
    again()
    assert line.removed == [("one", "revoked")] * removed
    holder.release()
