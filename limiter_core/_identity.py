"""The identity of this process, and ids that no other process makes."""

from __future__ import annotations

import itertools
import os
import secrets
import socket


class _Process:
    """The identity of this process; a forked child gets one of its own."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.prefix = secrets.token_hex(8) + "-"
        self.counter = itertools.count(1)
        self.label = f"{socket.gethostname()}:{os.getpid()}"


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.renew)


def new_id() -> str:
    """Return an id that is unique over all processes and machines."""
    return f"{_process.prefix}{next(_process.counter)}"


def process_label() -> str:
    """Return `host:pid`, for `inspect`."""
    return _process.label
