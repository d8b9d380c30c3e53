"""From any thread into the worker's event loop."""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Callable
from typing import Any

from limiter_celery._gevent_support import MainHub
from limiter_core.threads import are_green

logger = logging.getLogger("limiter")


class Post:
    """Has things done by the thread of the event loop, or by the timer of a worker without one.

    Nothing that is done here may raise: it would end the worker.
    """

    def __init__(self) -> None:
        self._letters: collections.deque[Callable[[], object]] = collections.deque()
        self._consumer: Any = None
        self._pipe: tuple[int, int] | None = None
        self._main: MainHub | None = None

    def connect(self, consumer: Any) -> None:
        """Use the event loop of this consumer, which may be the one of before, made empty."""
        self._consumer = consumer
        hub = consumer.hub
        if hub is None:
            if self._main is None and are_green():
                self._main = MainHub(self.deliver)
            consumer.timer.call_after(0, self.deliver)  # what came before there was a consumer
            return
        if self._pipe is None:
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
        hub.add_reader(self._pipe[0], self._read)
        self._read()

    def __call__(self, letter: Callable[[], object]) -> None:
        """Have it done soon; from any thread."""
        self._letters.append(letter)
        if self._pipe is not None:
            try:
                os.write(self._pipe[1], b"\0")
            except BlockingIOError:
                pass  # it is full of wake-ups
            except OSError:
                logger.debug("the worker's event loop is gone")
        elif self._main is not None:
            self._main.wake()
        elif self._consumer is not None:
            self._consumer.timer.call_after(0, self.deliver)

    def is_elsewhere(self) -> bool:
        """Whether the caller is in another thread than all greenlets: locks do not reach there."""
        return self._main is not None and self._main.is_elsewhere()

    def _read(self, *_: Any) -> None:
        if self._pipe is not None:
            try:
                while os.read(self._pipe[0], 4096):
                    pass
            except OSError:  # nothing left
                pass
        self.deliver()

    def deliver(self) -> None:
        """Do what there is to do; in the thread of the event loop."""
        for _ in range(len(self._letters)):
            try:
                letter = self._letters.popleft()
            except IndexError:
                return
            try:
                letter()
            except Exception:  # the worker must not end for it
                logger.exception("the limiter failed in the worker's event loop")
