"""The Redis store keeps the contract: S1 to S23, on both faces, on every server there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from limiter_core.testing import AsyncStoreContract, Scenario, SyncStoreContract
from limiter_redis import RedisStore

from ._fake_time import FAKED, ServerClock
from ._servers import Server
from ._tools import until_now

pytestmark = pytest.mark.every_server


def _receives(store: RedisStore, scenario: Scenario) -> bool:
    """Whether a process that is to receive messages is subscribed already."""
    if "RecordingListener" not in scenario.play.__code__.co_names:
        return True
    store.session.renewer.ensure_running()
    return store.session.renewer.listening


class OnAServer:
    @pytest.fixture
    def clock(self, server: Server) -> ServerClock:
        return ServerClock(server)

    @pytest.fixture
    def forget(self, server: Server, clock: ServerClock) -> Callable[[], object]:
        def lose_everything() -> None:
            server.admin.flushdb()
            clock.write()

        return lose_everything


class TestInThreads(OnAServer, SyncStoreContract):
    @pytest.fixture
    def store(self, server: Server, clock: ServerClock, scenario: Scenario) -> Iterator[RedisStore]:
        store = RedisStore(server.url, script=FAKED)
        until_now(lambda: _receives(store, scenario), "the renewer listens")
        yield store
        for key in list(store.sync_face().keys()):  # what an operator set has no expiry
            store.sync_face().reset_limit(key)
            store.sync_face().resume(key)
        store.session.tracker.requests.clear()  # a scenario may end while it holds
        store.close()


class TestInAnEventLoop(OnAServer, AsyncStoreContract):
    @pytest.fixture
    async def store(
        self, server: Server, clock: ServerClock, scenario: Scenario
    ) -> AsyncIterator[RedisStore]:
        store = RedisStore(server.url, script=FAKED)
        until_now(lambda: _receives(store, scenario), "the renewer listens")
        yield store
        async for key in store.async_face().keys():
            await store.async_face().reset_limit(key)
            await store.async_face().resume(key)
        store.session.tracker.requests.clear()
        await store.aclose()
