"""A listener of a request that notes what it is notified of."""

from __future__ import annotations

from limiter_core.requests import Answer, Loss


class NotingListener:
    """Notes each wake-up and each loss."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = []
        self.losses: list[Loss] = []

    def look_again(self, answer: Answer | None = None) -> bool:
        self.answers.append(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        """Nothing to do."""

    def lease_lost(self, loss: Loss) -> None:
        self.losses.append(loss)
