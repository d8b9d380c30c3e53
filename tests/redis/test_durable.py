"""Durable tickets: places in line with no process behind them (S17 to S19)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from limiter_core import StoreUnavailable, SyncLimiter
from limiter_core.requests import Demand, Granted, Held, Notice, Queued, Request
from limiter_core.store import SyncStore
from limiter_core.testing.listener import RecordingListener
from limiter_redis import RedisStore
from limiter_redis.protocol import commands
from limiter_redis.transport.sync_transport import SyncTransport

from ._fake_time import FAKED, ServerClock
from ._servers import Server
from ._tools import until_now

pytestmark = pytest.mark.every_server

KEY = "jobs/key"


class Party:
    """A store as one process has it, and the notices that it got."""

    def __init__(self, server: Server, **settings: object) -> None:
        self.store = RedisStore(server.url, **settings)  # type: ignore[arg-type]
        self.face: SyncStore = self.store.sync_face()
        self.notices: list[Notice] = []
        self.face.on_notice(self.notices.append)

    def noticed(self) -> list[str]:
        """Return the ids of the notices since the last time."""
        ids = [notice.id for notice in self.notices]
        self.notices.clear()
        return ids


@pytest.fixture
def here(server: Server, clock: ServerClock) -> Iterator[Party]:
    party = Party(server, script=FAKED)
    yield party
    party.store.close()


@pytest.fixture
def there(server: Server, clock: ServerClock) -> Iterator[Party]:
    party = Party(server, script=FAKED)
    yield party
    party.store.close()


def job(name: str, *, payload: bytes = b"", **facts: object) -> Request:
    settings: dict[str, object] = {"lease": 30.0, "claim": 5.0, **facts}
    return Request(name, (Demand(KEY, 1),), payload=payload or name.encode(), **settings)  # type: ignore[arg-type]


def test_who_frees_the_slot_wakes_a_job_of_another_process(here: Party, there: Party) -> None:
    """S17: the payload comes along, and only the releasing process is notified."""
    payload = bytes(range(256)) * 400
    assert isinstance(here.face.acquire(job("first")), Granted)
    assert isinstance(there.face.acquire(job("second", payload=payload)), Queued)
    there.store.close()  # its process is gone
    assert here.face.release("first")
    notice = here.notices.pop()
    assert (notice.id, notice.payload) == ("second", payload)
    assert isinstance(notice.answer, Granted)
    assert not here.notices
    assert not there.notices
    answer = here.face.acquire(job("second", payload=payload, claimant="worker"))
    assert isinstance(answer, Granted)
    assert answer.fencing_token == notice.answer.fencing_token
    assert here.face.release("second")


def test_another_process_sweeps_for_one_that_died(
    here: Party, there: Party, clock: ServerClock
) -> None:
    """S17: who freed the slot died before it woke the job; who sweeps offers it again."""
    here.face.acquire(job("first"))
    here.face.acquire(job("second"))
    here.face.release("first")
    assert here.noticed() == ["second"]
    here.store.close()
    there.face.sweep()
    assert there.noticed() == [], "its claim time is not over"
    clock.advance(6)
    there.face.sweep()
    assert there.noticed() == ["second"]
    clock.advance(6)
    there.face.sweep()
    assert there.noticed() == ["second"], "again and again, until somebody comes"
    assert isinstance(there.face.acquire(job("second")), Granted)
    clock.advance(6)
    there.face.sweep()
    assert there.noticed() == []
    there.face.release("second")


def test_jobs_of_a_killed_worker_go_on(here: Party, there: Party, clock: ServerClock) -> None:
    """S2, S17: no release is received, the lease ends; the sweep serves the next."""
    here.face.acquire(job("first"))
    for name in ("second", "third"):
        here.face.acquire(job(name))
    here.store.close()
    clock.advance(31)
    there.face.sweep()
    assert there.noticed() == ["second"]
    assert isinstance(there.face.acquire(job("second")), Granted)
    there.face.release("second")
    assert there.noticed() == ["third"]
    assert isinstance(there.face.acquire(job("third")), Granted)
    there.face.release("third")


def test_a_redelivery_is_told_that_the_job_runs(here: Party, there: Party) -> None:
    """S18: in another process, too; and the same delivery gets its slot again."""
    first = here.face.acquire(job("job", claimant="delivery-1"))
    assert isinstance(first, Granted)
    held = there.face.acquire(job("job", claimant="delivery-2"))
    assert isinstance(held, Held)
    again = there.face.acquire(job("job", claimant="delivery-1"))
    assert isinstance(again, Granted)
    assert again.fencing_token == first.fencing_token
    assert there.face.release("job")
    assert not here.face.release("job")


def test_a_job_is_dropped_by_its_id_in_another_process(here: Party, there: Party) -> None:
    """S19: its arguments are gone, its keys with them."""
    here.face.acquire(job("first"))
    here.face.acquire(job("second"))
    assert there.face.release("second")
    assert there.face.release("first")
    assert here.noticed() == there.noticed() == []
    assert list(there.face.keys()) == []


def test_keys_of_no_scope_are_swept(here: Party, there: Party, clock: ServerClock) -> None:
    """S17: they share one index."""
    for name in ("first", "second"):
        here.face.acquire(job(name)._replace(demands=(Demand("lonely", 1),)))
    here.face.release("first")
    clock.advance(6)
    there.face.sweep()
    assert there.noticed() == ["second"]
    there.face.release("second")


def test_jobs_and_callers_share_a_line(here: Party, there: Party) -> None:
    """S7, S17: one order for both; each is woken in its own way."""
    here.face.acquire(job("first"))
    caller = job("caller")._replace(payload=None)
    there.face.acquire(caller)
    here.face.acquire(job("second"))
    here.face.release("first")
    assert here.noticed() == []
    assert isinstance(there.face.acquire(caller), Granted)
    there.face.release("caller")
    assert there.noticed() == ["second"]
    there.face.release("second")


def test_thousands_of_jobs_wait(here: Party, there: Party) -> None:
    """S16, S17: a raised limit wakes them all, in steps of bounded work."""
    here.face.acquire(job("first", lease=3600.0))  # or its renewal may wake some between the steps
    names = [f"job-{number:04}" for number in range(1000)]
    for name in names:
        assert isinstance(here.face.acquire(job(name)), Queued)
    there.face.set_limit(KEY, 2000)
    assert there.noticed() == names
    there.face.reset_limit(KEY)
    for name in ["first", *names]:
        there.face.release(name, (KEY,))
    assert there.noticed() == []


def test_a_ticket_outlives_data_of_its_process(server: Server, here: Party) -> None:
    """S14: kept for days, not for ever."""
    here.face.acquire(job("first"))
    here.face.acquire(job("second"))
    state = server.admin.ttl("{limiter:jobs}:state:key")
    assert 6 * 86_400 < state < 8 * 86_400
    assert server.admin.ttl("{limiter}:scopes") >= state
    here.face.release("second")
    here.face.release("first")


async def test_an_event_loop_sweeps(server: Server, here: Party, clock: ServerClock) -> None:
    """S17: the async face does the same."""
    here.face.acquire(job("first"))
    here.face.acquire(job("second"))
    here.face.release("first")
    here.noticed()
    clock.advance(6)
    store = RedisStore(server.url, script=FAKED)
    face = store.async_face()
    notices: list[Notice] = []
    face.on_notice(notices.append)
    await asyncio.gather(*(face.sweep() for _ in range(5)))
    assert [notice.id for notice in notices] == ["second"]
    assert isinstance(await face.acquire(job("second")), Granted)
    await face.release("second")
    await store.aclose()


def test_a_real_claim_time_passes(server: Server) -> None:
    """S17: on the server's own time, a renewer that waits beside a job offers it again."""
    party = Party(server)
    party.face.acquire(job("first"))
    party.face.acquire(job("second", claim=0.2))
    party.face.release("first")
    assert party.noticed() == ["second"]

    def offered_again() -> bool:
        party.face.sweep()
        return bool(party.notices)

    until_now(offered_again, "it is offered again")
    party.face.release("second")
    party.store.close()


def test_a_sweep_costs_what_is_due(server: Server, here: Party, clock: ServerClock) -> None:
    """S16, S17: each worker runs it every second, also beside a million keys of others."""
    for number in range(500):
        server.admin.set(f"others:{number}", number, px=60_000)
        request = Request(f"holder-{number}", (Demand(f"jobs/{number}", 1),))
        here.face.acquire(request)
    here.face.acquire(job("first"))
    here.face.acquire(job("second"))
    before, calls = server.commands(), server.calls()
    for _ in range(10):
        here.face.sweep()
    after = server.commands()
    # One each; the lease renewer may look at the waiting job once meanwhile.
    assert 10 <= server.calls() - calls <= 12
    assert after.get("scan", 0) == before.get("scan", 0)
    assert after.get("zscore", 0) - before.get("zscore", 0) < 10
    clock.advance(31)  # the holder died
    here.face.sweep()
    assert here.noticed() == ["second"]


def test_a_process_that_cannot_wake_a_job_notifies_those_that_can(
    server: Server, clock: ServerClock
) -> None:
    """S17: a web process frees the slot that a worker's job waits for."""
    worker, web = Party(server, script=FAKED), RedisStore(server.url, script=FAKED)
    try:
        listener = RecordingListener()
        request = Request("call", (Demand(KEY, 1),), listener=listener)
        assert isinstance(web.sync_face().acquire(request), Granted)
        assert isinstance(worker.face.acquire(job("job")), Queued)
        until_now(
            lambda: server.admin.pubsub_numsub("limiter:notices:0")[0][1], "the worker listens"
        )
        web.sync_face().release("call")
        until_now(lambda: worker.notices, "the worker was notified")
        assert worker.noticed() == ["job"]
        assert isinstance(worker.face.acquire(job("job")), Granted)
        worker.face.release("job")
    finally:
        worker.store.close()
        web.close()


def test_a_notice_that_nobody_can_deliver_is_passed_on_once(
    server: Server, clock: ServerClock
) -> None:
    """Workers of two frameworks share a store: neither can wake the other's jobs."""
    one, other = Party(server, script=FAKED), Party(server, script=FAKED)
    try:
        received: list[str] = []

        def refuse(notice: Notice) -> bool:
            received.append(notice.id)
            return False

        one.face.on_notice(refuse)
        one.face.acquire(job("first"))
        one.face.acquire(job("second"))
        until_now(lambda: server.admin.pubsub_numsub("limiter:notices:0")[0][1] == 2, "both listen")
        one.face.release("first")
        until_now(lambda: other.notices, "the other was notified")
        until_now(lambda: len(received) == 2, "the first received its own")
        other.face.acquire(job("second"))
        other.face.release("second")
        assert received == ["second", "second"]
        assert other.noticed() == ["second"]
    finally:
        one.store.close()
        other.store.close()


def test_a_second_delivery_to_the_process_that_runs_the_job(server: Server) -> None:
    """S18: it is told so; and the first one's lease is renewed as before."""
    store = RedisStore(server.url)
    face = store.sync_face()
    try:
        first, second = RecordingListener(), RecordingListener()
        request = job("job", lease=0.6, claimant="delivery-1", listener=first)
        granted = face.acquire(request)
        assert isinstance(granted, Granted)
        again = request._replace(claimant="delivery-2", listener=second)
        assert isinstance(face.acquire(again), Held)
        token = granted.fencing_token
        until_now(
            lambda: len(first.ends) >= 4, "the first lease was renewed, for longer than it is"
        )
        (holder,) = face.inspect(KEY).holders
        assert holder.fencing_token == token
        assert not first.losses
        assert face.release("job")
    finally:
        store.close()


def test_asks_of_deliveries_that_were_given_up_take_nothing_when_they_arrive(
    server: Server,
) -> None:
    """They lay in buffers of connections; the job was asked for again and again meanwhile."""
    store = RedisStore(server.url)
    face = store.sync_face()
    try:
        for number in range(3):
            given_up = commands.release_claim("job", KEY, f"delivery-{number}", for_good=True)
            assert store.session.sync_transport().call([given_up]) == ["0"]
        for number in range(3):
            late = face.acquire(job("job", claimant=f"delivery-{number}"))
            assert not isinstance(late, Granted), number
        assert isinstance(face.acquire(job("job", claimant="delivery-3")), Granted)
        assert face.release("job")
    finally:
        store.close()


SETS_A_LIMIT = """
import asyncio, sys
from limiter_core import Limiter, SyncLimiter
from limiter_redis import RedisStore

def now():
    SyncLimiter(RedisStore(sys.argv[1])).set_limit(sys.argv[2], 2)

async def soon():
    async with Limiter(RedisStore(sys.argv[1])) as limiter:
        await limiter.set_limit(sys.argv[2], 2)

now() if sys.argv[3] == "sync" else asyncio.run(soon())
"""


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_process_that_queues_a_job_and_ends_notifies_those_that_can_wake_it(
    server: Server, world: str
) -> None:
    party = Party(server)
    party.face.acquire(job("first"))
    party.face.acquire(job("second", claim=60.0))
    until_now(lambda: server.admin.pubsub_channels("*:notices:0"), "it listens for notices")
    subprocess.run([sys.executable, "-c", SETS_A_LIMIT, server.url, KEY, world], check=True)
    until_now(lambda: party.notices, "it is notified", patience=5)
    assert party.noticed() == ["second"]
    SyncLimiter(party.store).reset_limit(KEY)
    for name in ("first", "second"):
        party.face.release(name)
    party.store.close()


def test_a_notice_for_others_that_cannot_be_sent_is_sent_again(
    server: Server, here: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, failed = SyncTransport.command, 0

    def flaky(self: SyncTransport, *words: str | int, **more: Any) -> object:
        nonlocal failed
        if words[0] == "PUBLISH" and not failed:
            failed += 1
            raise StoreUnavailable("the connection broke")
        return command(self, *words, **more)

    monkeypatch.setattr(SyncTransport, "command", flaky)
    there = RedisStore(server.url, script=FAKED)  # which cannot wake jobs
    here.face.acquire(job("first"))
    here.face.acquire(job("second"))
    until_now(lambda: server.admin.pubsub_channels("*:notices:0"), "one listens for notices")
    there.sync_face().release("first", (KEY,))
    until_now(lambda: here.notices, "it is notified", patience=5)
    assert (here.noticed(), failed) == (["second"], 1)
    here.face.release("second")
    there.close()
