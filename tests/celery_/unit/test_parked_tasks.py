"""Tasks whose waiting ends before their turn comes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from limiter_celery import ConcurrencyLimit
from limiter_celery._parked_tasks import ParkedTasks
from limiter_core import StoreUnavailable
from limiter_core.arguments import ArgumentView
from limiter_core.jobs import Job, Waiting
from limiter_core.requests import Granted

from ._parts import NAME, Parts


class Line:
    """Tasks that wait for one slot, and what is due."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.due: list[tuple[float, Callable[[], object]]] = []
        self.parked = ParkedTasks(
            parts.tickets,
            parts.starts,
            parts.reasons,
            lambda seconds, function: self.due.append((seconds, function)),
        )

    @property
    def removed(self) -> list[tuple[str, str]]:
        """Each that was taken out of the line, and why."""
        return self._parts.removed()

    def ask(self, ticket: str, timeout: float | None = None, **request: Any) -> Any:
        """Ask for the slot; whoever has to wait is parked."""
        limits = ConcurrencyLimit("user", timeout=timeout)
        job = Job(ticket, limits, ArgumentView({"user": "eve"}), payload=b"{}")
        outcome = self._parts.gate.admit(job)
        if isinstance(outcome, Waiting):
            given = {"id": ticket, "name": "one", "stamps": {}, "expires": None} | request
            self.parked.add(SimpleNamespace(**given), job, outcome)
        return outcome

    def is_waiting(self, ticket: str) -> bool:
        return isinstance(self.ask(ticket), Waiting)


@pytest.fixture
def line(parts: Parts) -> Line:
    return Line(parts)


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


def test_a_task_whose_end_it_did_not_hear_of_is_asked_for_once_more(
    parts: Parts, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply was lost. The store has its end, and tells the workers of it."""
    holder = line.ask("holder")
    line.ask("one")
    evict = parts.tickets.evict_waiter

    def lose_reply(*given: Any) -> bool:
        evict(*given)
        monkeypatch.undo()
        raise StoreUnavailable("its reply was lost")

    monkeypatch.setattr(parts.tickets, "evict_waiter", lose_reply)
    line.parked.revoke({"one"})
    ((_, again),) = line.due
    again()
    assert line.removed == [("one", "revoked")]
    assert len(line.due) == 1
    holder.release()


def test_a_task_that_is_about_to_start_is_left_alone(parts: Parts, line: Line) -> None:
    """A delivery within a worker claims its slot when its body has started."""
    holder = line.ask("holder")
    line.ask("one")
    assert parts.starts.reserve("one", "a delivery")
    line.parked.revoke({"one"})
    assert line.removed == []
    parts.starts.release("one", "a delivery")
    ((_, again),) = line.due
    again()
    assert line.removed == [("one", "revoked")], "it did not start, and waits still"
    holder.release()


def test_a_task_whose_waiting_is_being_ended_does_not_start(
    parts: Parts, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was granted when it was looked at already: the end of its waiting comes first."""
    holder = line.ask("holder")
    line.ask("one")
    evict = parts.tickets.evict_waiter
    may_start: list[bool] = []

    def granted_before(ticket: str, keys: Sequence[str]) -> bool:
        holder.release()
        (notice,) = parts.notices
        assert isinstance(notice.answer, Granted)
        grant = tuple(keys), notice.answer.fencing_token
        may_start.append(parts.starts.reserve_unclaimed(ticket, "a delivery", *grant))
        ended = evict(ticket, keys)
        may_start.append(parts.starts.reserve_unclaimed(ticket, "a delivery", *grant))
        return ended

    monkeypatch.setattr(parts.tickets, "evict_waiter", granted_before)
    line.parked.revoke({"one"})
    may_start.append(parts.starts.reserve("one", "a delivery"))
    assert may_start == [False, False, True]
    assert line.removed == [("one", "revoked")]


def test_no_reason_is_left_of_a_task_that_runs(
    parts: Parts, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited when it was looked at, and a delivery that reserves no start claimed its slot."""
    holder = line.ask("holder")
    line.ask("one")
    evict = parts.tickets.evict_waiter
    leases: list[Any] = []

    def claimed_before(ticket: str, keys: Sequence[str]) -> bool:
        holder.release()
        leases.append(line.ask("one"))
        return evict(ticket, keys)

    monkeypatch.setattr(parts.tickets, "evict_waiter", claimed_before)
    line.parked.revoke({"one"})
    assert line.removed == []
    assert parts.tickets.inspect(f"{NAME}:reasons").in_use == 0
    leases[0].release()
