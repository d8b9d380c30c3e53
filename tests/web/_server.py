"""A server with the page, on a port of its own; a limiter beside it that makes real load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from limiter_web import limits_app
from limiter_web.server import bind, serving

TOKEN = "sesame-open-42"


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app while the block lasts; yields its URL."""
    if not hasattr(app.state, "end_streams"):  # the page is mounted in it
        app.state.end_streams = lambda: None
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with serving(app, listener):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def page(store: Any, **options: Any) -> Iterator[str]:
    """Serve the page of a store while the block lasts; yields its URL."""
    with served(limits_app(store, **{"token": TOKEN, **options})) as url:
        yield url
