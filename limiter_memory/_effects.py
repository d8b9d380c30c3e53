"""What a step of the memory store has to send when the lock is free again."""

from __future__ import annotations

from limiter_core.requests import Answer, Loss, Notice, Request


class Effects:
    """Calls of listeners, notices, and the jobs that were deferred (ticket, key, gate)."""

    __slots__ = ("calls", "deferred", "notices")

    def __init__(
        self,
        calls: list[tuple[Request, Answer | Loss | None]],
        notices: list[Notice],
        deferred: list[tuple[str, str, str]],
    ) -> None:
        self.calls = calls
        self.notices = notices
        self.deferred = deferred
