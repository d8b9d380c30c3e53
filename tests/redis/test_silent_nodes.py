"""Nodes of a cluster that take connections and say nothing, and calls that have a `timeout`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from limiter_core import ConcurrencyLimit, StoreError, StoreUnavailable, SyncLimiter
from limiter_redis import RedisStore

from ._servers import OneNode, server_program
from ._tools import until_now

LIMIT = ConcurrencyLimit("id", timeout=0.5)
CALL = {"id": 1}
ONE_NODE = 2.0
"""Seconds that a node has to say which slots there are: a call takes less."""


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of one: the system takes the connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def node() -> Iterator[OneNode]:
    """A cluster of one."""
    with closing(OneNode(server_program())) as node:
        yield node


def seconds_of(limiter: SyncLimiter) -> float:
    """Return how long a call takes that gets no answer."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        limiter.acquire(LIMIT, CALL)
    return time.monotonic() - began


def close_soon(store: RedisStore) -> None:
    """Close a store whose nodes are silent; nobody waits for it."""
    threading.Thread(target=store.close, daemon=True).start()


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, no thread can begin."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


def test_a_call_that_has_no_map_of_the_slots_ends_in_time(silent: str) -> None:
    store = RedisStore(f"redis+cluster://{silent}")
    limiter = SyncLimiter(store)
    took: list[float] = []
    threads = [threading.Thread(target=lambda: took.append(seconds_of(limiter))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(took) == 5
    assert max(took) < ONE_NODE
    close_soon(store)


def test_a_silent_node_ends_no_call_that_another_could_serve(silent: str, node: OneNode) -> None:
    """It is asked first, and takes all the time of the first calls; the map is read meanwhile."""
    store = RedisStore(f"redis+cluster://{silent},127.0.0.1:{node.port}")
    limiter = SyncLimiter(store)

    def is_served() -> bool:
        try:
            limiter.acquire(LIMIT, CALL).release()
        except StoreError:
            return False
        return True

    until_now(is_served, "a call gets its slot")
    store.close()


@pytest.mark.parametrize("known", [True, False])
def test_where_no_thread_can_begin_a_call_ends_in_time(
    node: OneNode, no_thread: Callable[[], None], known: bool
) -> None:
    """Also where the map has to be read: the nodes share the time that the call has."""
    store = RedisStore(node.cluster_url)
    limiter = SyncLimiter(store)
    with limiter.hold(LIMIT, {"id": 2}):  # the lease renewer runs
        if not known:
            store.session._sync_transports.clear()
            slot_map = store.session._topology._slot_map  # type: ignore[attr-defined]  # (of a cluster)
            slot_map._owners, slot_map.version = [], 0
        with node.frozen():
            no_thread()
            assert seconds_of(limiter) < ONE_NODE
