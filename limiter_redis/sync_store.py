"""The operations of `RedisStore` for threads: each is a round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.requests import Answer, KeySnapshot, Notice, Presence, Renewal, Request
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.slot_map import check_one_slot
from limiter_redis.connection.deadlines import answer_by
from limiter_redis.protocol import commands as protocol
from limiter_redis.protocol.commands import batched
from limiter_redis.session.entries import Entry
from limiter_redis.session.tracker import release_of
from limiter_redis.transport.sync_transport import BATCH

if TYPE_CHECKING:
    from limiter_redis.store import RedisStore

SCAN_COUNT = 1000
NOTE_LASTS = 8 * 24 * 3600
"""Seconds that a scope stays noted for `sweep`: longer than its last durable ticket (S14)."""


class SyncFace:
    """`RedisStore` for threads: each operation is a round trip."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def now(self) -> float:
        return time.monotonic()

    def acquire(self, request: Request) -> Answer:
        store = self._store
        if store.one_slot:
            check_one_slot(request)
        if request.payload is not None and (scopes := store.new_scopes(request)):
            store.wire().command("SADD", store.scopes_key, *scopes)
            store.wire().command("EXPIRE", store.scopes_key, NOTE_LASTS)
            store.noted(scopes)
        hub = store.hub
        in_the_way: Sequence[Entry] = ()
        if request.payload is not None and hub.requests.releasing:  # else its id is a new one
            in_the_way = hub.in_the_way(request)
        store.prepare(request)
        sent_at = time.monotonic()
        deadline = answer_by(request.deadline, sent_at)
        try:
            # What is in the way travels in the same call, and is repeated in the background.
            operations = [*map(release_of, in_the_way), protocol.acquire(request)]
            line = self._carry_out_all(operations, deadline)[-1]
            return hub.settle(request, line, sent_at)
        except BaseException as error:
            granted = hub.withdraw(request, error)
            if granted is None or not isinstance(error, StoreUnavailable):
                raise
            return granted

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        if self._store.is_of_parent(lease_id):
            return False
        live = self._store.hub.end(lease_id)
        key = keys[0] if keys else live.key if live is not None else self._find(lease_id)
        if key is None:
            return False
        if live is None:
            return self._flag(protocol.release(lease_id, key))
        return self._release(live, key)

    def _release(self, live: Entry, key: str) -> bool:
        try:
            # Who has nothing has waited long enough: if this takes long, it is done in the
            # background.
            deadline = None if live.token else answer_by(0.0, time.monotonic())
            there = protocol.parse_flag(self._carry_out(release_of(live), deadline), key)
        except BaseException:
            self._store.hub.not_released(live)
            raise
        self._store.hub.released(live)
        return there

    def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:
        if self._store.is_of_parent(lease_id):
            return False
        live = self._store.hub.end(lease_id, claimant)
        if live is not None:
            return self._release(live, keys[0])
        return self._flag(protocol.release_claim(lease_id, keys[0], claimant, for_good=False))

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        if not self._store.is_of_parent(lease_id):
            self._store.abandon(lease_id, keys[0], claimant)

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        self._store.hub.let_expire(lease_id, claimant)

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        if self._store.hub.holds(ticket_id):
            return False
        key = keys[0] if keys else self._find(ticket_id)
        return key is not None and self._flag(protocol.withdraw(ticket_id, key))

    def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        key = keys[0] if keys else self._find(ticket_id)
        return key is not None and self._flag(protocol.dismiss(ticket_id, key))

    def renew(self, ids: Sequence[str]) -> Renewal:
        found = [(each, self._find(each)) for each in ids]
        return protocol.renewal(
            (each, "gone" if key is None else self._carry_out(protocol.renew(each, key)))
            for each, key in found
        )

    def evict(self, lease_id: str) -> bool:
        key = self._find(lease_id)
        return key is not None and self._flag(protocol.evict(lease_id, key))

    def sweep(self, presence: Presence | None = None) -> None:
        noted = self._store.wire().command("SMEMBERS", self._store.scopes_key)
        for some in batched(self._store.scopes_of_sweep(protocol.parse_scopes(noted)), BATCH):
            scopes = some
            while scopes:
                lines = self._carry_out_all([protocol.offers(scope, presence) for scope in scopes])
                done = map(protocol.parse_count, lines, scopes)
                scopes = [s for s, n in zip(scopes, done, strict=True) if n >= BATCH]

    def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        return protocol.parse_snapshot(key, self._carry_out(protocol.inspect(key), deadline))

    def keys(self) -> Iterator[str]:
        for name in self._names():
            key = self._store.key_of(name)
            if key is not None:
                yield key

    def set_limit(self, key: str, limit: int) -> None:
        self._carry_out(protocol.set_limit(key, limit))

    def reset_limit(self, key: str) -> None:
        self._carry_out(protocol.set_limit(key, None))

    def pause(self, key: str) -> None:
        self._carry_out(protocol.set_paused(key, True))

    def resume(self, key: str) -> None:
        self._carry_out(protocol.set_paused(key, False))

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        self._store.on_notice(callback)

    def close(self) -> None:
        self._store.close()

    def _flag(self, operation: protocol.Operation) -> bool:
        return protocol.parse_flag(self._carry_out(operation), operation.keys[0])

    def _carry_out(self, operation: protocol.Operation, deadline: float | None = None) -> str:
        (line,) = self._carry_out_all([operation], deadline)
        return line

    def _carry_out_all(
        self, operations: list[protocol.Operation], deadline: float | None = None
    ) -> list[str]:
        hub, wire = self._store.hub, self._store.wire()
        sent_at = time.monotonic()
        lines: list[str] = []
        try:
            lines = wire.call(operations, deadline)
            hub.hear(lines[len(operations) :], sent_at, in_callers_thread=True)
            while hub.unfinished:
                # Taken out first: were it swept by the keeper as well, news would change places.
                key = hub.unfinished.popitem()[0]
                sent_at = time.monotonic()
                try:
                    news = wire.call([protocol.sweep(key)], deadline)[1:]
                except BaseException as error:
                    hub.unfinished[key] = None
                    if isinstance(error, StoreError):
                        break  # the keeper does it
                    raise
                hub.hear(news, sent_at, in_callers_thread=True)
        except BaseException:
            if lines:
                hub.silence()  # thrown in by a signal or a thread: news may be lost
            raise
        return lines[: len(operations)]

    def _names(self) -> Iterator[Any]:
        wire = self._store.wire()
        seen: set[Any] = set()  # SCAN may show a key twice
        pattern = self._store.states_pattern
        for node in wire.nodes():
            cursor = None
            while cursor != 0:
                scan = ("SCAN", cursor or 0, "MATCH", pattern, "COUNT", SCAN_COUNT)
                cursor, names = protocol.parse_scan(wire.command(*scan, node=node))
                yield from (name for name in names if name not in seen)
                seen.update(names)

    def _find(self, request_id: str) -> str | None:
        """Return a key of a lease or ticket: from our own books, or by looking at all keys."""
        live = self._store.hub.live.get(request_id)
        if live is not None:
            return live.key
        for keys in batched(self.keys(), BATCH):
            operations = [protocol.find(request_id, key) for key in keys]
            sent_at = time.monotonic()
            found, news = self._store.wire().call_each(operations)
            self._store.hub.hear(news, sent_at)
            away = next((line for line in found if isinstance(line, StoreUnavailable)), None)
            if away is not None:
                raise away
            if "1" in found:  # a record that cannot be read is none of this request
                return keys[found.index("1")]
        return None
