"""`limiter functions`: what releases of this package have loaded into a Redis server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import typer

from limiter_cli.exits import plain_errors, say
from limiter_cli.output import print_line, printable
from limiter_cli.shared_store import DEFAULT_URL, Url, check_shared, described
from limiter_core import ConfigurationError
from limiter_core.registry import open_store

__all__ = ("functions",)


@runtime_checkable
class _LibraryStore(Protocol):
    """A store whose servers have libraries; see `RedisStore`."""

    def libraries(self) -> Sequence[Any]: ...

    def delete_library(self, name: str) -> None: ...

    def close(self) -> None: ...


def functions(
    *,
    prune: Annotated[bool, typer.Option("--prune", help="Delete those of other releases.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the libraries of functions that releases of this package have loaded into a server.

    No program deletes them. One that is deleted while it is used is loaded again by the next call.
    """
    with plain_errors():
        check_shared(url)
        store = open_store(url)
        if not isinstance(store, _LibraryStore):
            raise ConfigurationError(f"{described(url)} has no functions")
        try:
            found = store.libraries()
            for each in found:
                deleted = prune and not each.is_own
                if deleted:
                    store.delete_library(each.name)
                mark = "deleted" if deleted else "this release" if each.is_own else ""
                print_line(printable(f"{each.name}  {each.release}  {mark}".rstrip()))
        finally:
            store.close()
    if not found:
        say(f"limiter: no library at {described(url)}")
