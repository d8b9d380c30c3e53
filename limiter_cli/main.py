"""The entry point of the console script: finds the command, or names the extra to install."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

__all__ = ("app",)

_REQUIRED = ("rich", "trio", "typer")


def _find_app() -> Callable[..., Any]:
    for missing in _REQUIRED:
        if find_spec(missing) is None:
            return lambda: sys.exit(
                f"the limiter command needs {missing}, which is not installed: "
                'pip install "concurrency-limits[cli]"'
            )
    with _plain_interrupts():
        from limiter_cli.app import app as found  # noqa: PLC0415  (it needs them)

    return found


@contextmanager
def _plain_interrupts() -> Generator[None]:
    """Have a Ctrl-C end the process as it ends others, without a traceback, while it begins."""
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or handler is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


app = _find_app()
"""The command; without the extra, a function that ends the process with a message naming it."""
