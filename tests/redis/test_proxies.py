"""Proxies before a server that do not know all commands."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from limiter_core import ConcurrencyLimit, Limiter, StoreError, SyncLimiter
from limiter_redis import RedisStore

from ._hostile_server import HostileServer, Send, well

BY_ID = ConcurrencyLimit("id", timeout=0.5)
LONGER = ConcurrencyLimit("id", timeout=2.0)
"""Within that a server has hung up at least once, however busy the machine is."""
WORLDS = pytest.mark.parametrize("address", ["url", "cluster_url"])


class OldProxy(HostileServer):
    """A proxy that knows few commands, and says so in words of its own."""

    def __init__(self, *unknown: bytes) -> None:
        super().__init__(well)
        self._unknown = unknown

    def _reply(self, words: list[bytes], send: Send) -> None:
        if words[0] in self._unknown:
            send(b"-unsupported command '%s'\r\n" % words[0].lower())
        else:
            super()._reply(words, send)


@WORLDS
async def test_a_proxy_that_takes_no_scripts(address: str) -> None:
    """The error says what a store needs, in either world."""
    with OldProxy(b"FCALL", b"EVALSHA", b"EVAL") as server:
        store = RedisStore(getattr(server, address))
        says = "refuses scripts: unsupported command 'evalsha'. A store needs the command FCALL, or"
        with pytest.raises(StoreError, match=says):
            await Limiter(store).acquire(BY_ID, {"id": 1})
        with pytest.raises(StoreError, match=says):
            await asyncio.to_thread(SyncLimiter(store).try_acquire, BY_ID, {"id": 1})
        await store.aclose()


@WORLDS
def test_a_proxy_that_knows_one_protocol(address: str) -> None:
    """No connection of our own asks for another."""
    with OldProxy(b"HELLO") as server, SyncLimiter(RedisStore(getattr(server, address))) as limiter:
        limiter.acquire(BY_ID, {"id": 1}).release()


class ProxyThatHangsUp(HostileServer):
    """A proxy that ends a connection when it gets a command that it does not know."""

    def __init__(self, *unknown: bytes) -> None:
        super().__init__(well)
        self._unknown = unknown

    def _reply(self, words: list[bytes], send: Send) -> None:
        if words[0].upper() in self._unknown:
            raise OSError
        super()._reply(words, send)


class ThreadedLimiter:
    """A `SyncLimiter`, called in a thread."""

    def __init__(self, store: RedisStore) -> None:
        self._limiter = SyncLimiter(store)

    async def acquire(self, limit: ConcurrencyLimit, arguments: dict[str, int]) -> object:
        return await asyncio.to_thread(self._limiter.acquire, limit, arguments)


@WORLDS
@pytest.mark.parametrize(
    ("unknown", "named"),
    [
        (b"CLIENT", "CLIENT SETINFO"),
        (b"FCALL", "FCALL"),
        (b"AUTH", "AUTH"),
    ],
)
@pytest.mark.parametrize("world", ["event loop", "threads"])
async def test_a_proxy_that_hangs_up(address: str, unknown: bytes, named: str, world: str) -> None:
    """The error names the command after which it did, and nothing of its arguments."""
    with ProxyThatHangsUp(unknown) as server:
        url = getattr(server, address).replace("://", "://me:secret@")
        store = RedisStore(url)
        limiter = Limiter(store) if world == "event loop" else ThreadedLimiter(store)
        with pytest.raises(StoreError, match=f"closed by server after {named} ") as refused:
            await limiter.acquire(LONGER, {"id": 1})
        assert "has to pass it on" in str(refused.value)
        assert "secret" not in str(refused.value)
        await store.aclose()


SAID = {
    b"ERR 'EVAL' command keys must in same slot": False,
    b"ERR user_script:7: unknown option 'eval'": False,
    b"ERR unknown command 'PUBLISH', with args beginning with: 'eval' ": False,
    b"NOPERM No permissions to access the 'eval' channel": False,
    b"NOPERM this user has no permissions to run the 'evalsha' command": True,
    b"ERR unknown command 'EVALSHA', with args beginning with: '1' ": True,
    b"ERR unknown command `evalsha`, with args beginning with: `1`, ": True,
    b"ERR Command is not available: 'EVALSHA'": True,
    b"ERR handle request, command 'EVALSHA' is not allowed": True,
}


@pytest.mark.parametrize(("said", "no_scripts"), SAID.items())
def test_only_a_command_that_is_missing_is_said_to_be(said: bytes, no_scripts: bool) -> None:
    """Not each error with its name in it."""

    def answer(_: list[bytes], send: Send) -> None:
        send(b"-%s\r\n" % said)

    with (
        HostileServer(answer) as server,
        closing(RedisStore(server.url)) as store,
        pytest.raises(StoreError) as refused,
    ):
        SyncLimiter(store).try_acquire(BY_ID, {"id": 1})
    assert ("refuses scripts" in str(refused.value)) == no_scripts
