"""Our scripts leave Docket's keys as Docket's own scripts would: a new release of it is noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from docket import Docket, Execution

from limiter_docket._queue import bring_forward, park, parked_task, when_of


async def bill(n: int, *, times: int = 1) -> None: ...


async def delivered(docket: Docket, key: str) -> Execution:
    """Add a task, and take it as a worker does."""
    await docket.add(bill, key=key)(1, times=2)
    async with docket.redis() as redis:
        await docket._ensure_stream_and_group()
        [[_, [[message_id, message]]]] = await redis.xreadgroup(
            docket.worker_group_name, "w", {docket.stream_key: ">"}, 1
        )
    execution = await Execution.from_message(docket, message, message_id=message_id)
    assert await execution.claim("w")
    return execution


async def keys_of(docket: Docket, key: str) -> dict[str, Any]:
    async with docket.redis() as redis:
        return {
            "parked": await redis.hgetall(docket.parked_task_key(key)),
            "run": await redis.hgetall(docket.runs_key(key)),
            "queue": await redis.zscore(docket.queue_key, key),
            "stream": await redis.xlen(docket.stream_key),
        }


async def test_parking_is_rescheduling(any_docket: Docket) -> None:
    theirs, ours = await delivered(any_docket, "a"), await delivered(any_docket, "b")
    at = datetime.now(UTC) + timedelta(hours=1)
    wanted = when_of(ours)
    theirs.when = at
    await theirs.schedule(reschedule_message=theirs.message_id)
    assert await park(ours, ("k", "s/j"), at.timestamp()) == "parked"

    left, right = await keys_of(any_docket, "a"), await keys_of(any_docket, "b")
    assert right["run"].pop(b"limiter") == f"{wanted} k s/j".encode()
    # It keeps the time for which it was wanted; only its place in the queue is later.
    assert right["parked"].pop(b"when") == ours.when.isoformat().encode()
    assert float(right["run"].pop(b"when")) == ours.when.timestamp()
    for each, field in (("parked", b"when"), ("run", b"when")):
        del left[each][field]
    assert left["parked"].pop(b"key") == b"a"
    assert right["parked"].pop(b"key") == b"b"
    assert float(left["run"].pop(b"known")) == float(right["run"].pop(b"known"))
    assert left == right
    name = ours.function_name
    assert await parked_task(any_docket, "b") == (False, wanted, ("k", "s/j"), name)
    await any_docket.cancel("b")
    assert await parked_task(any_docket, "b") == (True, wanted, ("k", "s/j"), name)
    assert (await parked_task(any_docket, "a"))[:3] == (False, "", ())


async def test_bringing_forward_is_what_the_scheduler_does(any_docket: Docket) -> None:
    first = await delivered(any_docket, "a")
    await park(first, ("k",), datetime.now(UTC).timestamp() + 3600)
    when, later = (repr(first.when.timestamp() + each) for each in (0, 1e-6))
    assert not await bring_forward(any_docket, "a", later), "another ticket's task"
    assert await bring_forward(any_docket, "a", when_of(first))
    after = await keys_of(any_docket, "a")
    assert (after["parked"], after["queue"], after["stream"]) == ({}, None, 1)
    assert after["run"][b"state"] == b"queued"
    assert await bring_forward(any_docket, "a", when), "it is on its way"
    assert not await bring_forward(any_docket, "a", later)

    async with any_docket.redis() as redis:
        [[_, [[message_id, message]]]] = await redis.xreadgroup(
            any_docket.worker_group_name, "w", {any_docket.stream_key: ">"}, 1
        )
    assert message_id.decode() == after["run"][b"stream_id"].decode()
    assert set(message) == {*first.as_message()}
    again = await Execution.from_message(any_docket, message, message_id=message_id)
    assert (again.args, again.kwargs, again.attempt) == ((1,), {"times": 2}, 1)
    assert (again.when, again.generation) == (first.when, 2)
    assert await again.claim("w")
    assert await bring_forward(any_docket, "a", when_of(first)), "a worker has it"
    await again.mark_as_completed()
    assert not await bring_forward(any_docket, "a", when_of(first))


async def test_what_was_cancelled_or_replaced_meanwhile_is_not_parked(any_docket: Docket) -> None:
    at = datetime.now(UTC).timestamp() + 3600
    cancelled = await delivered(any_docket, "a")
    await any_docket.cancel("a")
    assert await park(cancelled, ("k",), at) == "cancelled"

    replaced = await delivered(any_docket, "b")
    await any_docket.replace(bill, datetime.now(UTC) + timedelta(hours=2), "b")(3)
    before = await keys_of(any_docket, "b")
    assert await park(replaced, ("k",), at) == "gone"
    after = await keys_of(any_docket, "b")
    assert (before["parked"], before["run"]) == (after["parked"], after["run"])
    assert not await bring_forward(any_docket, "b", when_of(replaced))

    ended = await delivered(any_docket, "c")
    await ended.mark_as_completed()
    assert await park(ended, ("k",), at) == "gone"


async def test_a_slot_that_is_offered_before_its_task_is_parked_is_not_missed(
    any_docket: Docket,
) -> None:
    taken = await delivered(any_docket, "a")
    assert await bring_forward(any_docket, "a", when_of(taken)), "its worker asks, or parks it"
    at = datetime.now(UTC).timestamp() + 3600
    assert await park(taken, ("k",), at) == "parked"
    assert (await keys_of(any_docket, "a"))["run"][b"state"] == b"queued"


async def test_a_worker_that_died_before_it_asked_keeps_no_slot(any_docket: Docket) -> None:
    taken = await delivered(any_docket, "a")
    assert await bring_forward(any_docket, "a", when_of(taken)), "it may be about to ask"
    assert not await bring_forward(any_docket, "a", when_of(taken)), "it had a whole claim for it"


async def test_another_delivery_of_the_same_task_goes_on(any_docket: Docket) -> None:
    first = await delivered(any_docket, "a")
    async with any_docket.redis() as redis:
        [[message_id, message]] = await redis.xrange(any_docket.stream_key)
    second = await Execution.from_message(any_docket, message, message_id=message_id)
    assert await second.claim("other")
    at = datetime.now(UTC).timestamp() + 3600
    assert await park(first, ("k",), at) == "moved", "the other has it"
    assert await park(second, ("k",), at) == "parked"
    assert await park(first, ("k",), at) == "moved", "it waits"
    assert await bring_forward(any_docket, "a", when_of(first))
    assert await park(first, ("k",), at) == "moved", "it is on its way"
