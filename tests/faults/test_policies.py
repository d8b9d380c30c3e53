"""An operator changes a limit by its name while real workers of a job queue use it (S22)."""

from __future__ import annotations

import pytest

from ._web_and_workers import JOBS, Scene

pytestmark = pytest.mark.timeout(180)

NAME = "one"
"""The name of the limit that the jobs are under; it is derived from their key."""


def test_a_pause_holds_for_workers_of_before_and_after_it(scene: Scene) -> None:
    """Jobs wait while it lasts, also those of a worker that starts then; it ends by itself."""
    lease = scene.park()
    scene.web.pause_name(NAME)
    scene.release(lease)
    (old,) = scene.workers.see_to(1)
    old.kill()
    scene.workers.see_to(1)
    scene.until(lambda: scene.present() == 1, "the new worker is there")
    assert scene.waiting() == JOBS, scene.workers.said()
    assert scene.web.try_acquire(scene.limit, {}) is None
    scene.web.pause_name(NAME, lasts=1.0)
    scene.until_done(in_order=False)
    assert not scene.web.policies()


def test_a_number_is_kept_by_all_holders_and_waiters(scene: Scene) -> None:
    """No job runs at 0; they run at 1, one at a time, though two workers are there."""
    scene.web.set_name_limit(NAME, "0%")
    scene.enqueue()
    scene.workers.see_to(2)
    scene.until(lambda: scene.waiting() == JOBS, "all jobs wait")
    assert {waiter.limit for waiter in scene.web.inspect(NAME).waiters} == {0}
    scene.web.set_name_limit(NAME, 1)
    scene.until_done(in_order=False)
    scene.web.reset_name_limit(NAME)
