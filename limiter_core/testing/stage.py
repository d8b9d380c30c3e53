"""The old name of `limiter_core.testing.store_under_test`; it goes with the next release."""

from __future__ import annotations

from limiter_core.testing.store_under_test import KEY, OTHER_KEY, THIRD_KEY, Step, Steps
from limiter_core.testing.store_under_test import StoreUnderTest as Stage

__all__ = ("KEY", "OTHER_KEY", "THIRD_KEY", "Stage", "Step", "Steps")
