"""The old name of `limiter_core.testing.model_comparison`; it goes with the next release."""

from __future__ import annotations

from limiter_core.testing.model_comparison import ModelComparison as Witness

__all__ = ("Witness",)
