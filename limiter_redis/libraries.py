"""The libraries of functions that releases of this package have loaded: listed and deleted.

A running program deletes none, for another release may use it. One that is deleted while it is used
is loaded again by the next call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from limiter_core.errors import StoreError
from limiter_redis.protocol.errors import NOT_READABLE
from limiter_redis.protocol.script import LIBRARY_PREFIX, RELEASE
from limiter_redis.transport.interfaces import ThreadTransport


class Library(NamedTuple):
    """A library of functions on the servers of a store.

    Attributes:
        name: of the library.
        release: of the package, which loaded it, with its version.
        is_own: whether that is the release that runs here.
    """

    name: str
    release: str
    is_own: bool


def find_libraries(transport: ThreadTransport) -> list[Library]:
    """Return those on all primaries, each once, in the order of their releases."""
    found: dict[str, str] = {}
    for node in transport.nodes():
        command = ("FUNCTION", "LIST", "LIBRARYNAME", f"{LIBRARY_PREFIX}*")
        listed = transport.command(*command, node=node)
        try:
            found |= dict(map(_library, listed))
        except NOT_READABLE:
            raise StoreError(f"the store answered FUNCTION LIST with {listed!r:.100}") from None
    libraries = [Library(name, release, release == RELEASE) for name, release in found.items()]
    return sorted(libraries, key=lambda each: (each.release, each.name))


def delete_library(transport: ThreadTransport, name: str) -> None:
    """Delete one on all primaries, where it is."""
    for node in transport.nodes():
        try:
            transport.command("FUNCTION", "DELETE", name, node=node)
        except StoreError as error:
            if "not found" not in str(error).lower():
                raise


def _library(fields: list[Any]) -> tuple[str, str]:
    about = dict(zip(fields[::2], fields[1::2], strict=True))
    function = about[b"functions"][0]
    described = dict(zip(function[::2], function[1::2], strict=True))
    return about[b"library_name"].decode(), (described[b"description"] or b"").decode()
