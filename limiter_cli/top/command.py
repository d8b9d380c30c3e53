"""The subcommand `top`."""

from __future__ import annotations

import asyncio
import signal
import sys

from limiter_cli.change import By
from limiter_cli.exits import plain_errors
from limiter_cli.shared_store import DEFAULT_URL, Url, check_shared
from limiter_core import ConfigurationError

__all__ = ("top",)


def top(*, url: Url = DEFAULT_URL, by: By = None) -> None:
    """Show the keys live: sort, filter, open one; set, pause, resume, and evict after asking."""
    with plain_errors():
        check_shared(url)
        try:
            from limiter_cli.top.view import TopApp  # noqa: PLC0415  (the others do without it)
        except ModuleNotFoundError as error:
            if error.name != "textual":
                raise
            raise ConfigurationError(
                '`limiter top` needs textual: pip install "concurrency-limits[top]"'
            ) from error
        if not all(each is not None and each.isatty() for each in (sys.stdin, sys.stderr)):
            raise ConfigurationError(
                "`limiter top` needs a terminal to read from (stdin) and to draw on (stderr), as "
                "`ssh -t` gives it; `limiter ls` prints the keys without one"
            )
        if number := asyncio.run(TopApp(url, by=by).run_until_signalled()):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
