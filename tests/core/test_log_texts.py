"""Texts that callers give begin no line of a log or a paragraph, and bring no escapes there."""

from __future__ import annotations

import logging

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
from limiter_core.arguments import ArgumentView
from limiter_core.jobs import Job, SyncJobGate
from limiter_memory import MemoryStore

ONE = ConcurrencyLimit(LIMIT_BY.constant("one"))

HOSTILE = "job\nERROR forged\r\x1b[31m\u2028%s %d"
SHOWN = "job?ERROR forged??[31m?%s %d"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_label(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    limiter = SyncLimiter(store, label=HOSTILE)
    with caplog.at_level(logging.DEBUG, "limiter"), limiter.hold(ONE):
        (holder,) = store.inspect("one").holders
        assert holder.label == SHOWN
        assert SHOWN in str(limiter.explain(ONE))
        assert str(limiter.explain(ONE)).isprintable()
    assert lines(caplog)[0] == f"{SHOWN} got its slot of 'one'"
    assert all(line.isprintable() for line in lines(caplog))


def test_the_label_and_the_id_of_a_job(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = SyncLimiter(store)
    gate = SyncJobGate(store, "tests:queue", lambda _: True)
    try:
        with caplog.at_level(logging.INFO, "limiter"), limiter.hold(ONE):
            gate.admit(Job(HOSTILE, ONE, ArgumentView({}), label=HOSTILE))
            (waiter,) = store.inspect("one").waiters
            assert waiter.label == SHOWN
            assert gate.drop(HOSTILE)
            gate.report_removed(f"{HOSTILE} of another worker")
    finally:
        gate.close()
    waits, left, unknown = lines(caplog)
    assert waits.startswith(f"{SHOWN} waits for 'one'")
    assert left.startswith(f"{SHOWN} left the queue of 'one'")
    assert unknown == f"{SHOWN} of another worker left the queue of its limit"
