"""What a store has in this process: its requests, its lease renewer, and its transports.

A session belongs to a process: a child made by `fork` begins a new one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Protocol

from limiter_core.errors import ConfigurationError, StoreError
from limiter_core.requests import Notice, Request
from limiter_core.signal_errors import reraise_if_of_signal
from limiter_core.store import Capabilities
from limiter_core.threads import new_lock, run_in_thread, socket_owner
from limiter_redis.session.notices import SweepState
from limiter_redis.session.tracker import RequestTracker
from limiter_redis.transport.interfaces import LoopTransport, ThreadTransport

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Renewer(Protocol):
    """The background thread that renews leases; see `LeaseRenewer`."""

    @property
    def listening(self) -> bool:
        """Whether messages are received now."""
        ...

    def ensure_running(self) -> None:
        """Start it, if it does not run."""

    def stop(self) -> None:
        """End it, when the last lease was given back or lost."""


class Topology(Protocol):
    """What a session is made of. Nothing connects before it is used."""

    @property
    def capabilities(self) -> Capabilities:
        """What a store on it can do."""
        ...

    @property
    def tracker(self) -> RequestTracker:
        """The requests of this process."""
        ...

    @property
    def renewer(self) -> Renewer:
        """What keeps them alive."""
        ...

    def new_sync_transport(self, *, own: bool) -> ThreadTransport:
        """Return a transport for threads: with a user's client, if there is one and not `own`."""
        ...

    def new_async_transport(self) -> LoopTransport:
        """Return a transport for the running event loop."""
        ...


class Session:
    """What a store has in this process.

    Args:
        new_topology: makes what it consists of; called again in a forked child.

    Attributes:
        tracker: what this process waits for and holds.
        renewer: the background thread.
        sweep_state: what this process remembers of sweeps.
        one_slot: whether all keys of a request have to have one scope.
    """

    def __init__(self, new_topology: Callable[[], Topology]) -> None:
        self._new_topology = new_topology
        self._parents: frozenset[str] = frozenset()
        self._begin()
        _sessions.add(self)

    def _begin(self) -> None:
        self._lock = new_lock()
        self._topology = self._new_topology()
        self.tracker, self.renewer = self._topology.tracker, self._topology.renewer
        self.sweep_state = SweepState()
        self.one_slot = not self._topology.capabilities.spans_scopes
        self.tracker.notices.on_undelivered = self._on_undelivered
        self.tracker.after_turn = self._abandon_ended_loops
        self._sync_transports: dict[object, ThreadTransport] = {}
        """By the owner of their sockets; see `socket_owner`."""
        self._maker = socket_owner()
        self._async_transports: dict[asyncio.AbstractEventLoop, LoopTransport] = {}
        self._last_async_transport: LoopTransport | None = None

    def _on_undelivered(self) -> None:
        # As a method of the session, which this keeps alive as long as the renewer runs: so a store
        # that is not referred to any more is closed when the process ends, and its notices to
        # other processes are sent.
        self.renewer.ensure_running()

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do."""
        return self._topology.capabilities

    # -- transports -------------------------------------------------------------------------------

    def sync_transport(self) -> ThreadTransport:
        """Return the transport for the running thread."""
        owner = socket_owner()
        transport = self._sync_transports.get(owner)
        if transport is None:
            with self._lock:
                transport = self._sync_transports.get(owner)
                if transport is None:
                    # The pool of a user's client is for the thread that it was given in.
                    own = owner != self._maker
                    transport = self._topology.new_sync_transport(own=own)
                    self._sync_transports[owner] = transport
        return transport

    def async_transport(self) -> LoopTransport:
        """Return the transport for the running event loop.

        Raises:
            ConfigurationError: it is not asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "the Redis store speaks asyncio, as redis-py does; in trio run a SyncLimiter in a "
                "thread (anyio.to_thread.run_sync)"
            ) from None
        transport = self._last_async_transport
        if transport is not None and transport.loop is loop:
            return transport
        transport = self._async_transports.get(loop)
        if transport is None:
            self._abandon_ended_loops()
            transport = self._topology.new_async_transport()
            with self._lock:
                self._async_transports[loop] = transport
        self._last_async_transport = transport
        return transport

    def _abandon_ended_loops(self) -> None:
        """Close the connections of loops that were closed, by hand, and did not close them."""
        if not any(loop.is_closed() for loop in list(self._async_transports)):
            return
        with self._lock:
            ended = [loop for loop in self._async_transports if loop.is_closed()]
            transports = [self._async_transports.pop(loop) for loop in ended]
            if self._last_async_transport in transports:
                self._last_async_transport = None
        for transport in transports:
            transport.abandon()
        self.tracker.wake()  # the callers of those loops are gone

    # -- requests ---------------------------------------------------------------------------------

    def prepare(self, request: Request, now: float) -> None:
        """Note a request before it is sent, on the monotonic clock.

        Raises:
            StoreError: no thread can begin, which its lease would need.
        """
        if request.listener is not None:
            self.tracker.begin(request, now)
            try:
                self._renew_leases()
            except StoreError:
                self.tracker.not_sent(request)
                raise

    def _renew_leases(self) -> None:
        try:
            self.renewer.ensure_running()
        except (RuntimeError, OSError) as error:  # or there are too many open files
            reraise_if_of_signal()
            raise StoreError(
                f"leases cannot be renewed, since no thread can begin: {error}. In a program that "
                "is ending, take slots before its end, or once before, so that the thread runs"
            ) from error

    def abandon(self, request_id: str, key: str, claimant: str = "") -> None:
        """Have a request released in the background; needs no wait, and no event loop."""
        self.tracker.abandon(request_id, key, claimant)
        try:
            self.renewer.ensure_running()
        except (RuntimeError, OSError):  # the process ends, and no thread can begin
            reraise_if_of_signal()

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        """Have notices sent to a function, also those that other processes cannot deliver."""
        self.tracker.notices.callback = callback
        if callback is not None:
            self._renew_leases()

    def is_of_parent(self, request_id: str) -> bool:
        """Whether a lease is that of the process this one was forked from: not ours to release."""
        return request_id in self._parents

    # -- its end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close connections, and end the renewer once nothing here waits or holds any more."""
        self.renewer.stop()
        mine = socket_owner()
        for owner, transport in list(self._sync_transports.items()):
            if self._sync_transports.pop(owner, None) is None:
                continue  # another thread closes it
            # gevent lets no other thread close the sockets of a thread: the collector does.
            with suppress(ValueError) if owner != mine else nullcontext():
                transport.close()
        self._abandon_ended_loops()

    async def aclose(self) -> None:
        """Close it in an event loop."""
        await run_in_thread(self.close)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio's: nothing could be opened in it
            return
        transport = self._async_transports.pop(loop, None)
        self._last_async_transport = None
        if transport is not None:
            await transport.aclose()

    def start_over_in_child(self) -> None:
        """Forget the parent's leases, threads and connections, in a process made by `fork`."""
        self._parents |= frozenset(self.tracker.entries)
        self._begin()


def _after_fork_in_child() -> None:
    for session in _sessions:
        session.start_over_in_child()


def _at_exit() -> None:
    sessions = list(_sessions)
    for session in sessions:  # first: what they release they release at the same time
        session.tracker.close()
    for session in sessions:
        session.close()


atexit.register(_at_exit)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
