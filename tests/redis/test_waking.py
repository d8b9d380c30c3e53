"""A queue in the same Redis has its jobs woken in the very step that ends their waiting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Granted, Queued, Replaced
from limiter_redis import RedisStore

from ._fake_time import FAKED, ServerClock
from ._servers import Server
from .test_durable import KEY, Party, job

pytestmark = pytest.mark.every_server

WAKES = """
local function wake(id)
  if id == 'gone' then return false end
  call('RPUSH', 'woken', id)
  return true
end
"""
FAILS = """
local function wake(id)
  call('SET', 'woken', id)
  return call('INCR', 'woken') == 1
end
"""


@pytest.fixture
def party(server: Server, clock: ServerClock) -> Iterator[Party]:
    party = Party(server, script=FAKED, wake=WAKES)
    yield party
    server.admin.delete("woken")
    party.store.close()


def woken(server: Server) -> list[str]:
    names = server.admin.lrange("woken", 0, -1)
    server.admin.delete("woken")
    return names


def test_the_next_is_woken_with_the_release_and_no_process_is_told(
    party: Party, server: Server
) -> None:
    for name in ("first", "second"):
        party.face.acquire(job(name))
    assert woken(server) == []
    party.face.release("first")
    assert woken(server) == ["second"]
    assert party.noticed() == []
    assert isinstance(party.face.acquire(job("second")), Granted)
    party.face.release("second")


def test_of_a_job_that_cannot_be_woken_there_the_process_is_told(
    party: Party, server: Server
) -> None:
    for name in ("first", "gone", "third"):
        party.face.acquire(job(name))
    party.face.release("first")
    assert (woken(server), party.noticed()) == ([], ["gone"])
    party.face.withdraw("gone")
    assert (woken(server), party.noticed()) == (["third"], [])
    party.face.release("third")


def test_a_sweep_wakes_again_a_job_that_did_not_come(
    party: Party, server: Server, clock: ServerClock
) -> None:
    for name in ("first", "second"):
        party.face.acquire(job(name))
    party.face.release("first")
    assert woken(server) == ["second"]
    clock.advance(6)
    party.face.sweep()
    assert woken(server) == ["second"]
    party.face.withdraw("second")


def test_a_superseded_job_is_woken(party: Party, server: Server) -> None:
    latest = (Demand(KEY, 1, on_conflict=ConflictResolution.KEEP_LATEST),)
    for name in ("first", "second", "third"):
        party.face.acquire(job(name)._replace(demands=latest))
    assert (woken(server), party.noticed()) == (["second"], [])
    assert isinstance(party.face.acquire(job("second")._replace(demands=latest)), Replaced)
    party.face.release("first")
    assert woken(server) == ["third"]
    party.face.withdraw("third")


def test_a_wake_that_fails_breaks_nothing(server: Server, clock: ServerClock) -> None:
    party = Party(server, script=FAKED, wake=FAILS)
    for name in ("first", "second"):
        answer = party.face.acquire(job(name))
    assert isinstance(answer, Queued)
    assert party.face.release("first")
    assert party.noticed() == ["second"]
    assert isinstance(party.face.acquire(job("second")), Granted)
    party.face.release("second")
    server.admin.delete("woken")
    party.store.close()


async def test_it_is_the_same_in_an_event_loop(server: Server) -> None:
    store = RedisStore(server.url, wake=WAKES)
    face = store.async_face()
    for name in ("first", "second"):
        await face.acquire(job(name))
    await face.release("first")
    assert woken(server) == ["second"]
    await face.withdraw("second")
    await store.aclose()
