"""How slots are given back in an event loop: once each, whatever is thrown in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from limiter_core._async_calls import AsyncCall
from limiter_core._call import could_not_release
from limiter_core._engine import Engine
from limiter_core._observers import release_later
from limiter_core.errors import StoreError
from limiter_core.signal_errors import reraise_if_of_signal
from limiter_core.store import AsyncStore, SyncStore

RELEASE_PATIENCE = 5.0
"""Seconds that a release may take, shielded from cancellation; then the lease ends by itself."""


class AsyncReleases(Engine):
    """Gives slots back."""

    face: AsyncStore
    _direct: SyncStore | None
    """The store where it never suspends, which is called without an event loop; else None."""
    _sure_release: bool
    """Whether a release needs no patience."""
    _release_claim: Callable[[str, tuple[str, ...], str], Coroutine[Any, Any, object]]
    """Releases what one delivery of a job has."""

    def release_at_once(self, call: AsyncCall) -> bool:
        """Release as `release_call`, where the store never suspends; whether that was done.

        Not what a job has: other deliveries of it may have a claim to that.
        """
        try:
            store = self._direct
            if store is None or call.request.claimant:
                return False
            if (not call.closed or call.forgotten) and self._close(call):
                store.release(call.id)
                call.settle()
            if call.observed is not None:
                call.observed.released()
        except StoreError as error:
            self.abandon(call)
            could_not_release(call, error)
        except BaseException:
            self.abandon(call)
            raise
        return True

    def _close(self, call: AsyncCall) -> bool:
        """Close a call; whether the store has to be notified."""
        call.closed = True
        call.watch = None
        if call.granted_at is not None:
            self.note_hold(call, call.granted_at)
        if call.guarded is not None and call.request.max_hold is not None:
            call.stop_guarding()
        if call.block:
            self.ended(call)
        return not call.settled

    async def release_call(self, call: AsyncCall) -> None:
        """Release, once. Closed locally first: what the store answers later is not a loss."""
        try:
            if self.release_at_once(call) or (call.closed and not call.forgotten):
                return
            if self.must_release_later():
                self.abandon(call)
                return
            if not self._close(call):
                return
            if call.request.claimant:
                await self._release_job(call)
            elif self._sure_release:
                await self.face.release(call.id, call.keys)
            else:
                await call.finish(self.face.release(call.id, call.keys), RELEASE_PATIENCE)
            call.settle()
        except (StoreError, TimeoutError) as error:
            self.abandon(call)
            reraise_if_of_signal()
            could_not_release(call, error)
        except BaseException:
            self.abandon(call)
            raise
        finally:
            if call.observed is not None:
                call.observed.released()

    async def _release_job(self, call: AsyncCall) -> None:
        """Release what this delivery of a job has, and nothing of the next one."""
        request_id, claimant = call.id, call.request.claimant
        if self._sure_release or self._direct is not None:
            await self._release_claim(request_id, call.keys, claimant)
        else:
            release = self._release_claim(request_id, call.keys, claimant)
            await call.finish(release, RELEASE_PATIENCE)

    def release_soon(self, call: AsyncCall) -> None:
        """Release, once, without waiting; from any thread."""
        if call.closed and not call.forgotten:
            return
        if call.granted_at is not None:
            self.note_hold(call, call.granted_at)
        self.abandon(call)

    def abandon(self, call: AsyncCall) -> None:
        """Give back without waiting; whatever was done of it before an exception was thrown in."""
        self.waiting.discard(call)  # first: else it is kept for ever if this is interrupted, too
        call.closed = True
        call.watch = None
        if self.must_release_later():
            release_later(partial(self.abandon, call))
            return
        if call.guarded is not None:
            call.stop_guarding()
        self.ended(call)
        if not call.settled:
            self._abandon(call.id, call.keys, call.request.claimant)
            call.settle()
        if call.observed is not None:
            call.observed.released()
