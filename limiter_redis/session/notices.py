"""Notices of jobs: to the gates of this process, once each; what no gate here can wake is kept.

The lease renewer publishes what is kept, for the other processes that can wake jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from limiter_core.requests import Granted, Notice

REMEMBERED = 1024
"""Delivered notices that are remembered, so that they are not delivered twice."""


class Notices:
    """The notices of one store in this process, for all its threads.

    Args:
        channel: where notices are published that a process could not deliver.

    Attributes:
        undelivered: notices to be published, as they came.
        on_undelivered: called when there is one.
        gaps: how many times notices may have been missed for a while.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.undelivered: list[str] = []
        self.on_undelivered: Callable[[], object] = lambda: None
        self.gaps = 0
        self._callback: Callable[[Notice], object] | None = None
        self._delivered: dict[str, int] = {}
        """Fencing tokens of the grants whose notices were delivered here, by the tickets."""

    @property
    def callback(self) -> Callable[[Notice], object] | None:
        """The function that notices are passed on to, None for none."""
        return self._callback

    @callback.setter
    def callback(self, callback: Callable[[Notice], object] | None) -> None:
        self._callback = callback
        self._delivered.clear()  # what was delivered before may not have been done

    def receive(self, line: str, notice: Notice) -> None:
        """Take the notice of a step of this process: deliver it, or keep it for other processes."""
        if not self.deliver(notice):
            self.undelivered.append(line)
            self.on_undelivered()

    def deliver(self, notice: Notice) -> bool:
        """Pass on a notice, once; whether this process can wake its job."""
        token = notice.answer.fencing_token if isinstance(notice.answer, Granted) else None
        if token is not None and self._delivered.get(notice.id) == token:
            return True  # it is repeated for those that may have missed it
        callback = self._callback
        delivered = callback is not None and callback(notice) is not False
        if delivered and token is not None:
            self._delivered[notice.id] = token
            if len(self._delivered) > REMEMBERED:
                with suppress(RuntimeError, StopIteration, KeyError):  # another thread did it
                    del self._delivered[next(iter(self._delivered))]
        return delivered

    def may_be_lost(self) -> None:
        """Note that notices of other processes may have been lost until now."""
        self.gaps += 1
