"""The store that other processes share: the option that names it, and the keys in it."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from limiter_cli.exits import plain_errors
from limiter_core import ConfigurationError, SyncLimiter
from limiter_core.keys import name_text
from limiter_core.registry import without_secrets

__all__ = (
    "DEFAULT_URL",
    "KEY_HELP",
    "Key",
    "Url",
    "check_shared",
    "described",
    "key_text",
    "shared_limiter",
)

DEFAULT_URL = "redis://localhost:6379/0"

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="LIMITER_URL",
        metavar="URL",
        help="The store. Give a URL with a password in the environment.",
    ),
]

KEY_HELP = (
    "A key as `limiter ls` prints it. The name that was given to `limiter run` works, "
    "too, unless it contains one of / = & , : ( ) ! # %, which have a meaning in a key."
)

Key = Annotated[str, typer.Argument(metavar="KEY", show_default=False, help=KEY_HELP)]

# What the grammar of `limiter_core.keys` is made of. Anything else can only stand in a name.
_KEY = re.compile(r"(?:[\w.~@+/=&,:()!#-]|%[0-9A-F]{2})+", re.ASCII)


def key_text(given: str) -> str:
    """Return the text of a key that was given as that text or, where it cannot be one, as a name.

    Raises:
        ConfigurationError: it is empty.
    """
    if not given:
        raise ConfigurationError("a key cannot be empty")
    return given if _KEY.fullmatch(given) else name_text(given)


def check_shared(url: str) -> None:
    """Refuse a store that no other process can see.

    Raises:
        ConfigurationError: it is the memory store's URL.
    """
    if url.startswith("memory:"):
        raise ConfigurationError(
            "memory:// is a store of this one process, so it would limit nothing: "
            f"give --url, or LIMITER_URL, a store that is shared, such as {DEFAULT_URL}"
        )


def described(url: str) -> str:
    """Return the store of a command and its namespace, without secrets."""
    namespace = "" if "namespace=" in url else ", in the default namespace"
    return f"{without_secrets(url)}{namespace}"


@contextmanager
def shared_limiter(url: str) -> Generator[SyncLimiter]:
    """Open a limiter on a shared store; errors inside end the command with one line."""
    with plain_errors():
        check_shared(url)
        with SyncLimiter(url) as limiter:
            yield limiter
