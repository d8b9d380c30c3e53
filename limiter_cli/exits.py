"""How the subcommands end: their exit statuses, and errors in one plain line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import typer

from limiter_cli.output import errors, print_line
from limiter_core import ConfigurationError, KeyDerivationError, StoreError

__all__ = (
    "LOST",
    "NOT_ALL_READ",
    "NOT_RUNNABLE",
    "NOT_WRITTEN",
    "NO_COMMAND",
    "NO_SUCH_HOLDER",
    "REFUSED",
    "SIGNALLED",
    "UNAVAILABLE",
    "WRONG_USE",
    "fail",
    "plain_errors",
    "say",
)

NOT_ALL_READ = 1
"""`ls`, and changes of a pattern: the records of a key cannot be read; the others are listed, or
changed."""
NO_SUCH_HOLDER = 1
"""`evict`: there is no lease of this id."""
WRONG_USE = 2
"""All subcommands: an option or a URL is wrong."""
UNAVAILABLE = 69
"""The store cannot be reached, or answers with an error. (EX_UNAVAILABLE of sysexits.h)"""
NOT_WRITTEN = 74
"""All subcommands: their output cannot be written, as on a full disk. (EX_IOERR)"""
REFUSED = 75
"""`run`: there was no slot, and the command did not start: try later. (EX_TEMPFAIL)"""
LOST = 124
"""`run`: the lease was lost, and the command was ended. (The status of `timeout`.)"""
NOT_RUNNABLE = 126
"""`run`: the command exists and cannot be executed. (The status of a shell.)"""
NO_COMMAND = 127
"""`run`: there is no such command. (The status of a shell.)"""
SIGNALLED = 128
"""`run`: plus the signal's number, where one ended the command or the waiting. (As a shell.)"""


def say(message: str) -> None:
    """Print a message on stderr, whole and on lines of its own.

    Where stderr cannot be written, the exit status alone says it.
    """
    try:
        print_line(message, style="red", to=errors())
    except OSError:
        sys.stderr = None  # or what is left in it ends Python with 120


def fail(message: str, status: int) -> NoReturn:
    """Print an error on stderr, and end with an exit status."""
    say(message)
    raise typer.Exit(status)


@contextmanager
def plain_errors() -> Generator[None]:
    """End the command with one line on stderr for wrong use, and for a store that fails."""
    try:
        yield
    except (ConfigurationError, KeyDerivationError, ImportError) as error:
        fail(f"limiter: {error}", WRONG_USE)
    except StoreError as error:
        fail(f"limiter: {error}", UNAVAILABLE)
