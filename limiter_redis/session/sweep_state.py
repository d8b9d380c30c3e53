"""What a process remembers between sweeps."""

from __future__ import annotations


class SweepState:
    """Of the sweeps of one store in one process.

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
