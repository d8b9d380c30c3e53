"""The demo's load again and again, live on the page of limits."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

from limiter_cli.demo.plan import Planned
from limiter_cli.demo.replay import run_replay
from limiter_cli.demo.replay_scope import ReplayScope
from limiter_cli.output import print_line
from limiter_core.registry import open_store

__all__ = ("serve_replays",)


def serve_replays(calls: Sequence[Planned], *, url: str, port: int, speed: float) -> None:
    """Serve the page, and replay a plan until the process is interrupted.

    Args:
        calls: in the order of their times.
        url: the store.
        port: where the page is; 0 for any that is free.
        speed: seconds of the log in a second of the clock.

    Raises:
        ConfigurationError: the URL names no store, or a scope is too long.
        ImportError: an extra is not installed; names it.
        OSError: the port is in use.
        LimiterError: the store failed.
    """
    from limiter_web import limits_app  # noqa: PLC0415  (the demo alone does without the extra)
    from limiter_web.server import bind, serving  # noqa: PLC0415  (likewise)

    store = open_store(url)
    scope = None if url.startswith("memory://") else ReplayScope()
    token = secrets.token_urlsafe(12)
    app = limits_app(store, token=token, allowed_hosts=())
    listener = bind("127.0.0.1", port)
    with serving(app, listener):
        print_line(f"http://127.0.0.1:{listener.getsockname()[1]}/ shows the load, live.")
        print_line(f"To change limits there, log in with {token}. Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            while True:
                run_replay(calls, store=store, scope=scope, speed=speed)
