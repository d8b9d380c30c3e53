"""Operations of more than one call, once for event loops and threads: sweeps, policies, the layout.

Each is a generator. It yields what its `World` returned, and is sent the reply: in an event loop
that is an awaitable, which is awaited first.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Protocol, TypeVar

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.policies import Change
from limiter_core.requests import Presence, Request
from limiter_core.system_clock import system_clock as time
from limiter_redis.connection.deadlines import answer_by
from limiter_redis.protocol import commands, layout, policies, replies, words
from limiter_redis.protocol.commands import BATCH, NOTE_LASTS, Operation, batched
from limiter_redis.protocol.errors import may_be_on_its_way
from limiter_redis.session.notices import SweepState
from limiter_redis.session.tracker import RequestTracker

_NOTE_AGAIN = 3600.0
"""Seconds after which a scope is noted again for `sweep`."""

_REPEAT_EVERY = 5.0
"""Seconds between two looks for refused jobs whose queue does not know it."""

R = TypeVar("R")
Steps = Generator[Any, Any, R]
"""An operation that can be carried out in either world."""


class World(Protocol):
    """How operations are carried out: by a thread at once, in an event loop by an awaitable."""

    def carry_out_all(self, operations: list[Operation], deadline: float | None = None) -> Any:
        """Return the replies; the first error is raised."""

    def carry_out_each(self, operations: list[Operation]) -> Any:
        """Return the replies, or why there is none."""

    def command(self, *command: Any) -> Any:
        """Return what a plain command returns."""

    def all_keys(self) -> Any:
        """Return the keys that the store has."""


class CommonSteps:
    """The operations.

    Args:
        world: how their calls are carried out.
        tracker: the requests of this process.
        state: what it remembers of sweeps.
    """

    def __init__(self, world: World, tracker: RequestTracker, state: SweepState) -> None:
        self._world = world
        self._tracker = tracker
        self._state = state

    def find(self, request_id: str) -> Steps[str | None]:
        """Return a key of a lease or ticket: from our own entries, or by looking at all keys."""
        entry = self._tracker.entries.get(request_id)
        if entry is not None:
            return entry.key
        keys: Iterable[str] = yield self._world.all_keys()
        for some in batched(keys, BATCH):
            operations = [commands.find(request_id, key) for key in some]
            found: list[str | StoreError] = yield self._world.carry_out_each(operations)
            away = next((line for line in found if isinstance(line, StoreUnavailable)), None)
            if away is not None:
                raise away
            if "1" in found:  # a record that cannot be read is none of this request
                return some[found.index("1")]
        return None

    # -- durable tickets --------------------------------------------------------------------------

    def note_scopes(self, request: Request) -> Steps[None]:
        """Note the scopes of a durable request for `sweep`: for a while, since the note ends."""
        now = time.monotonic()
        all_scopes = {words.scope_of(words.key_word(demand.key)) for demand in request.demands}
        # The keys without one need no note.
        scopes = [each for each in all_scopes if each and now >= self._state.scopes.get(each, 0.0)]
        if scopes:
            yield self._world.command("SADD", self._tracker.keyspace.scopes, *scopes)
            yield self._world.command("EXPIRE", self._tracker.keyspace.scopes, NOTE_LASTS)
            self._state.scopes.update(dict.fromkeys(scopes, time.monotonic() + _NOTE_AGAIN))

    def sweep(self, presence: Presence | None) -> Steps[None]:
        """Look after durable tickets, for a worker that is there or leaves."""
        yield from self.check_layout()
        noted = yield self._world.command("SMEMBERS", self._tracker.keyspace.scopes)
        known = set(replies.parse_scopes(noted))
        for scope in list(self._state.scopes):
            if scope not in known:  # noted here, and lost there: it is noted again
                self._state.scopes[scope] = 0.0
        all_scopes = ["", *known]
        for some in batched(all_scopes, BATCH):
            scopes = some
            while scopes:
                operations = [commands.offers(scope, presence) for scope in scopes]
                lines = yield self._world.carry_out_all(operations)
                done = map(replies.parse_count, lines, scopes)
                scopes = [scope for scope, n in zip(scopes, done, strict=True) if n >= BATCH]
        if presence is None or presence.leaving:
            return  # one that leaves missed nothing that it could follow
        gaps = self._tracker.notices.gaps
        if gaps > self._state.repeated.get(presence.worker, 0):
            for scope in all_scopes:
                yield from self._repeat_notices(scope, presence.name)
            self._state.repeated[presence.worker] = gaps
        # No gap says so: the process that refused a job may have been killed, or got no reply.
        now = time.monotonic()
        if now >= self._state.refusals_at.get(presence.worker, 0.0) + _REPEAT_EVERY:
            self._state.refusals_at[presence.worker] = now
            yield from self._repeat_refusals(all_scopes, presence.name)

    def _repeat_notices(self, scope: str, gate: str) -> Steps[None]:
        skip, looked = 0, BATCH
        while looked >= BATCH:
            (line,) = yield self._world.carry_out_all([commands.missed(scope, gate, skip)])
            looked = replies.parse_count(line, scope)
            skip += looked

    def _repeat_refusals(self, scopes: Iterable[str], gate: str) -> Steps[None]:
        for some in batched(scopes, BATCH):
            cursors = dict.fromkeys(some, "0")
            while cursors:
                operations = [
                    commands.refusals(scope, gate, cursor) for scope, cursor in cursors.items()
                ]
                lines = yield self._world.carry_out_all(operations)
                cursors = {
                    scope: str(cursor)
                    for scope, line in zip(cursors, lines, strict=True)
                    if (cursor := replies.parse_count(line, scope))
                }

    # -- policies of names, and the layout --------------------------------------------------------

    def change_policy(self, change: Change) -> Steps[Change]:
        """Change what is in force for a name, for all waiters, too; returns the log's entry."""
        yield from self.check_layout()
        (line,) = yield self._world.carry_out_all([policies.change(change)])
        entry = policies.changed(change, line)
        yield from self.read_policies(None)
        known, words = self._tracker.policies, None
        while words != known.words_of(change.name):  # or another operator has changed it meanwhile
            words = known.words_of(change.name)
            steps = policies.apply_all(list((yield self._world.all_keys())), change.name, words)
            try:
                operations = next(steps)
                while True:
                    operations = steps.send((yield self._world.carry_out_each(operations)))
            except StopIteration as done:
                if done.value is not None:
                    raise done.value from None
            yield from self.read_policies(None)
        return entry

    def read_policies(self, until: float | None) -> Steps[None]:
        """Read what is in force for names (S22).

        Where that is refused, for want of a right, no policy counts, and calls go on.
        """
        asked_at = time.monotonic()
        deadline = None if until is None else answer_by(until, asked_at)
        try:
            agreed, line = yield self._world.carry_out_all(
                [layout.look(), policies.look()], deadline
            )
            found = policies.parse_policies(line)
        except StoreUnavailable:
            raise
        except StoreError as error:
            if may_be_on_its_way(error):
                raise  # it was not answered
            self._tracker.policies.unreadable(error)
            agreed, found = (yield from self._look_at_layout(deadline)), ()
        self._tracker.layout_read(agreed)
        self._tracker.policies.update(found, asked_at)

    def check_layout(self, deadline: float | None = None) -> Steps[None]:
        """Find out, once, that processes of other releases here have the layout of this one."""
        if not self._tracker.layout_checked:
            self._tracker.layout_read((yield from self._look_at_layout(deadline)))

    def _look_at_layout(self, deadline: float | None) -> Steps[str]:
        try:
            (line,) = yield self._world.carry_out_all([layout.look()], deadline)
        except StoreError as error:
            return layout.unread(error)
        return str(line)
