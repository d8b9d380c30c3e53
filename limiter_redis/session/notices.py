"""Notices of jobs: to the gates of this process, once each; what no gate here can wake is kept.

The lease renewer publishes what is kept, for the other processes that can wake jobs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

from limiter_core.requests import Granted, Notice
from limiter_core.system_clock import system_clock as time
from limiter_core.threads import new_lock

REMEMBERED = 1024
"""Delivered notices that are remembered, so that they are not delivered twice."""

DELIVERED_AGAIN = 30.0
"""Seconds after which a refusal is delivered again of which the job's queue seems not to know."""


class Notices:
    """The notices of one store in this process, for all its threads.

    Args:
        channel: where notices are published that a process could not deliver.

    Attributes:
        undelivered: notices to be published, as they came.
        publishing: is held while they are.
        on_undelivered: called when there is one.
        gaps: how many times notices may have been missed for a while.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.undelivered: list[str] = []
        self.publishing = new_lock()
        self.on_undelivered: Callable[[], object] = lambda: None
        self.gaps = 0
        self._callback: Callable[[Notice], object] | None = None
        self._granted: dict[str, float] = {}
        """Fencing tokens of the grants whose notices were delivered here, by the tickets."""
        self._refused: dict[str, float] = {}
        """When notices of refusals were delivered here, on the local clock, likewise."""

    @property
    def callback(self) -> Callable[[Notice], object] | None:
        """The function that notices are passed on to, None for none."""
        return self._callback

    @callback.setter
    def callback(self, callback: Callable[[Notice], object] | None) -> None:
        self._callback = callback
        self._granted.clear()  # what was delivered before may not have been done
        self._refused.clear()

    def receive(self, line: str, notice: Notice, *, repeated: bool = False) -> None:
        """Take the notice of a step of this process: deliver it, or keep it for other processes."""
        if not self.deliver(notice, repeated=repeated):
            self.undelivered.append(line)
            self.on_undelivered()

    def deliver(self, notice: Notice, *, repeated: bool = False) -> bool:
        """Pass on a notice, once; whether this process can wake its job.

        Args:
            notice: of a grant, or of a refusal.
            repeated: whether the refusal was sent before, for those that may have missed it.
        """
        if self._was_delivered(notice, repeated):
            return True
        callback = self._callback
        delivered = callback is not None and callback(notice) is not False
        if delivered and isinstance(notice.answer, Granted):
            _remember(self._granted, notice.id, notice.answer.fencing_token)
        elif delivered:
            _remember(self._refused, notice.id, time.monotonic())
        return delivered

    def _was_delivered(self, notice: Notice, repeated: bool) -> bool:
        if isinstance(notice.answer, Granted):  # it is repeated, too
            return self._granted.get(notice.id) == notice.answer.fencing_token
        at = self._refused.get(notice.id, -math.inf)
        return repeated and time.monotonic() < at + DELIVERED_AGAIN

    def may_be_lost(self) -> None:
        """Note that notices of other processes may have been lost until now."""
        self.gaps += 1


class SweepState:
    """What a process remembers between sweeps, which repeat notices that it may have missed.

    Attributes:
        scopes: of durable tickets, and when each is to be noted again.
        repeated: by the worker: after which gap it had notices repeated.
        refusals_at: by the worker: when it looked last for refused jobs whose queue does not know
            it.
    """

    def __init__(self) -> None:
        self.scopes: dict[str, float] = {}
        self.repeated: dict[str, int] = {}
        self.refusals_at: dict[str, float] = {}


def _remember(delivered: dict[str, float], ticket: str, mark: float) -> None:
    delivered[ticket] = mark
    if len(delivered) > REMEMBERED:
        with suppress(RuntimeError, StopIteration, KeyError):  # another thread did it
            del delivered[next(iter(delivered))]
