"""The entry point of the console script: finds the command, or names the extra to install."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    from limiter_cli.app import app as found  # noqa: PLC0415  (it needs them)

    return found


app = _find_app()
"""The command; without the extra, a function that ends the process with a message naming it."""
