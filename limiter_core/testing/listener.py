"""A listener that records its notifications."""

from __future__ import annotations

from limiter_core.requests import Answer, Loss

__all__ = ("RecordingListener",)


class RecordingListener:
    """Stands for a caller in this process, and records the notifications of a store.

    Args:
        present: whether the caller is still there; False is what a caller answers whose event
            loop ended while it waited.

    Attributes:
        answers: the answers that came with its wake-ups, None where it has to ask.
        losses: the losses of its lease, in order.
        ends: the new ends of its lease, in order.
    """

    def __init__(self, *, present: bool = True) -> None:
        self.present = present
        self.answers: list[Answer | None] = []
        self.losses: list[Loss] = []
        self.ends: list[float] = []

    @property
    def woken(self) -> int:
        """How often it was notified to look again."""
        return len(self.answers)

    def look_again(self, answer: Answer | None = None) -> bool:
        """Note the wake-up, and the answer if it came along."""
        self.answers.append(answer)
        return self.present

    def lease_renewed(self, expires_at: float) -> None:
        """Note the new end."""
        self.ends.append(expires_at)

    def lease_lost(self, loss: Loss) -> None:
        """Note the loss."""
        self.losses.append(loss)
