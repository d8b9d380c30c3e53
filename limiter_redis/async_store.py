"""The operations of `RedisStore` for asyncio: those of one turn of the loop are one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.policies import Change, Policy
from limiter_core.requests import Answer, KeySnapshot, Notice, Presence, Renewal, Request
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.slot_map import check_one_slot
from limiter_redis.connection.deadlines import answer_by
from limiter_redis.protocol import commands, policies, replies, snapshots
from limiter_redis.protocol.commands import SCAN_COUNT
from limiter_redis.session.common_steps import CommonSteps, Steps
from limiter_redis.session.entries import Entry, Event
from limiter_redis.session.lease_tasks import release_of
from limiter_redis.session.session import Session

R = TypeVar("R")

# The members of an enum take their time to be looked up.
RELEASED, CALLER_GONE = Event.RELEASED, Event.CALLER_GONE


class AsyncRedisStore:
    """`RedisStore` for asyncio: the operations of one tick are one round trip."""

    def __init__(self, session: Session) -> None:
        self._session = session

    now = staticmethod(time.monotonic)  # as a method it would cost each call several of Python's

    async def acquire(self, request: Request) -> Answer:
        session = self._session
        if session.one_slot:
            check_one_slot(request)
        if request.payload is not None:
            await self._run(self._steps.note_scopes(request))
        tracker = session.tracker
        releases: Sequence[Entry] = ()
        if request.payload is not None and tracker.requests.releasing:  # else its id is a new one
            releases = tracker.unfinished_releases(request)
        sent_at = time.monotonic()
        if sent_at >= tracker.policies.valid_until or tracker.policies.readers:
            await self._read_policies(request, sent_at)
            sent_at = time.monotonic()
        if request.payload is not None:
            tracker.policies.sent(request, sent_at)
        transport = session.async_transport()  # last: it may have been closed meanwhile
        session.prepare(request, sent_at)
        deadline = answer_by(request.deadline, sent_at)
        try:
            for entry in releases:  # it travels in the same call, and is repeated elsewhere
                transport.submit(release_of(entry), deadline).add_done_callback(_nobody_waits)
            ask = commands.acquire(request, tracker.policies.by_name, sent_at)
            line = await transport.submit(ask, deadline)
            return tracker.settle(request, line, sent_at)
        except BaseException as error:
            granted = tracker.withdraw(request, error)
            if granted is None or not isinstance(error, StoreUnavailable):
                raise
            return granted

    async def _read_policies(self, request: Request, now: float) -> None:
        """Read policies for a call; also for one behind it, where another thread just read them.

        Else that one would be sent while the first still reads, and overtake it.
        """
        policies = self._session.tracker.policies
        if now >= policies.valid_until:
            policies.readers.add(request.id)
        try:
            await self._run(self._steps.read_policies(request.deadline))
        finally:
            policies.readers.discard(request.id)

    async def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        if self._session.is_of_parent(lease_id):
            return False
        entry = self._session.tracker.end(lease_id)
        key = keys[0] if keys else entry.key if entry is not None else await self._find(lease_id)
        if key is None:
            return False
        if entry is None:
            return await self._flag(commands.release(lease_id, key))
        return await self._release(entry, key)

    async def _release(self, entry: Entry, key: str) -> bool:
        try:
            # A caller without a lease has waited long enough: if this takes long, it is done in the
            # background.
            deadline = None if entry.token else answer_by(0.0, time.monotonic())
            line = await self._session.async_transport().submit(release_of(entry), deadline)
            if entry.token and self._session.tracker.unfinished:
                await self._finish_steps()
            there = replies.parse_flag(line, key)
        except BaseException:
            self._session.tracker.happened(entry, CALLER_GONE)
            raise
        self._session.tracker.happened(entry, RELEASED)
        return there

    async def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:
        if self._session.is_of_parent(lease_id):
            return False
        entry = self._session.tracker.end(lease_id, claimant)
        if entry is not None:
            return await self._release(entry, keys[0])
        return await self._flag(commands.release_claim(lease_id, keys[0], claimant, for_good=False))

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        if not self._session.is_of_parent(lease_id):
            self._session.abandon(lease_id, keys[0], claimant)

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        self._session.tracker.end(lease_id, claimant, Event.COLLECTED)

    async def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        if self._session.tracker.holds(ticket_id):
            return False
        key = keys[0] if keys else await self._find(ticket_id)
        return key is not None and await self._flag(commands.withdraw(ticket_id, key))

    async def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        await self._check_layout()
        key = keys[0] if keys else await self._find(ticket_id)
        return key is not None and await self._flag(commands.dismiss(ticket_id, key))

    async def renew(self, ids: Sequence[str]) -> Renewal:
        said: list[tuple[str, str]] = []
        for each in ids:
            key = await self._find(each)
            line = "gone" if key is None else await self._carry_out(commands.renew(each, key))
            said.append((each, line))
        return replies.renewal(said)

    async def evict(self, lease_id: str) -> bool:
        await self._check_layout()
        key = await self._find(lease_id)
        return key is not None and await self._flag(commands.evict(lease_id, key))

    async def sweep(self, presence: Presence | None = None) -> None:
        await self._run(self._steps.sweep(presence))

    async def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        return snapshots.parse_snapshot(key, await self._operate(commands.inspect(key), deadline))

    async def keys(
        self, *, after_slice: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[str]:
        await self._check_layout()
        async for name in self._names(after_slice):
            key = self._session.tracker.keyspace.key_of(name)
            if key is not None:
                yield key

    async def set_limit(self, key: str, limit: int) -> None:
        await self._operate(commands.set_limit(key, limit))

    async def reset_limit(self, key: str) -> None:
        await self._operate(commands.set_limit(key, None))

    async def pause(self, key: str) -> None:
        await self._operate(commands.set_paused(key, True))

    async def resume(self, key: str) -> None:
        await self._operate(commands.set_paused(key, False))

    async def change_policy(self, change: Change) -> Change:
        return await self._run(self._steps.change_policy(change))

    async def policies(self) -> tuple[Policy, ...]:
        return policies.parse_policies(await self._operate(policies.look()))

    async def log_change(self, change: Change) -> Change:
        return policies.logged(change, await self._operate(policies.log(change)))

    async def changes(self) -> tuple[Change, ...]:
        return policies.parse_changes(await self._operate(policies.look_at_changes()))

    async def _operate(self, operation: commands.Operation, deadline: float | None = None) -> str:
        """Carry out an operation of an operator, unless the layout is another release's."""
        await self._check_layout(deadline)
        return await self._carry_out(operation, deadline)

    async def _check_layout(self, deadline: float | None = None) -> None:
        if not self._session.tracker.layout_checked:
            await self._run(self._steps.check_layout(deadline))

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        self._session.on_notice(callback)

    async def aclose(self) -> None:
        await self._session.aclose()

    async def _flag(self, operation: commands.Operation) -> bool:
        return replies.parse_flag(await self._carry_out(operation), operation.keys[0])

    async def _carry_out(self, operation: commands.Operation, deadline: float | None = None) -> str:
        # Not through `carry_out_all`: every call waits for this.
        line = await self._session.async_transport().submit(operation, deadline)
        if self._session.tracker.unfinished and deadline is None:  # else the renewer does it
            await self._finish_steps()
        return line

    async def command(self, *command: Any) -> Any:
        return await self._session.async_transport().command(*command)

    async def all_keys(self) -> list[str]:
        return [key async for key in self.keys()]

    async def carry_out_all(
        self, operations: Iterable[commands.Operation], deadline: float | None = None
    ) -> list[str]:
        transport = self._session.async_transport()
        pending = [transport.submit(operation, deadline) for operation in operations]
        lines: list[str] = [await reply for reply in pending]  # they travel together anyhow
        if deadline is None:  # else the renewer does it
            await self._finish_steps()
        return lines

    async def carry_out_each(
        self, operations: Iterable[commands.Operation]
    ) -> list[str | StoreError]:
        """Carry out operations; returns the replies, or why there is none."""
        transport = self._session.async_transport()
        replies = [transport.submit(operation) for operation in operations]
        lines = await asyncio.gather(*replies, return_exceptions=True)
        for line in lines:
            if isinstance(line, BaseException) and not isinstance(line, StoreError):
                raise line
        await self._finish_steps()
        return cast(list[str | StoreError], lines)

    async def _finish_steps(self) -> None:
        """Do what steps left over (S16)."""
        tracker = self._session.tracker
        while (key := tracker.take_unfinished()) is not None:
            try:
                await self._session.async_transport().submit(commands.sweep(key))
            except BaseException as error:
                tracker.unfinished[key] = None
                if isinstance(error, StoreError):
                    return  # the renewer does it
                raise

    async def _names(self, after_slice: Callable[[], Awaitable[None]] | None) -> AsyncIterator[Any]:
        transport = self._session.async_transport()
        seen: set[Any] = set()  # SCAN may show a key twice
        pattern = self._session.tracker.keyspace.states
        for node in await transport.nodes():
            cursor = None
            while cursor != 0:
                scan = ("SCAN", cursor or 0, "MATCH", pattern, "COUNT", SCAN_COUNT)
                cursor, names = replies.parse_scan(await transport.command(*scan, node=node))
                for name in names:
                    if name not in seen:
                        yield name
                seen.update(names)
                if after_slice is not None:
                    await after_slice()

    async def _find(self, request_id: str) -> str | None:
        return await self._run(self._steps.find(request_id))

    @property
    def _steps(self) -> CommonSteps:
        return CommonSteps(self, self._session.tracker, self._session.sweep_state)

    async def _run(self, steps: Steps[R]) -> R:
        """Carry out an operation of more than one call; returns its result."""
        try:
            asked = next(steps)
            while True:
                try:
                    reply = await asked
                except BaseException as error:  # noqa: BLE001  (the operation's to raise)
                    asked = steps.throw(error)
                else:
                    asked = steps.send(reply)
        except StopIteration as done:
            return cast(R, done.value)


def _nobody_waits(reply: asyncio.Future[str]) -> None:
    """Have a failure not be logged that no caller waits for."""
    if not reply.cancelled():
        reply.exception()
