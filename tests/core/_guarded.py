"""Holds that are entered in one place and left in another."""

from __future__ import annotations

from typing import Any

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit

KEY = LIMIT_BY.constant("key")

ONE = ConcurrencyLimit(KEY)

SHORT = ConcurrencyLimit(KEY, max_hold=0.1)

"""Its body has to end soon: whoever is cancelled for it later was not in the body."""

ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


def in_use(store: Any) -> int:
    return store.inspect("key").in_use
