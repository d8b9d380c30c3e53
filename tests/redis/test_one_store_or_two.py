"""Whose messages a store receives: those of stores in the same place, and no others."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limiter_core.requests import Demand, Granted, Notice, Queued, Request
from limiter_core.testing.listener import RecordingListener
from limiter_redis import RedisStore
from tests.faults._sentinel import SERVICE, SentinelProcess
from tests.project._tree import ROOT

from ._servers import Process, binary, server_program
from ._tools import until_now


class Place(NamedTuple):
    """Where slots are: stores that agree in all of it are one."""

    server: int
    database: int
    namespace: str


WAYS = ("localhost", "127.0.0.1", "socket", "query", "client", "async client", "sentinel", "master")
places = st.builds(
    Place, st.sampled_from((0, 1)), st.sampled_from((0, 1)), st.sampled_from(("shop", "shop:0"))
)


class Servers:
    """Two servers, each to be reached in many ways."""

    def __init__(self) -> None:
        program = binary()
        assert program is not None
        self._folder = Path(tempfile.mkdtemp(prefix="limiter-"))
        self._sockets = [self._folder / f"{number}.sock" for number in range(2)]
        self.servers = [Process(program, "--unixsocket", str(each)) for each in self._sockets]
        self._sentinels = [SentinelProcess(program) for _ in self.servers]
        for sentinel, server in zip(self._sentinels, self.servers, strict=True):
            sentinel.watch(server.port)
        self._stores: dict[tuple[object, ...], RedisStore] = {}
        self._clients: list[Any] = []
        self.received: dict[tuple[Place, str], list[str]] = {}

    def sender(self, place: Place, way: str) -> RedisStore:
        """Return a store that can wake no job: it tells the others of those that may run."""
        return self._opened("sender", place, way)

    def listener(self, place: Place, way: str) -> tuple[RedisStore, list[str]]:
        """Return a store that can, and the jobs that it was told of."""
        store = self._opened("listener", place, way)
        received = self.received.get((place, way))
        if received is None:
            received = self.received[place, way] = []

            def receive(notice: Notice) -> None:
                received.append(notice.id)

            store.sync_face().on_notice(receive)
        until_now(lambda: self._receives(store, place), f"a listener at {place} by {way} listens")
        return store, received

    def _receives(self, store: RedisStore, place: Place) -> bool:
        channels = store.session.tracker.notices.channel, store.session.tracker.channel
        counts = self.servers[place.server].admin.pubsub_numsub(*channels)
        return store.session.renewer.listening and all(count for _, count in counts)

    def _opened(self, role: str, place: Place, way: str) -> RedisStore:
        known = self._stores.get((role, place, way))
        if known is None:
            known = self._stores[role, place, way] = self._open(place, way)
        return known

    def _open(self, place: Place, way: str) -> RedisStore:
        port, database = self.servers[place.server].port, place.database
        socket, sentinel = self._sockets[place.server], self._sentinels[place.server].port
        client: Any = None
        url = {
            "localhost": f"redis://localhost:{port}/{database}",
            "127.0.0.1": f"redis://127.0.0.1:{port}/{database}",
            "socket": f"unix://{socket}?db={database}",
            "query": f"redis://127.0.0.1:{port}?db={database}",
            "sentinel": f"redis+sentinel://127.0.0.1:{sentinel}/{SERVICE}/{database}",
        }.get(way)
        if way == "client":
            client = redis.Redis(port=port, db=database)
        elif way == "async client":
            client = redis.asyncio.Redis(port=port, db=database)
        elif way == "master":
            asked = redis.sentinel.Sentinel([("127.0.0.1", sentinel)])
            client = asked.master_for(SERVICE, db=database)
            self._clients += asked.sentinels
        if isinstance(client, redis.Redis):
            self._clients.append(client)
        return RedisStore(url, client=client, namespace=place.namespace)

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
        for client in self._clients:
            client.close()
        for process in (*self._sentinels, *self.servers):
            process.close()
        shutil.rmtree(self._folder)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    server_program()
    with closing(Servers()) as servers:
        yield servers


def say(store: RedisStore, job: str) -> None:
    """Have a job's turn come in a process that cannot wake it."""
    face, demand = store.sync_face(), Demand(f"key-of-{job}", 1)
    assert isinstance(face.acquire(Request(f"before-{job}", (demand,))), Granted)
    assert isinstance(face.acquire(Request(job, (demand,), payload=b"x")), Queued)
    assert face.release(f"before-{job}", (demand.key,))


numbers = itertools.count()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(places, st.sampled_from(WAYS), places | st.none(), st.sampled_from(WAYS))
def test_stores_in_one_place_receive_messages_of_each_other_and_no_others_do(
    servers: Servers, mine: Place, my_way: str, other: Place | None, other_way: str
) -> None:
    """Of jobs that may run, and of slots that come free; a place is server, database, namespace."""
    theirs = mine if other is None else other
    number = next(numbers)
    sender = servers.sender(mine, my_way)
    listener, received = servers.listener(theirs, other_way)
    # A store that certainly receives: only then the silence of the other says something.
    _, known = servers.listener(mine, "127.0.0.1")

    say(sender, f"mine-{number}")
    until_now(lambda: f"mine-{number}" in known, "it was said")
    say(servers.sender(theirs, "localhost"), f"theirs-{number}")
    until_now(lambda: f"theirs-{number}" in received, "what was said later is received")
    assert (f"mine-{number}" in received) == (mine == theirs)

    waiter = RecordingListener()
    request = Request(f"waits-{number}", (Demand(f"slot-{number}", 1),))
    face, other_face = sender.sync_face(), listener.sync_face()
    face.acquire(request._replace(id=f"holds-{number}"))
    answer = other_face.acquire(request._replace(listener=waiter))
    assert isinstance(answer, Queued if mine == theirs else Granted)
    face.release(f"holds-{number}", (f"slot-{number}",))
    if mine == theirs:
        until_now(lambda: waiter.woken, "the waiter is notified")
    other_face.release(f"waits-{number}", (f"slot-{number}",))


PAGE = (ROOT / "docs" / "reference" / "redis-layout.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("database", [0, 3])
def test_the_acl_of_the_page_is_enough_and_ends_at_its_database(
    own_server: Process, database: int
) -> None:
    """Two processes of that user: one holds and the other waits, jobs are woken, and nothing is
    denied; the notices of another database are."""
    (line,) = re.findall(r"^ACL SETUSER limiter (.*)$", PAGE, re.MULTILINE)
    rights = line.replace("process:0:", f"process:{database}:")
    rights = rights.replace("notices:0", f"notices:{database}").split()
    rights += ["+client|setinfo", "+hello"]
    own_server.admin.execute_command("ACL", "SETUSER", "limiter", *rights)
    base = own_server.url.replace("://", "://limiter:PASSWORD@").removesuffix("0")
    one, two, elsewhere = (RedisStore(f"{base}{n}") for n in (database, database, 1))
    received: list[str] = []
    two.sync_face().on_notice(lambda notice: received.append(notice.id))
    until_now(
        lambda: own_server.admin.pubsub_numsub(two.session.tracker.notices.channel)[0][1],
        "it listens",
    )
    say(one, "job")
    until_now(lambda: received == ["job"], "it is notified")
    face, waiter = one.sync_face(), RecordingListener()
    face.acquire(Request("holds", (Demand("slot", 1),)))
    two.sync_face().acquire(Request("waits", (Demand("slot", 1),), listener=waiter))
    face.release("holds", ("slot",))
    until_now(lambda: waiter.woken, "the waiter is notified")
    for request, key in (("waits", "slot"), ("job", "key-of-job")):
        two.sync_face().release(request, (key,))
    assert own_server.admin.execute_command("ACL", "LOG") == []
    elsewhere.sync_face().on_notice(lambda notice: None)
    until_now(lambda: own_server.admin.execute_command("ACL", "LOG"), "it is denied")
    assert not elsewhere.session.renewer.listening
    for store in (one, two, elsewhere):
        store.close()
