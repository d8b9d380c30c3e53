"""What goes to a store has a length that no caller can stretch."""

import pytest

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    SyncLease,
    SyncLimiter,
)
from limiter_core._prepare import demands_of, run_now
from limiter_core.jobs import Job, SyncJobGate, Waiting

LONG = "x" * 1_000_000


def groups(*tenants):
    limit = ConcurrencyLimit(LIMIT_BY.constant("k"), fair_by="tenant")
    views = [ArgumentView({"tenant": tenant}) for tenant in tenants]
    return [run_now(demands_of((limit,), view))[0].group for view in views]


def test_the_group_of_a_fair_limit_is_bounded_as_keys_are_and_stays_different():
    first, second, short = groups(LONG + "1", LONG + "2", "short")

    assert max(len(first), len(second)) <= 200
    assert first != second
    assert short == "tenant=short"


def test_a_label_is_cut():
    with SyncLimiter(label=LONG) as limiter:
        limit = ConcurrencyLimit(LIMIT_BY.constant("k"))
        with limiter.hold(limit):
            (holder,) = limiter.inspect(limit).holders

    assert len(holder.label) == 1000
    assert holder.label.endswith("x…")


def test_a_job_s_label_is_cut():
    limit = ConcurrencyLimit(LIMIT_BY.constant("k"))
    with SyncLimiter() as limiter:
        gate = SyncJobGate(limiter._engine.store, "jobs", wake=lambda notice: None)
        lease = gate.admit(Job("1", limit, ArgumentView({}), label=LONG))
        (holder,) = limiter.inspect(limit).holders
        assert isinstance(lease, SyncLease)
        lease.release()

    assert len(holder.label) == 1000


def test_a_job_s_ticket_is_bounded_and_stays_different():
    limit = ConcurrencyLimit(LIMIT_BY.constant("k"))
    woken = []
    with SyncLimiter() as limiter:
        gate = SyncJobGate(limiter._engine.store, "jobs", wake=woken.append)
        first = gate.admit(Job(LONG + "1", limit, ArgumentView({}), b"first"))
        for number in "234":
            waiting = gate.admit(Job(LONG + number, limit, ArgumentView({}), number.encode()))
            assert isinstance(waiting, Waiting)
        ids = [waiter.id for waiter in limiter.inspect(limit).waiters]
        assert len(set(ids)) == 3
        assert max(len(each) for each in ids) <= 500

        assert gate.drop(LONG + "2"), "it is found by the id that the queue knows"
        first.release()
        assert [notice.payload for notice in woken] == [b"3"]
        again = gate.admit(Job(LONG + "3", limit, ArgumentView({}), b"3"))
        assert isinstance(again, SyncLease)
        again.release()
        assert gate.drop(woken[-1].id), "and by the one that a notice names"


def test_a_gate_s_name_that_is_longer_than_any_is_refused():
    with (
        SyncLimiter() as limiter,
        pytest.raises(ConfigurationError, match="at most 500") as refusal,
    ):
        SyncJobGate(limiter._engine.store, LONG, wake=lambda notice: None)

    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("act", ["inspect", "pause", "resume", "reset_limit"])
def test_a_key_that_is_longer_than_any_is_refused(act):
    with (
        SyncLimiter() as limiter,
        pytest.raises(ConfigurationError, match="at most 401") as refusal,
    ):
        getattr(limiter, act)(LONG)

    assert len(str(refusal.value)) < 300


def test_the_longest_key_there_can_be_is_taken():
    limit = ConcurrencyLimit("value", scope="s" * 1000)
    with SyncLimiter() as limiter:
        key = limiter.key_for(limit, {"value": LONG})
        with limiter.hold(limit, {"value": LONG}):
            assert limiter.inspect(key).in_use == 1
