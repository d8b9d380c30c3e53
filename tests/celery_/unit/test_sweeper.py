"""The gate is swept until the worker closes; revokes from before it started are loaded."""

from __future__ import annotations

import pytest

from limiter_celery._delivery import job_of
from limiter_celery._revocations import Revocations
from limiter_celery._sweeper import Sweeper
from limiter_core import StoreUnavailable
from limiter_core.jobs import CLAIM

from ._parts import NAME, Parts


@pytest.fixture
def sweeper(parts: Parts) -> Sweeper:
    return Sweeper(
        gate=parts.gate,
        revocations=parts.revocations,
        scheduler=parts.scheduler,
        worker=parts.worker,
    )


def test_a_slot_that_was_not_claimed_in_time_is_offered_again(
    parts: Parts, sweeper: Sweeper
) -> None:
    holder = parts.receive("one")
    parts.admission.admit(holder)
    waits = job_of(parts.receive("one"))
    assert waits is not None
    parts.gate.admit(waits)
    parts.releases.on_end(holder)
    parts.clock.advance(CLAIM + 1.0)
    sweeper.start()
    parts.finish()
    assert [each.id for each in parts.notices] == [waits.ticket] * 2
    assert parts.of_own_steps == [True, True]
    parts.gate.drop(waits.ticket)


def test_revokes_from_before_the_worker_started_are_loaded(parts: Parts, sweeper: Sweeper) -> None:
    Revocations(parts.tickets, NAME, 60.0).note("one")
    sweeper.start()
    parts.finish()
    assert parts.revocations.loaded
    assert parts.revocations.cover("one", {}, 0.0)


def test_a_store_that_is_away_is_swept_later(
    without_store: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    parts = without_store
    with pytest.raises(StoreUnavailable):
        parts.gate.sweep()
    sweeper = Sweeper(
        gate=parts.gate,
        revocations=parts.revocations,
        scheduler=parts.scheduler,
        worker=parts.worker,
    )
    sweeper.start()
    parts.finish()
    assert not parts.revocations.loaded
    assert "scheduled function failed" not in caplog.text
    assert caplog.text.count("the store cannot be used") == 1
