"""A web process and the workers of a job queue share a limit, and the workers go away.

The jobs that wait block no others, keep their places, and are done when a worker is back.
"""

from __future__ import annotations

import pytest

from limiter_core import SyncLease
from limiter_core.requests import PRESENCE

from ._trial import in_the_long_run
from ._web_and_workers import CLAIM, JOBS, NOISE, Scene

pytestmark = pytest.mark.timeout(180)


def is_served_again(scene: Scene, lease: SyncLease) -> None:
    """The web process releases and asks again, behind all jobs: it gets in, in bounded time."""
    scene.release(lease)
    scene.release(scene.acquire(timeout=CLAIM + PRESENCE + NOISE))
    assert not scene.workers.done() - {-1}


def test_workers_stop(scene: Scene) -> None:
    """A deploy that takes its time: they leave before they end, so no call waits for them."""
    lease = scene.park()
    for worker in scene.workers.see_to(1):
        worker.stop()
    assert scene.dormant() == JOBS, scene.workers.said()
    is_served_again(scene, lease)
    assert scene.dormant() == JOBS
    scene.until_done()


def test_workers_are_killed(scene: Scene) -> None:
    """They are missed after some seconds."""
    lease = scene.park()
    for worker in scene.workers.see_to(1):
        worker.kill()
    is_served_again(scene, lease)
    scene.until(lambda: scene.dormant() == JOBS, "the jobs are dormant")
    scene.until_done(in_order=False)


@in_the_long_run
def test_workers_freeze(scene: Scene) -> None:
    """They are frozen, and continue."""
    lease = scene.park()
    workers = scene.workers.see_to(1)
    for worker in workers:
        worker.freeze()
    try:
        is_served_again(scene, lease)
        scene.until(lambda: scene.dormant() == JOBS, "the jobs are dormant")
    finally:
        for worker in workers:
            worker.thaw()
    scene.until_done(in_order=False)


@in_the_long_run
def test_workers_are_cut_off(scene: Scene) -> None:
    """Nothing passes between them and the server for a while."""
    lease = scene.park()
    scene.proxy.hold_up()
    try:
        is_served_again(scene, lease)
        scene.until(lambda: scene.dormant() == JOBS, "the jobs are dormant")
    finally:
        scene.proxy.hang_up()
        scene.proxy.let_pass()
    scene.until_done(in_order=False)


@in_the_long_run
def test_a_rolling_restart_loses_no_place(scene: Scene) -> None:
    """New workers come before the old ones go: no job is dormant, and the web process is behind."""
    lease = scene.park()
    old = scene.workers.see_to(1)
    scene.workers.see_to(3)
    scene.until(lambda: scene.present() >= 3, "the new ones are there")
    for worker in old:
        worker.stop()
    assert scene.dormant() == 0
    assert scene.waiting() == JOBS
    scene.release(lease)
    scene.until_done()
