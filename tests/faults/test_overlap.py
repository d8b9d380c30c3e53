"""The overlap recorder finds each violation, and excuses no more than it should."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.redis._servers import PATIENCE
from tests.redis._tools import until_now

from ._events import disagreements
from ._overlap import IN_FLIGHT, Body, History, check, read

LIMITS = {"one": 1, "two": 2}
LEASE = 10.0

_tokens = iter(range(1, 1_000_000))


def body(
    begin: float, end: float = float("inf"), *, process: int = 1, key: str = "one", cost: int = 1
) -> Body:
    token = next(_tokens)
    return Body(process, f"lease-{token}", {key: cost}, token, begin, end)


def violations(*bodies: Body, history: History | None = None) -> list[str]:
    return check(bodies, LIMITS, history or History(), LEASE).violations


def test_bodies_in_turn_are_fine() -> None:
    assert violations(body(0, 5), body(5, 7, process=2)) == []


def test_bodies_at_once_are_not() -> None:
    [told] = violations(body(0, 5), body(4.5, 7, process=2))
    assert "'one': 2 of 1 slots in use at 4.5000 for 0.5000 s" in told
    assert "process 2" in told


def test_slots_are_counted_not_bodies() -> None:
    assert violations(body(0, 5, key="two"), body(1, 6, key="two")) == []
    assert len(violations(body(0, 5, key="two"), body(1, 6, key="two", cost=2))) == 1


def test_a_body_without_an_end_goes_on_until_its_process_was_killed() -> None:
    history = History(killed={1: 3.0})
    assert violations(body(0), body(3, 5, process=2), history=history) == []
    assert len(violations(body(0), body(2.9, 5, process=2), history=history)) == 1


def test_a_body_without_an_end_in_a_process_that_lives_is_a_violation() -> None:
    [told] = violations(body(0))
    assert told.startswith("never ended")


def test_a_frozen_body_does_not_count_while_it_is_frozen() -> None:
    history = History()
    history.thawed(1, 1.0, 20.0)
    assert violations(body(0, 20.5), body(11, 30, process=2), history=history) == []


def test_a_body_that_wakes_is_excused_for_one_lease() -> None:
    history = History()
    history.thawed(1, 1.0, 20.0)
    found = check([body(0, 29.9), body(11, 40, process=2)], LIMITS, history, LEASE)
    assert found.violations == []
    assert found.longest == pytest.approx(9.9)
    assert found.reach == pytest.approx(9.9)
    assert found.faults == 1
    assert len(violations(body(0, 30.1), body(11, 40, process=2), history=history)) == 1


def test_a_frozen_process_excuses_no_other_and_nothing_that_begins_later() -> None:
    history = History()
    history.thawed(1, 1.0, 20.0)
    late = body(21, 25), body(22, 26, process=2)
    others = body(0, 25, process=3), body(11, 30, process=2)
    assert len(violations(*late, history=history)) == 1
    assert len(violations(*others, history=history)) == 1


def test_lost_data_excuses_those_that_had_begun_for_one_lease() -> None:
    history = History()
    history.forgot("flushed", 10.0, 10.01)
    assert violations(body(0, 19), body(10.5, 30, process=2), history=history) == []
    assert len(violations(body(0, 21), body(10.5, 30, process=2), history=history)) == 1
    late = 10.01 + IN_FLIGHT
    newer = body(late, 15), body(late + 1, 16, process=2)
    assert len(violations(*newer, history=history)) == 1


def test_an_excuse_does_not_make_room_for_more_than_its_own() -> None:
    history = History()
    history.forgot("flushed", 10.0, 10.01)
    newer = body(10.5, 12, process=2), body(11, 13, process=3)
    assert len(violations(body(0, 19), *newer, history=history)) == 1


def test_tokens_that_repeat_or_fall_are_violations() -> None:
    first, second = body(0, 1), body(2, 3)
    second.token = first.token
    assert any("twice" in told for told in violations(first, second))
    second.token = first.token - 1
    assert any("do not rise" in told for told in violations(first, second))


def test_a_process_that_takes_no_slot_is_seen(tmp_path: Path) -> None:
    """Real processes, and a store that says yes to all: so the trials can fail."""
    notes = tmp_path / "new"
    given = {"url": "memory://", "world": "threads", "limits": {"one": 6, "two": 6, "three": 6}}
    script = Path(__file__).parent / "workers" / "holder.py"
    process = subprocess.Popen(
        [sys.executable, str(script), json.dumps({**given, "lease": 5, "notes": str(notes)})],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    until_now(lambda: notes.exists() and notes.stat().st_size > 50_000, "it is busy")
    process.kill()
    process.communicate(timeout=PATIENCE)
    history = History(killed={process.pid: time.monotonic()})
    path = notes.rename(tmp_path / f"{process.pid}.notes")
    found = check(read([path]), {"one": 1, "two": 2, "three": 3}, history, 5.0)
    assert found.violations
    assert found.peak["one"] == 2, "there are two callers of this kind"


def test_events_that_disagree_with_bodies_are_found(tmp_path: Path) -> None:
    def found(*noted: str, bodies: str = "", killed: bool = False) -> list[str]:
        events = [
            json.dumps(dict(zip(("event", "id"), each.split(), strict=True))) for each in noted
        ]
        (tmp_path / "7.events").write_text("".join(f"{event}\n" for event in events) + "cut o")
        return disagreements([tmp_path / "7.events"], {7: bodies.split()}, {7} if killed else set())

    once = "Granted a", "Released a"
    assert found(*once, *once, "Granted b", "Lost b", bodies="a a b") == []
    assert found("Granted a", bodies="a") == ["process 7: a has no end"]
    assert found("Granted a", bodies="a", killed=True) == []
    assert found(*once, bodies="a b") == ["process 7: b has no Granted"]
    assert found(*once, "Released a") == ["process 7: Released of a comes twice"]
    assert found("Granted a", "Granted a", *["Released a"] * 2) == [
        "process 7: Granted of a comes twice"
    ]
    assert found("Released a", "Granted a")[0] == "process 7: Released of a comes twice"
