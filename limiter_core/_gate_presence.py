"""Which of a gate's workers the store knows to be there: sweeps say so, and that one leaves."""

from __future__ import annotations

import asyncio

from limiter_core._gate_state import GateState
from limiter_core.errors import StoreError
from limiter_core.jitter import jitter
from limiter_core.outage import Outage
from limiter_core.store import AsyncStore

SWEEP_EVERY = 1.0
"""Seconds between two sweeps for tickets that were not claimed and leases that have ended."""

LEAVE_PATIENCE = 2.0
"""Seconds that leaving may take; without it, the store notices after `PRESENCE`."""


class GatePresence:
    """The sweeps of a gate in an event loop."""

    _face: AsyncStore
    _state: GateState
    _outage: Outage

    def __init__(self) -> None:
        self._sweeping = asyncio.Lock()

    async def sweep(self) -> None:
        """Wake jobs that were not woken: those of dead workers, and of slots that were not claimed.

        The store so knows that a worker of this name is there: its jobs are served only while one
        was seen in the last seconds.
        """
        state = self._state
        async with self._sweeping:  # or a sweep with presence could arrive after one that leaves
            await (
                self._face.sweep(state.presence()) if state.sends_presence else self._face.sweep()
            )

    def arrive(self) -> None:
        """Fetch jobs again, from the next sweep on; a gate does so from its start."""
        self._state.fetches = True

    async def leave(self) -> None:
        """Fetch no more jobs: those that wait do so for another worker, from now on.

        For a worker that shuts down while its jobs run on. Never raises: a store that cannot be
        reached notices by itself.
        """
        self._state.fetches = False
        if self._state.was_present:
            try:
                async with asyncio.timeout(LEAVE_PATIENCE):
                    await self.sweep()
            except (StoreError, TimeoutError):
                return
            self._state.was_present = False

    async def keep_sweeping(self, every: float = SWEEP_EVERY) -> None:
        """Sweep until cancelled; for each worker's background. Outlives an outage."""
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                self._outage.began(error)
            else:
                self._outage.over()
            await asyncio.sleep(every * jitter.uniform(0.8, 1.2))
