"""What the log says of jobs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from limiter_core import ArgumentView, ConcurrencyLimit, LimitReached
from limiter_core.jobs import Job
from limiter_core.testing import FakeClock
from limiter_memory import MemoryStore

from ._gates import KEY, ONE, Gate, job

CANCEL = ConcurrencyLimit("customer", 1, on_conflict="cancel")


@pytest.fixture(params=["sync", "async"])
def gate(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Gate]:
    gate = Gate(request.param, MemoryStore(clock=clock), "arq:shop")
    yield gate
    gate.close()


def test_what_happens_to_a_job_is_logged(
    gate: Gate, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "limiter")
    asking = Job("2", ONE, ArgumentView({"customer": 42}, "shop.bill"), b"2", None, "bill(2)")
    first = gate.take(job("1"))
    gate.park(asking)
    clock.advance(1)
    gate.release(first)
    gate.release(gate.take(asking))
    messages = [record.message for record in caplog.records]
    assert messages[0] == "bill(2) waits for 'customer=42': 1 of 1 slots in use"
    assert messages[1].startswith("bill(2) got its slot of 'customer=42' after 1.0")
    assert len(messages) == 2
    fields = vars(caplog.records[0])
    assert (fields["adapter"], fields["function"], fields["lease_id"]) == ("arq", "shop.bill", "2")


def test_a_json_formatter_shows_the_fields(gate: Gate, clock: FakeClock) -> None:
    """As any formatter that writes what a record has beside the standard attributes."""
    standard = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    class JsonFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            fields = {name: each for name, each in vars(record).items() if name not in standard}
            return json.dumps({"event": record.getMessage(), "level": record.levelname, **fields})

    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("limiter")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        limit = ConcurrencyLimit("customer", 1, name="billing")
        first = gate.take(job("1", limit))
        clock.advance(0.5)
        gate.park(job("2", limit))
        clock.advance(1.5)
        gate.drop("2#1")
        with pytest.raises(LimitReached):
            gate.admit(job("3", CANCEL))
        gate.release(first)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    queued, cancelled, refused = (json.loads(line) for line in written.getvalue().splitlines())
    assert queued == {
        "event": queued["event"],
        "level": "INFO",
        "outcome": "queued",
        "limit": "billing",
        "key": KEY,
        "function": None,
        "adapter": "arq",
        "lease_id": "2#1",
    }
    assert (cancelled["outcome"], cancelled["waited"]) == ("cancelled", pytest.approx(1.5))
    assert (refused["outcome"], refused["limit"], refused["waited"]) == ("full", "customer", 0)
