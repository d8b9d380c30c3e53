"""The operations of `RedisStore` for threads: each is a round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


class SyncRedisStore:
    """`RedisStore` for threads: each operation is a round trip."""

    def __init__(self, session: Session) -> None:
        self._session = session

    now = staticmethod(time.monotonic)  # as a method it would cost each call several of Python's

    def acquire(self, request: Request) -> Answer:
        session = self._session
        if session.one_slot:
            check_one_slot(request)
        if request.payload is not None:
            self._run(self._steps.note_scopes(request))
        tracker = session.tracker
        releases: Sequence[Entry] = ()
        if request.payload is not None and tracker.requests.releasing:  # else its id is a new one
            releases = tracker.unfinished_releases(request)
        sent_at = time.monotonic()
        if sent_at >= tracker.policies.valid_until:
            self._run(self._steps.read_policies(request.deadline))
            sent_at = time.monotonic()
        if request.payload is not None:
            tracker.policies.sent(request, sent_at)
        session.prepare(request, sent_at)
        deadline = answer_by(request.deadline, sent_at)
        try:
            # Releases of before travel in the same call, and are repeated in the background.
            ask = commands.acquire(request, tracker.policies.by_name, sent_at)
            operations = [*map(release_of, releases), ask]
            line = self.carry_out_all(operations, deadline)[-1]
            return tracker.settle(request, line, sent_at)
        except BaseException as error:
            granted = tracker.withdraw(request, error)
            if granted is None or not isinstance(error, StoreUnavailable):
                raise
            return granted

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        if self._session.is_of_parent(lease_id):
            return False
        entry = self._session.tracker.end(lease_id)
        key = keys[0] if keys else entry.key if entry is not None else self._find(lease_id)
        if key is None:
            return False
        if entry is None:
            return self._flag(commands.release(lease_id, key))
        return self._release(entry, key)

    def _release(self, entry: Entry, key: str) -> bool:
        try:
            # A caller without a lease has waited long enough: if this takes long, it is done in the
            # background.
            deadline = None if entry.token else answer_by(0.0, time.monotonic())
            there = replies.parse_flag(self._carry_out(release_of(entry), deadline), key)
        except BaseException:
            self._session.tracker.happened(entry, CALLER_GONE)
            raise
        self._session.tracker.happened(entry, RELEASED)
        return there

    def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:
        if self._session.is_of_parent(lease_id):
            return False
        entry = self._session.tracker.end(lease_id, claimant)
        if entry is not None:
            return self._release(entry, keys[0])
        return self._flag(commands.release_claim(lease_id, keys[0], claimant, for_good=False))

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        if not self._session.is_of_parent(lease_id):
            self._session.abandon(lease_id, keys[0], claimant)

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        self._session.tracker.end(lease_id, claimant, Event.COLLECTED)

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        if self._session.tracker.holds(ticket_id):
            return False
        key = keys[0] if keys else self._find(ticket_id)
        return key is not None and self._flag(commands.withdraw(ticket_id, key))

    def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        self._check_layout()
        key = keys[0] if keys else self._find(ticket_id)
        return key is not None and self._flag(commands.dismiss(ticket_id, key))

    def renew(self, ids: Sequence[str]) -> Renewal:
        found = [(each, self._find(each)) for each in ids]
        return replies.renewal(
            (each, "gone" if key is None else self._carry_out(commands.renew(each, key)))
            for each, key in found
        )

    def evict(self, lease_id: str) -> bool:
        self._check_layout()
        key = self._find(lease_id)
        return key is not None and self._flag(commands.evict(lease_id, key))

    def sweep(self, presence: Presence | None = None) -> None:
        self._run(self._steps.sweep(presence))

    def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        return snapshots.parse_snapshot(key, self._operate(commands.inspect(key), deadline))

    def keys(self, *, after_slice: Callable[[], object] | None = None) -> Iterator[str]:
        self._check_layout()
        for name in self._names(after_slice):
            key = self._session.tracker.keyspace.key_of(name)
            if key is not None:
                yield key

    def set_limit(self, key: str, limit: int) -> None:
        self._operate(commands.set_limit(key, limit))

    def reset_limit(self, key: str) -> None:
        self._operate(commands.set_limit(key, None))

    def pause(self, key: str) -> None:
        self._operate(commands.set_paused(key, True))

    def resume(self, key: str) -> None:
        self._operate(commands.set_paused(key, False))

    def change_policy(self, change: Change) -> Change:
        return self._run(self._steps.change_policy(change))

    def policies(self) -> tuple[Policy, ...]:
        return policies.parse_policies(self._operate(policies.look()))

    def log_change(self, change: Change) -> Change:
        return policies.logged(change, self._operate(policies.log(change)))

    def changes(self) -> tuple[Change, ...]:
        return policies.parse_changes(self._operate(policies.look_at_changes()))

    def _operate(self, operation: commands.Operation, deadline: float | None = None) -> str:
        """Carry out an operation of an operator, unless the layout is another release's."""
        self._check_layout(deadline)
        return self._carry_out(operation, deadline)

    def _check_layout(self, deadline: float | None = None) -> None:
        if not self._session.tracker.layout_checked:
            self._run(self._steps.check_layout(deadline))

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        self._session.on_notice(callback)

    def close(self) -> None:
        self._session.close()

    def _flag(self, operation: commands.Operation) -> bool:
        return replies.parse_flag(self._carry_out(operation), operation.keys[0])

    def _carry_out(self, operation: commands.Operation, deadline: float | None = None) -> str:
        (line,) = self.carry_out_all([operation], deadline)
        return line

    def command(self, *command: Any) -> Any:
        return self._session.sync_transport().command(*command)

    def all_keys(self) -> Iterator[str]:
        return self.keys()

    def carry_out_all(
        self, operations: list[commands.Operation], deadline: float | None = None
    ) -> list[str]:
        tracker, transport = self._session.tracker, self._session.sync_transport()
        sent_at = time.monotonic()
        lines: list[str] = []
        try:
            lines = transport.call(operations, deadline)
            tracker.receive(lines[len(operations) :], sent_at, in_callers_thread=True)
            # Taken out first: were it swept by the renewer as well, news would change places.
            while tracker.unfinished and (key := tracker.take_unfinished()) is not None:
                sent_at = time.monotonic()
                try:
                    news = transport.call([commands.sweep(key)], deadline)[1:]
                except BaseException as error:
                    tracker.unfinished[key] = None
                    if isinstance(error, StoreError):
                        break  # the renewer does it
                    raise
                tracker.receive(news, sent_at, in_callers_thread=True)
        except BaseException:
            if lines:
                tracker.messages_lost()  # thrown in by a signal or a thread: news may be lost
            raise
        return lines[: len(operations)]

    def carry_out_each(self, operations: list[commands.Operation]) -> list[str | StoreError]:
        """Carry out operations; returns the replies, or why there is none."""
        sent_at = time.monotonic()
        lines, news = self._session.sync_transport().call_each(operations)
        self._session.tracker.receive(news, sent_at)
        while (key := self._session.tracker.take_unfinished()) is not None:
            self._carry_out(commands.sweep(key))  # what steps left over (S16)
        return lines

    def _names(self, after_slice: Callable[[], object] | None) -> Iterator[Any]:
        transport = self._session.sync_transport()
        seen: set[Any] = set()  # SCAN may show a key twice
        pattern = self._session.tracker.keyspace.states
        for node in transport.nodes():
            cursor = None
            while cursor != 0:
                scan = ("SCAN", cursor or 0, "MATCH", pattern, "COUNT", SCAN_COUNT)
                cursor, names = replies.parse_scan(transport.command(*scan, node=node))
                yield from (name for name in names if name not in seen)
                seen.update(names)
                if after_slice is not None:
                    after_slice()

    def _find(self, request_id: str) -> str | None:
        return self._run(self._steps.find(request_id))

    @property
    def _steps(self) -> CommonSteps:
        return CommonSteps(self, self._session.tracker, self._session.sweep_state)

    def _run(self, steps: Steps[R]) -> R:
        """Carry out an operation of more than one call; returns its result."""
        reply = None
        try:
            while True:
                reply = steps.send(reply)  # what it asked was done at once
        except StopIteration as done:
            return cast(R, done.value)
