"""What is done for the requests of this process in the background, at the servers.

Each task sends its operations in batches, passes on the news, and notes with the tracker what
the replies say. A reply that is an error, or that cannot be read, leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
    TimeoutError,  # noqa: A004  (redis-py's own)
)

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.requests import Request
from limiter_core.system_clock import system_clock as time
from limiter_redis.cluster.slot_map import tag_of
from limiter_redis.connection.background import BackgroundCall
from limiter_redis.connection.nodes import Node
from limiter_redis.protocol import commands, layout, policies, replies
from limiter_redis.protocol.commands import BATCH, batched
from limiter_redis.protocol.errors import store_error
from limiter_redis.session.entries import Entry, Event, State, Work
from limiter_redis.session.tracker import RequestTracker
from limiter_redis.session.warnings import NOT_SUBSCRIBED, Warnings
from limiter_redis.transport.interfaces import ThreadTransport

R = TypeVar("R")

RELEASING = State.RELEASING  # a member of an enum takes its time to be looked up

TICK = 0.1
"""Seconds between looks at the clock; the bound on how late a renewal can be."""

_SHORT_TICK = 0.02
_SHORT_LEASE = 1.0
_LONGEST_PAUSE = 1.0
"""Seconds between two renewals where the store is away, at the most; less for a short lease."""

FAILED = "the lease renewer failed, and goes on"
_BAD_ANSWER = "the lease renewer got an error from the store"
_UNAVAILABLE = "cannot renew leases, will retry until they end"


def release_of(entry: Entry) -> commands.Operation:
    """Return the operation that releases a request, and nothing but what is of its caller."""
    request = entry.request
    if request.payload is None:
        return commands.release(request.id, entry.key, for_good=entry.unsure)
    return commands.release_claim(request.id, entry.key, request.claimant, for_good=entry.unsure)


def renewal_of(entry: Entry) -> commands.Operation:
    """Return the operation that renews a request."""
    return commands.renew(entry.request.id, entry.key, entry.claimant)


def tick_of(tracker: RequestTracker) -> float:
    """Return the seconds between looks at the clock."""
    return _SHORT_TICK if tracker.requests.shortest < _SHORT_LEASE else TICK


def _still_due(entries: Iterable[Entry], *, releasing: bool) -> list[Entry]:
    """Return what was not done meanwhile: what takes long is given again before it is over."""
    now = time.monotonic()
    due = [each for each in entries if each.renew_at <= now]
    return [each for each in due if (each.state is RELEASING) == releasing]


class LeaseTasks:
    """The tasks of one node's worker, and what it notes. For its thread.

    Args:
        tracker: the requests of this process.
        transport: the way to the servers, for this worker alone.
        warnings: where its failures are said.
        slots_moved: has the slot map refreshed.
    """

    def __init__(
        self,
        tracker: RequestTracker,
        transport: ThreadTransport,
        warnings: Warnings,
        slots_moved: Callable[[], object],
    ) -> None:
        self._tracker = tracker
        self._transport = transport
        self._warnings = warnings
        self.slots_moved = slots_moved

    def connect(self, node: Node) -> BackgroundCall:
        """Open the connection to a node, in the background."""
        call = BackgroundCall(
            lambda: self._transport.command("PING", node=node), lambda _: self._transport.close()
        )
        call.begin()
        return call

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def is_urgent(self, work: Work) -> bool:
        """Whether there is work that cannot wait: the process may end."""
        return self._tracker.requests.closing and bool(work.releases)

    def carry_out(self, work: Work) -> float | None:
        """Do what there is to do at the node.

        Returns:
            None; or if the node is away the seconds to the next attempt, at the most.
        """
        try:
            self._carefully(self._renew, work.renewals)
            self._carefully(self._look, work.looks)
            self._carefully(self._release, work.releases)
            if work.policies:
                self._carefully(self._read_policies)
            if work.publish:
                self._carefully(self._publish)  # last: it may be refused, for want of a right
        except StoreUnavailable as error:
            if self._tracker.has_known_requests():
                self._warnings.warn(_UNAVAILABLE, error)
            if self._tracker.requests.closing:
                for entry in work.releases:  # what could not be released ends by itself
                    self._tracker.happened(entry, Event.RELEASED)
            return min(_LONGEST_PAUSE, self._tracker.requests.shortest / 6)
        return None

    def _carefully(self, task: Callable[..., None], *given: Iterable[Any]) -> None:
        """Carry out a task that may fail, whatever the reason: those behind it go on."""
        try:
            task(*given)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001
            self._warnings.warn(FAILED, error)

    def _renew(self, entries: Iterable[Entry]) -> None:
        """Renew leases and tickets; ask again for leases that the store lost.

        Raises:
            StoreUnavailable: the node is away. (As of all that follow.)
        """
        due = _still_due(entries, releasing=False)
        due.sort(key=lambda entry: entry.waiting)  # else waiters would get what is held
        for some in batched(due, BATCH):
            sent_at = time.monotonic()
            lost: list[Request] = []
            for entry, line in zip(some, self._call(list(map(renewal_of, some))), strict=True):
                if lost and entry.waiting:
                    self._reclaim(lost)
                    lost = []
                if isinstance(line, str):
                    request = self._read(partial(self._tracker.renewed, entry, line, sent_at))
                    if request is not None:
                        lost.append(request)
            if lost:
                self._reclaim(lost)

    def _reclaim(self, lost: list[Request]) -> None:
        sent_at = time.monotonic()
        for request, line in zip(lost, self._call(list(map(self._again, lost))), strict=True):
            if isinstance(line, str):  # else it is asked for again
                self._read(partial(self._tracker.settle, request, line, sent_at))

    def _again(self, request: Request) -> commands.Operation:
        return commands.acquire(request, self._tracker.policies.by_name, time.monotonic())

    def _read_policies(self) -> None:
        """Read the policies of names; waiters under one that changed ask again (S22)."""
        known, asked_at = self._tracker.policies, time.monotonic()
        agreed, line = self._call([layout.look(), policies.look()])
        if isinstance(agreed, str):
            self._read(partial(self._tracker.layout_read, agreed))
        if isinstance(line, str) and self._tracker.layout_checked:
            found = self._read(partial(policies.parse_policies, line))
            if found is not None:
                known.update(found, asked_at)
        for name, keys in known.to_apply(asked_at).items():
            self._apply_policy(name, keys, known.words_of(name))

    def _apply_policy(self, name: str, keys: list[str], words: str) -> None:
        steps = policies.apply_all(keys, name, words)
        with suppress(StopIteration):
            operations = next(steps)
            while True:
                operations = steps.send(self._call(operations))

    def _look(self, keys: Iterable[str]) -> None:
        """Look at keys whose next lease ends, or where a step left work over."""
        for some in batched(keys, BATCH):
            lines = self._call(list(map(commands.sweep, some)))
            if any(entry.waiting for entry in list(self._tracker.entries.values())):
                for key, line in zip(some, lines, strict=True):
                    if isinstance(line, str):
                        after = self._read(partial(replies.parse_duration, line, key))
                        self._tracker.look_at(key, after)

    def _release(self, entries: Iterable[Entry]) -> None:
        """Release what is not wanted any more."""
        for some in batched(_still_due(entries, releasing=True), BATCH):
            for entry, line in zip(some, self._call(list(map(release_of, some))), strict=True):
                unavailable = isinstance(line, StoreUnavailable)
                if isinstance(line, str) or (unavailable and self._tracker.requests.closing):
                    # What could not be released ends by itself.
                    self._tracker.happened(entry, Event.RELEASED)
                elif not unavailable:  # else it is tried again at once
                    self._tracker.happened(entry, Event.FAILED)

    def _publish(self) -> None:
        """Notify other processes of jobs that were not woken here; else a sweep finds them."""
        notices = self._tracker.notices
        with notices.publishing:
            while notices.undelivered:
                command = "SPUBLISH" if self._tracker.sharded else "PUBLISH"
                self._transport.command(command, notices.channel, notices.undelivered[0])
                del notices.undelivered[0]  # only now: what fails is tried again

    def _call(self, operations: list[commands.Operation]) -> list[str | StoreError]:
        """Carry out operations and pass on the news; returns the replies, or why there is none."""
        sent_at = time.monotonic()
        lines, news = self._transport.call_each(operations)
        self._tracker.receive(news, sent_at)
        errors = [line for line in lines if isinstance(line, StoreError)]
        away = [error for error in errors if isinstance(error, StoreUnavailable)]
        if away:
            self.slots_moved()
            if self._tracker.has_known_requests():
                self._warnings.warn(_UNAVAILABLE, away[0])
        elif errors:
            self._warnings.warn(_BAD_ANSWER, errors[0])
        else:
            self._warnings.carried_out()
        if len(away) == len(lines) and all(map(self._is_of_node, away)):
            raise away[0]
        return lines

    def _is_of_node(self, error: StoreUnavailable) -> bool:
        """Whether all that a node has is away, not one slot of it."""
        return not self._tracker.sharded or isinstance(
            error.__cause__, ConnectionError | TimeoutError | OSError
        )

    def _read(self, read: Callable[[], R]) -> R | None:
        """Return what a reply says; None if it cannot be read: the others go on."""
        try:
            return read()
        except StoreError as error:
            self._warnings.warn(_BAD_ANSWER, error)
            return None

    # -- messages ----------------------------------------------------------------------------------

    def tick(self) -> float:
        """Return the seconds between looks at the clock."""
        return tick_of(self._tracker)

    def channel_of(self, tag: str) -> bytes:
        """Return the channel of this process under a tag; that of notices is its own tag."""
        if self._tracker.sharded and tag != self._tracker.notices.channel:
            return f"{tag}:process:{self._tracker.process}".encode()
        return tag.encode()

    def receive(self, messages: list[tuple[bytes, bytes]], since: float) -> None:
        """Pass on messages.

        Args:
            messages: each with its channel in front.
            since: a moment before which none had arrived: leases count from then.
        """
        notices = self._tracker.notices.channel.encode()
        changes = self._tracker.changes.encode()
        for channel, said in messages:
            if channel == changes:
                self._tracker.policies.noticed()
            elif channel == notices:
                self._tracker.receive_undelivered(replies.text_of(said))
            else:
                self._tracker.receive([replies.text_of(said)], since)

    def subscribed_to(self, tags: set[str], *, complete: bool) -> None:
        """Have the requests looked at that missed what was said before: the leases, too.

        Args:
            tags: whose messages are received from now on.
            complete: whether they are all that the node was asked for.
        """
        if self._tracker.sharded:
            keyspace = self._tracker.keyspace
            self._tracker.messages_lost(lambda entry: tag_of(keyspace, entry.key) in tags)
        else:
            self._tracker.messages_lost()
            self._tracker.policies.noticed()
        if self._tracker.notices.channel in tags:
            self._tracker.notices.may_be_lost()
        if complete:
            self._warnings.over(NOT_SUBSCRIBED)

    def not_subscribed(self, error: Exception, *, took_long: bool) -> None:
        """Note why messages are not received at a node."""
        # A caller that the store does not know yet gets the error of its own call; but not if that
        # hangs.
        if self._tracker.has_known_requests() or (took_long and self._tracker.entries):
            self._warnings.warn(NOT_SUBSCRIBED, store_error(error, self._tracker.where))
        self.slots_moved()

    def no_sharded_channels(self, error: Exception) -> None:
        """Look at all waiters from time to time, since the servers have no sharded channels.

        Raises:
            RedisError: there are none, but plain ones, and they are refused.
        """
        if not self._tracker.sharded:
            raise error
        if not self._tracker.polls:
            self._warnings.warn("no sharded pub/sub here, will look instead", error)
        self._tracker.polls = True
