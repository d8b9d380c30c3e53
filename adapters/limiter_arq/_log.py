"""Where the adapter logs: under arq's own name, so that arq's settings show it."""

from __future__ import annotations

import logging

logger = logging.getLogger("arq.limiter")
