"""The old name of `limiter_redis.protocol.replies`; it goes with the next release."""

from __future__ import annotations

from limiter_redis.protocol.replies import (
    parse_answer,
    parse_loss,
    parse_news,
    parse_renewal,
)

__all__ = ("parse_answer", "parse_loss", "parse_news", "parse_renewal")
