"""The record counts by its own rules, and the replay tells it everything in order."""

import pytest
import trio

from limiter_cli.demo.calls import Call
from limiter_cli.demo.plan import plan
from limiter_cli.demo.record import Outcome, percentile
from limiter_cli.demo.replay import run_replay
from limiter_core import ConcurrencyLimit, ConfigurationError, StoreUnavailable
from limiter_memory import MemoryStore


def planned(limits, *calls, tmp_path):
    numbered = [
        (line, Call(at=at, function="bill", duration=duration, arguments=arguments))
        for line, (at, duration, arguments) in enumerate(calls, start=1)
    ]
    return plan(numbered, {"bill": limits}, tmp_path / "calls.jsonl")


class LeakyStore(MemoryStore):
    """Admits everybody, whatever the limits say."""

    def acquire(self, request):
        demands = tuple(demand._replace(limit=99) for demand in request.demands)
        return super().acquire(request._replace(demands=demands))


class AbsentStore(MemoryStore):
    """Cannot be reached."""

    def acquire(self, request):
        raise StoreUnavailable("no answer")


def test_a_store_that_lets_too_many_in_is_found_out(tmp_path):
    limits = (ConcurrencyLimit("tenant", 1), ConcurrencyLimit(None, 2))
    calls = planned(limits, *((0, 1.0, {"tenant": tenant}) for tenant in "abb"), tmp_path=tmp_path)

    record = run_replay(calls, store=LeakyStore(clock=trio.current_time), fast=True)

    assert [(e.key, e.in_use, e.limit, e.turn.planned.line) for e in record.excesses] == [
        ("tenant=b", 2, 1, 3),
        ("bill()", 3, 2, 3),
    ]
    assert record.keys["bill()"].peak == 3
    assert {key.key for key in record.busiest()[:2]} == {"tenant=b", "bill()"}


def test_cost_counts_in_slots_and_lanes_are_reused(tmp_path):
    limit = ConcurrencyLimit(None, 3, cost=lambda view: view["slots"])
    calls = planned(
        (limit,),
        (0, 2.0, {"slots": 2}),
        (1, 2.0, {"slots": 1}),
        (1, 2.0, {"slots": 2}),
        tmp_path=tmp_path,
    )

    record = run_replay(calls, fast=True)

    assert record.excesses == []
    assert record.keys["bill()"].peak == 3
    assert [turn.lanes["bill()"] for turn in record.turns] == [(0, 1), (2,), (0, 1)]
    assert [turn.began_at for turn in record.turns] == pytest.approx([0, 1, 2], abs=1e-6)
    assert record.lasted == pytest.approx(4, abs=1e-6)


def test_waiting_is_counted_step_by_step(tmp_path):
    calls = planned(
        (ConcurrencyLimit(None, 1),), (0, 3.0, {}), (1, 1.0, {}), (2, 1.0, {}), tmp_path=tmp_path
    )

    steps = run_replay(calls, fast=True).keys["bill()"].waiting_steps(0.01)

    assert [count for _, _, count in steps] == [1, 2, 1]
    assert [time for at, until, _ in steps for time in (at, until)] == pytest.approx(
        [1, 2, 2, 3, 3, 4], abs=1e-6
    )


def test_speed_hurries_the_calls_and_keeps_the_time_of_the_log(tmp_path):
    calls = planned((ConcurrencyLimit(None, 1),), (0, 3.0, {}), (1, 1.0, {}), tmp_path=tmp_path)

    record = run_replay(calls, fast=True, speed=10.0)

    assert record.lasted == pytest.approx(4, abs=1e-6)


def test_a_store_that_fails_ends_the_replay_with_its_own_error(tmp_path):
    limit = ConcurrencyLimit(None, 1, timeout=0.5)
    calls = planned((limit,), (0, 1.0, {}), (0, 1.0, {}), tmp_path=tmp_path)

    with pytest.raises(StoreUnavailable, match="no answer"):
        run_replay(calls, store=AbsentStore(clock=trio.current_time), fast=True)


def test_an_unknown_store_is_a_wrong_url(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        run_replay(planned((), (0, 1.0, {}), tmp_path=tmp_path), store="nowhere://")


def test_what_runs_beside_is_cancelled_at_the_end(tmp_path):
    seen = []

    async def watch(replay):
        while True:
            seen.append(replay.now())
            await trio.sleep(1)

    calls = planned((ConcurrencyLimit(None, 1),), (0.5, 2.0, {}), tmp_path=tmp_path)
    record = run_replay(calls, fast=True, watch=watch)

    assert record.count(Outcome.RAN) == 1
    assert seen == pytest.approx([0, 1, 2], abs=1e-6)


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (50, 5), (51, 6), (95, 10), (100, 10)]
)
def test_percentiles_are_nearest_rank(percent, value):
    assert percentile(list(range(1, 11)), percent) == value
    assert percentile([7], percent) == 7
