"""A server that talks slowly to who listens for messages: leases are renewed all the same."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import redis

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
from limiter_core.requests import Demand, Request
from limiter_redis import RedisStore
from limiter_redis.connection.backoff import Refusals
from limiter_redis.protocol.commands import BATCH
from limiter_redis.session import lease_tasks
from limiter_redis.session.subscriber import Subscriber

from ._hostile_server import HostileServer, Send, well
from ._listeners import NotingListener
from ._servers import Process
from ._tools import until_now

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("key"), lease=3)
RENEWALS = 5
"""As many as take longer than the lease."""


class Dripping(HostileServer):
    """Grants and renews; but in place of one reply it sends a byte each half second, for ever.

    Args:
        command: what is answered so, the first time.
        connection: the number of one whose first command is answered so, from 1.

    Attributes:
        dripped: how many such bytes were sent.
    """

    def __init__(self, command: bytes = b"", connection: int = 0) -> None:
        self.dripped = 0
        self._command = command
        self._connection = connection
        self._threads: list[threading.Thread] = []
        """One for each connection, in the order of their first commands."""
        self._over = threading.Event()
        super().__init__(well)

    def __exit__(self, *given: object) -> None:
        self._over.set()
        super().__exit__(*given)

    def renewals(self) -> int:
        return sum(call[0].startswith(b"renew") for call in list(self.calls))

    def _reply(self, words: list[bytes], send: Send) -> None:
        thread, is_first = threading.current_thread(), False
        if thread not in self._threads:
            self._threads.append(thread)
            is_first = len(self._threads) == self._connection
        if is_first or words[0].upper() == self._command:
            self._command = b""
            send(b"$60000000\r\n")
            while not self._over.wait(0.5):
                send(b"s")
                self.dripped += 1
        super()._reply(words, send)


def is_kept_alive(server: Dripping, kind: str) -> None:
    url = server.url if kind == "server" else server.cluster_url
    store = RedisStore(url)
    limiter = SyncLimiter(store)
    with limiter.hold(LIMIT) as lease:
        until_now(lambda: server.renewals() >= RENEWALS, "it is renewed")
        assert server.dripped
        assert not lease.lost
    store.close()


@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_bytes_now_and_then_on_the_connection_for_messages(kind: str) -> None:
    with Dripping(b"SUBSCRIBE" if kind == "server" else b"SSUBSCRIBE") as server:
        is_kept_alive(server, kind)


@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_bytes_now_and_then_while_that_connection_is_opened(kind: str) -> None:
    # The first connection is that of the call; in a cluster, it is asked who owns what before.
    with Dripping(connection=2 if kind == "server" else 3) as server:
        is_kept_alive(server, kind)


def test_it_subscribes_before_it_waits(
    own_server: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request of a process is notified as fast as all others."""
    store = RedisStore(own_server.url)
    with monkeypatch.context() as patched:
        patched.setattr(lease_tasks, "TICK", 60.0)
        lease = SyncLimiter(store).acquire(LIMIT)
        until_now(lambda: store.session.renewer.listening, "it is subscribed in its first turn")
    own_server.admin.client_kill_filter(_type="pubsub")  # it waits for a message, or for this
    lease.release()
    store.close()


def test_a_slot_that_is_closed_holds_up_no_other_slot_of_its_node() -> None:
    """Not even where it has more leases than one call carries."""
    closed = threading.Event()
    renewals: list[bytes] = []

    def answer(operations: list[bytes], send: Send) -> None:
        if closed.is_set() and b"closed" in operations[0]:
            send(b"-TRYAGAIN the slot is on its way to another node\r\n")
            return
        renewals.extend(each for each in operations if each.startswith(b"renew open"))
        well(operations, send)

    with HostileServer(answer) as server:
        store = RedisStore(server.cluster_url)
        face = store.sync_face()
        listener = NotingListener()
        ids = [f"closed-{number}" for number in range(BATCH)]
        for each in ids:
            demands = (Demand("closed/key", BATCH),)
            face.acquire(Request(each, demands, lease=60, listener=listener))
        face.acquire(Request("open", (Demand("open/key", 1),), lease=1.5, listener=listener))
        closed.set()
        store.session.tracker.messages_lost()  # so all are due at once
        before = len(renewals)
        until_now(lambda: len(renewals) > before + RENEWALS, "the open slot's lease is renewed")
        closed.clear()
        for each in ids:
            face.release(each, ("closed/key",))
        face.release("open", ("open/key",))
        assert not listener.losses
        store.close()


def test_messages_that_waited_in_the_socket_count_from_before_they_came(
    own_server: Process,
) -> None:
    """S2: a process that stood still may read of a grant whose lease is over."""
    woken, wake = socket.socketpair()
    client = redis.Redis(port=own_server.port)
    subscriber = Subscriber(client, Refusals(), woken, sharded=False)
    with woken, wake, client:
        until_now(lambda: subscriber.open(5.0, 1.0), "it is open")
        subscriber.subscribe([b"channel"])

        def is_subscribed() -> bool:
            subscriber.listen(0.1)
            return subscriber.confirmed == [b"channel"]

        until_now(is_subscribed, "it is subscribed")
        before = time.monotonic()
        assert own_server.admin.publish("channel", "said") == 1
        until_now(lambda: time.monotonic() > before + 0.2, "it stands still meanwhile")
        subscriber.listen(1.0)
        assert subscriber.received == [(b"channel", b"said")]
        assert subscriber.received_since <= before
        subscriber.close()
