"""Fixtures of the tests of the parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from limiter_core import StoreUnavailable
from limiter_redis import RedisStore
from tests.redis._ports import free_port

from ._parts import Parts


@pytest.fixture
def parts() -> Iterator[Parts]:
    parts = Parts()
    yield parts
    parts.close()


@pytest.fixture
def without_store() -> Iterator[Parts]:
    """Parts whose store cannot be reached."""
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailable):
        store.sync_face().inspect("key")
    parts = Parts(store)
    yield parts
    parts.close()
    store.sync_face().close()
