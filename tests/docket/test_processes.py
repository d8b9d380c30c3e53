"""Real `docket worker` processes on a real server: shared limits, and kill -9 at every point."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from docket import Docket

from tests.docket._worker_processes import WorkerProcesses
from tests.docket.workers import shop

POINTS = [
    "running",
    pytest.param("before admission", marks=pytest.mark.exhaustive),
    pytest.param("after admission", marks=pytest.mark.slow),
    pytest.param("before parking", marks=pytest.mark.exhaustive),
    pytest.param("after parking", marks=pytest.mark.exhaustive),
    pytest.param("before release", marks=pytest.mark.exhaustive),
    "after release",
]
APART = ["before the notice", "before waking", pytest.param("after waking", marks=pytest.mark.slow)]
"""Points on the way of a notice: the store in the docket's own Redis needs none."""


async def add_bills(
    start_processes: WorkerProcesses, number: int, *, customers: int = 1, seconds: float = 0.02
) -> None:
    async with Docket(name=start_processes.name, url=start_processes.server.url) as docket:
        for each in range(number):
            await docket.add(shop.bill)(each, each % customers, seconds)


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_killed_at_any_point_loses_no_task(
    start_processes: Callable[..., WorkerProcesses], point: str
) -> None:
    await lose_none(start_processes(), point, apart=False)


@pytest.mark.parametrize("point", APART)
async def test_a_worker_killed_while_it_wakes_a_task_does_not_lose_it(
    start_processes: Callable[..., WorkerProcesses], point: str
) -> None:
    await lose_none(start_processes(), point, apart=True)


async def lose_none(processes: WorkerProcesses, point: str, *, apart: bool) -> None:
    await add_bills(processes, 5, seconds=0.1)
    victim = processes.start(kill_at=point, apart=apart)
    processes.wait(lambda: victim.dead, f"it dies at {point!r}")

    processes.start(apart=apart)
    processes.start(apart=apart)
    processes.wait_until_idle()

    assert sorted({what for what, _ in processes.events("end")}) == list("01234")
    begun = [what for what, _ in processes.events("begin")]
    # Only what ran in the killed worker begins a second time: that is Docket's promise.
    assert len(begun) <= 6, begun
    assert processes.most_at_once() == 1


async def test_who_is_killed_right_after_a_release_has_woken_the_next(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    await add_bills(processes, 2, seconds=0.1)
    victim = processes.start(kill_at="after release")
    processes.wait(lambda: victim.dead, "it dies")
    # Both arrived, the second at once: it did not wait until a claim time was over.
    assert processes.server.admin.zcard(f"{processes.name}:queue") == 0
    processes.start()
    processes.wait_until_idle()
    assert {what for what, _ in processes.events("end")} == {"0", "1"}


async def test_two_hundred_tasks_over_four_workers(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    async with Docket(name=processes.name, url=processes.server.url) as docket:
        for each in range(100):
            await docket.add(shop.sync)(each, each % 20, f"region {each % 4}")
            await docket.add(shop.bill)(100 + each, 1000 + each % 20, 0.005)
        await docket.add(shop.flaky)(200)
    for _ in range(4):
        processes.start()
    processes.wait_until_idle()

    ended = [what for what, _ in processes.events("end")]
    assert sorted(ended) == sorted([*map(str, range(200)), "200:1", "200:2", "200:3"])
    assert (
        processes.most_at_once_of(lambda n: n.isdigit() and int(n) < 100 and int(n) % 20 == 0) == 1
    )
    assert (
        processes.most_at_once_of(lambda n: n.isdigit() and int(n) < 100 and int(n) % 4 == 0) <= 3
    )
    assert (
        processes.most_at_once_of(lambda n: n.isdigit() and int(n) >= 100 and int(n) % 20 == 3) == 1
    )


async def test_nobody_overtakes_with_four_workers(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    for _ in range(4):
        processes.start()
    await add_bills(processes, 40, seconds=0.02)
    processes.wait_until_idle()
    order = [int(what) for what, _ in processes.events("begin")]
    # The first few are asked for by four workers at once; after that the line is the line.
    assert order[8:] == sorted(order[8:]), order


async def test_a_retry_keeps_its_budget_while_it_waits(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    async with Docket(name=processes.name, url=processes.server.url) as docket:
        for each in range(3):
            await docket.add(shop.flaky)(each)
    processes.start()
    processes.start()
    processes.wait_until_idle()
    attempts = sorted(what for what, _ in processes.events("end"))
    assert attempts == sorted(f"{each}:{attempt}" for each in range(3) for attempt in (1, 2, 3))
    assert processes.most_at_once() == 1


async def test_sigterm_lets_bodies_end_and_hands_their_slots_on(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    await add_bills(processes, 2, seconds=0.5)
    first = processes.start()
    processes.wait_for("begin", 1)
    second = processes.start()
    assert first.terminate() == 0
    assert len(processes.events("end")) >= 1  # it was waited for
    processes.wait_until_idle()
    assert sorted(what for what, _ in processes.events("begin")) == ["0", "1"]
    assert second.terminate() == 0


async def test_a_blocked_event_loop_keeps_its_slot(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    async with Docket(name=processes.name, url=processes.server.url) as docket:
        await docket.add(shop.blocking)(0, 4.0)  # the lease is 1.5 s, the redelivery after 2 s
        await docket.add(shop.blocking)(1, 0.01)
    processes.start()
    processes.start()
    processes.wait_until_idle()
    assert sorted(what for what, _ in processes.events("begin")) == ["0", "1"]
    assert processes.most_at_once() == 1


async def test_the_latest_wins_over_processes(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    async with Docket(name=processes.name, url=processes.server.url) as docket:
        processes.start()
        processes.start()
        await docket.add(shop.newest, key="old")(1)
        processes.wait_for("begin", 1)
        await docket.add(shop.newest, key="new")(9)
        processes.wait_until_idle()
        assert [what for what, _ in processes.events("end")] == ["1", "9"]
        old, new = await docket.get_execution("old"), await docket.get_execution("new")
        assert old is not None
        assert new is not None
        assert (old.state.value, new.state.value) == ("cancelled", "completed")
    assert processes.most_at_once() == 1


async def test_what_waits_outlives_the_loss_of_all_limiter_data(
    start_processes: Callable[..., WorkerProcesses],
) -> None:
    processes = start_processes()
    await add_bills(processes, 5, seconds=0.5)
    processes.start(backstop=2.0)
    processes.wait_for("begin", 1)
    processes.wait(
        lambda: processes.server.admin.zcard(f"{processes.name}:queue") == 4, "four wait"
    )
    for name in processes.server.admin.keys(f"{processes.name}:limits*"):
        processes.server.admin.delete(name)
    processes.wait_until_idle()
    assert sorted(what for what, _ in processes.events("end")) == list("01234")
    assert processes.most_at_once() == 1
