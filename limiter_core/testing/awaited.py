"""`AwaitedStore`, for stores of your own; the memory store uses it, too."""

from __future__ import annotations

from limiter_core.awaited import AwaitedStore

__all__ = ("AwaitedStore",)
