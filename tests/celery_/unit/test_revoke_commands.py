"""Every remote control command that revokes ends the waiting, and is noted in the store."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from celery.utils.collections import AttributeDict
from celery.worker import state
from celery.worker.control import Panel

from limiter_celery._revoke_commands import RevokeReceiver

from ._parts import NAME, Parts


@pytest.fixture
def receiver(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Iterator[RevokeReceiver]:
    for command in ("revoke", "terminate", "revoke_by_stamped_headers"):
        monkeypatch.setitem(Panel.data, command, Panel.data[command])
    receiver = RevokeReceiver(
        parked_tasks=parts.parked_tasks,
        revocations=parts.revocations,
        scheduler=parts.scheduler,
        store_scheduler=parts.scheduler,
    )
    receiver.subscribe()
    receiver.subscribe()
    yield receiver
    state.revoked.clear()
    state.revoked_stamps.clear()


@pytest.fixture
def waiting(parts: Parts) -> list[Any]:
    """Three tasks that wait, and are stamped with the numbers 0, 1 and 2."""
    parts.admission.admit(parts.receive("one"))
    tasks = [
        parts.receive("one", stamped_headers=["tenant"], tenant=[str(number)])
        for number in range(3)
    ]
    for each in tasks:
        with pytest.raises(Exception, match=each.id):
            parts.admission.admit(each)
    return tasks


def control(parts: Parts, command: str, *args: Any, **kwargs: Any) -> Any:
    """Carry out a command as a worker does that received it."""
    given = AttributeDict(app=parts.app, hostname="unit", consumer=parts.consumer, tset=set)
    return Panel.data[command](given, *args, **kwargs)


def left(parts: Parts, waiting: list[Any]) -> list[int]:
    """Return which of the tasks still wait."""
    parts.finish()
    gone = {ticket for ticket, _ in parts.removed()}
    return [number for number in range(3) if waiting[number].delivery.ticket not in gone]


def test_by_id(parts: Parts, receiver: RevokeReceiver, waiting: list[Any]) -> None:
    assert "ok" in control(parts, "revoke", waiting[1].id)
    assert left(parts, waiting) == [0, 2]
    assert [reason for _, reason in parts.removed()] == ["revoked"]


def test_by_ids_as_a_keyword(parts: Parts, receiver: RevokeReceiver, waiting: list[Any]) -> None:
    control(parts, "revoke", task_id=[waiting[0].id, waiting[1].id])
    assert left(parts, waiting) == [2]


def test_by_terminate(parts: Parts, receiver: RevokeReceiver, waiting: list[Any]) -> None:
    control(parts, "terminate", "KILL", waiting[2].id)
    assert left(parts, waiting) == [0, 1]


def test_by_stamps(parts: Parts, receiver: RevokeReceiver, waiting: list[Any]) -> None:
    control(parts, "revoke_by_stamped_headers", {"tenant": ["0", "2"]})
    assert left(parts, waiting) == [1]


@pytest.mark.parametrize("by_stamp", [False, True])
def test_a_pool_that_cannot_terminate_another_one_of_them(
    parts: Parts, receiver: RevokeReceiver, waiting: list[Any], by_stamp: bool
) -> None:
    """As that of threads, or this one: Celery's command raises, after it has revoked them all."""
    running = parts.receive("one", stamped_headers=["tenant"], tenant=["1"])
    running.time_start = 1.0
    state.task_reserved(running)
    state.task_accepted(running)
    ids = [running.id, waiting[1].id]
    command = ("revoke_by_stamped_headers", {"tenant": ["1"]}) if by_stamp else ("revoke", ids)
    with pytest.raises(NotImplementedError):
        control(parts, *command, terminate=True)
    state.task_ready(running)
    assert left(parts, waiting) == [0, 2]
    parts.revocations.load()
    assert parts.revocations.cover(waiting[1].id, {"tenant": ["1"]}, 0.0)


def test_a_command_that_celery_refuses_revokes_nothing(
    parts: Parts, receiver: RevokeReceiver, waiting: list[Any]
) -> None:
    """There is no such signal: of stamps it looks for that before it revokes."""
    with pytest.raises(AttributeError, match="SIGNOTHING"):
        control(parts, "revoke_by_stamped_headers", {"tenant": ["1"]}, signal="NOTHING")
    assert not state.revoked_stamps
    assert left(parts, waiting) == [0, 1, 2]
    parts.revocations.load()
    assert not parts.revocations.cover(waiting[1].id, {"tenant": ["1"]}, 0.0)


def test_a_revoke_is_noted_for_workers_that_start_later(
    parts: Parts, receiver: RevokeReceiver
) -> None:
    control(parts, "revoke", "a")
    control(parts, "revoke_by_stamped_headers", {"tenant": ["x"]})
    parts.finish()
    parts.revocations.load()
    assert parts.revocations.cover("a", {}, 0.0)
    assert parts.revocations.cover("b", {"tenant": ["x"]}, 0.0)
    assert parts.tickets.inspect(f"{NAME}:revoked").in_use == 2


def test_a_receiver_that_is_gone_receives_nothing(parts: Parts) -> None:
    receiver = RevokeReceiver(
        parked_tasks=parts.parked_tasks,
        revocations=parts.revocations,
        scheduler=parts.scheduler,
        store_scheduler=parts.scheduler,
    )
    receiver.subscribe()
    reference = weakref.ref(receiver)
    del receiver
    gc.collect()
    assert reference() is None
