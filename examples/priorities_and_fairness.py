"""Priorities and fairness: which waiter is served next.

A clinic has one doctor. First the doctor sees the patients by urgency, and in order of arrival if
the urgency is equal. Then two insurers send patients: the big insurer sends many, the small one
sends two. The insurers take turns, so the patients of the small one do not wait for all patients
of the big one.

It prints::

    by urgency: heart attack, broken arm, cough, check-up
    in turns: big 1, small 1, big 2, small 2, big 3, big 4
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution, Limiter

limiter = Limiter("memory://")
by_urgency = ConcurrencyLimit(
    LIMIT_BY.constant("doctor"),
    on_conflict=ConflictResolution.PRIORITY,
    priority=lambda call: call["urgency"],
)
in_turns = ConcurrencyLimit(LIMIT_BY.constant("doctor"), fair_by="insurer")


async def order_of_service(
    limit: ConcurrencyLimit, patients: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Let all patients arrive while the doctor is busy, and return the order of their visits."""
    seen: list[str] = []

    async def visit(patient: Mapping[str, Any]) -> None:
        async with limiter.hold(limit, patient):
            seen.append(patient["name"])

    busy = limiter.hold(limit, {"urgency": 0, "insurer": None})
    async with asyncio.TaskGroup() as waiting_room, busy:
        for patient in patients:
            waiting_room.create_task(visit(patient))
        while (await limiter.inspect(limit, patients[0])).waiting < len(patients):
            await asyncio.sleep(0)
    return seen


async def main() -> None:
    arrivals = [("cough", 1), ("check-up", 1), ("broken arm", 5), ("heart attack", 9)]
    patients = [{"name": name, "urgency": urgency} for name, urgency in arrivals]
    print("by urgency:", ", ".join(await order_of_service(by_urgency, patients)))

    crowd = ["big 1", "big 2", "big 3", "big 4", "small 1", "small 2"]
    patients = [{"name": name, "insurer": name.split()[0]} for name in crowd]
    print("in turns:", ", ".join(await order_of_service(in_turns, patients)))


asyncio.run(main())
