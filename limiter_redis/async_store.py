"""The operations of `RedisStore` for asyncio: those of one turn of the loop are one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from limiter_core.errors import StoreUnavailable
from limiter_core.requests import Answer, KeySnapshot, Notice, Presence, Renewal, Request
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.slot_map import check_one_slot
from limiter_redis.connection.deadlines import answer_by
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.commands import batched
from limiter_redis.session.entries import Entry
from limiter_redis.session.tracker import release_of
from limiter_redis.sync_store import NOTE_LASTS, SCAN_COUNT
from limiter_redis.transport.sync_transport import BATCH

if TYPE_CHECKING:
    from limiter_redis.store import RedisStore


class AsyncFace:
    """`RedisStore` for asyncio: the operations of one tick are one round trip."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def now(self) -> float:
        return time.monotonic()

    async def acquire(self, request: Request) -> Answer:
        store = self._store
        if store.one_slot:
            check_one_slot(request)
        wire = store.async_wire()
        if request.payload is not None and (scopes := store.new_scopes(request)):
            await wire.command("SADD", store.scopes_key, *scopes)
            await wire.command("EXPIRE", store.scopes_key, NOTE_LASTS)
            store.noted(scopes)
        hub = store.hub
        in_the_way: Sequence[Entry] = ()
        if request.payload is not None and hub.requests.releasing:  # else its id is a new one
            in_the_way = hub.in_the_way(request)
        store.prepare(request)
        sent_at = time.monotonic()
        deadline = answer_by(request.deadline, sent_at)
        try:
            for entry in in_the_way:  # it travels in the same call, and is repeated elsewhere
                wire.submit(release_of(entry), deadline).add_done_callback(_nobody_waits)
            line = await wire.submit(protocol.acquire(request), deadline)
            return hub.settle(request, line, sent_at)
        except BaseException as error:
            granted = hub.withdraw(request, error)
            if granted is None or not isinstance(error, StoreUnavailable):
                raise
            return granted

    async def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        if self._store.is_of_parent(lease_id):
            return False
        live = self._store.hub.end(lease_id)
        key = keys[0] if keys else live.key if live is not None else await self._find(lease_id)
        if key is None:
            return False
        if live is None:
            return await self._flag(protocol.release(lease_id, key))
        return await self._release(live, key)

    async def _release(self, live: Entry, key: str) -> bool:
        try:
            if live.token:
                line = await self._carry_out(release_of(live))
            else:
                # Its caller has nothing, and has waited long enough: if this takes long, it is done
                # in the background.
                deadline = answer_by(0.0, time.monotonic())
                line = await self._store.async_wire().submit(release_of(live), deadline)
            there = protocol.parse_flag(line, key)
        except BaseException:
            self._store.hub.not_released(live)
            raise
        self._store.hub.released(live)
        return there

    async def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:
        if self._store.is_of_parent(lease_id):
            return False
        live = self._store.hub.end(lease_id, claimant)
        if live is not None:
            return await self._release(live, keys[0])
        return await self._flag(protocol.release_claim(lease_id, keys[0], claimant, for_good=False))

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        if not self._store.is_of_parent(lease_id):
            self._store.abandon(lease_id, keys[0], claimant)

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        self._store.hub.let_expire(lease_id, claimant)

    async def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        if self._store.hub.holds(ticket_id):
            return False
        key = keys[0] if keys else await self._find(ticket_id)
        return key is not None and await self._flag(protocol.withdraw(ticket_id, key))

    async def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        key = keys[0] if keys else await self._find(ticket_id)
        return key is not None and await self._flag(protocol.dismiss(ticket_id, key))

    async def renew(self, ids: Sequence[str]) -> Renewal:
        replies: list[tuple[str, str]] = []
        for each in ids:
            key = await self._find(each)
            line = "gone" if key is None else await self._carry_out(protocol.renew(each, key))
            replies.append((each, line))
        return protocol.renewal(replies)

    async def evict(self, lease_id: str) -> bool:
        key = await self._find(lease_id)
        return key is not None and await self._flag(protocol.evict(lease_id, key))

    async def sweep(self, presence: Presence | None = None) -> None:
        noted = await self._store.async_wire().command("SMEMBERS", self._store.scopes_key)
        scopes = self._store.scopes_of_sweep(protocol.parse_scopes(noted))
        while scopes:
            operations = [protocol.offers(scope, presence) for scope in scopes]
            lines = await self._carry_out_all(operations)
            done = map(protocol.parse_count, lines, scopes)
            scopes = [scope for scope, n in zip(scopes, done, strict=True) if n >= BATCH]

    async def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        return protocol.parse_snapshot(key, await self._carry_out(protocol.inspect(key), deadline))

    async def keys(self) -> AsyncIterator[str]:
        async for name in self._names():
            key = self._store.key_of(name)
            if key is not None:
                yield key

    async def set_limit(self, key: str, limit: int) -> None:
        await self._carry_out(protocol.set_limit(key, limit))

    async def reset_limit(self, key: str) -> None:
        await self._carry_out(protocol.set_limit(key, None))

    async def pause(self, key: str) -> None:
        await self._carry_out(protocol.set_paused(key, True))

    async def resume(self, key: str) -> None:
        await self._carry_out(protocol.set_paused(key, False))

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        self._store.on_notice(callback)

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _flag(self, operation: protocol.Operation) -> bool:
        return protocol.parse_flag(await self._carry_out(operation), operation.keys[0])

    async def _carry_out(self, operation: protocol.Operation, deadline: float | None = None) -> str:
        # Not through `_carry_out_all`: every call waits for this.
        line = await self._store.async_wire().submit(operation, deadline)
        if self._store.hub.unfinished and deadline is None:  # else the keeper does it
            await self._finish_steps()
        return line

    async def _carry_out_all(self, operations: Iterable[protocol.Operation]) -> list[str]:
        wire = self._store.async_wire()
        replies = [wire.submit(operation) for operation in operations]
        lines: list[str] = [await reply for reply in replies]  # they travel together anyhow
        await self._finish_steps()
        return lines

    async def _finish_steps(self) -> None:
        """Do what steps left over (S16)."""
        while self._store.hub.unfinished:
            key = self._store.hub.unfinished.popitem()[0]
            await self._store.async_wire().submit(protocol.sweep(key))

    async def _names(self) -> AsyncIterator[Any]:
        wire = self._store.async_wire()
        seen: set[Any] = set()  # SCAN may show a key twice
        pattern = self._store.states_pattern
        for node in await wire.nodes():
            cursor = None
            while cursor != 0:
                scan = ("SCAN", cursor or 0, "MATCH", pattern, "COUNT", SCAN_COUNT)
                cursor, names = protocol.parse_scan(await wire.command(*scan, node=node))
                for name in names:
                    if name not in seen:
                        yield name
                seen.update(names)

    async def _find(self, request_id: str) -> str | None:
        """Return a key of a lease or ticket: from our own books, or by looking at all keys."""
        live = self._store.hub.live.get(request_id)
        if live is not None:
            return live.key
        keys = [key async for key in self.keys()]
        for some in batched(keys, BATCH):
            found = await asyncio.gather(
                *(self._carry_out(protocol.find(request_id, key)) for key in some),
                return_exceptions=True,
            )
            away = next((line for line in found if isinstance(line, StoreUnavailable)), None)
            if away is not None:
                raise away
            if "1" in found:  # a record that cannot be read is none of this request
                return some[found.index("1")]
        return None


def _nobody_waits(reply: asyncio.Future[str]) -> None:
    """Have a failure that nobody waits for not be logged."""
    if not reply.cancelled():
        reply.exception()
