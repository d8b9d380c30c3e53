"""The subcommands of an operator: `ls`, `show`, `set`, `reset`, `pause`, `resume`, `evict`.

They look at, and change, the keys of a store that the limited processes share. Each exits with 69
if the store cannot be reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from limiter_cli.exits import NO_SUCH_HOLDER, NOT_ALL_READ, WRONG_USE, fail, say
from limiter_cli.output import print_json, print_line, printable
from limiter_cli.shared_store import DEFAULT_URL, Key, Url, described, key_text, shared_limiter
from limiter_cli.tables import as_dict, print_key, print_keys
from limiter_core import KeySnapshot, StoreError, StoreUnavailable, SyncLimiter

__all__ = ("evict", "ls", "pause", "reset", "resume", "set_limit", "show")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def ls(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            show_default=False,
            help="Only keys that match, such as 'billing/*'. Default: all.",
        ),
    ] = "*",
    *,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the keys in use: those with holders, waiters, or a change made here.

    Exits with 1 if a key is left out since its records cannot be read.
    """
    unreadable: list[StoreError] = []
    with shared_limiter(url) as limiter:
        found = list(_in_use(limiter, pattern, unreadable))
    if as_json:
        print_json([as_dict(key, members=False) for key in found])
    else:
        print_keys(found)
    for error in unreadable:
        say(f"limiter: {error}")
    if unreadable:
        raise typer.Exit(NOT_ALL_READ)
    if not found and not as_json:
        say(f"limiter: {_nothing(pattern)} in use at {described(url)}")


def show(key: Key, *, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show one key: its limit, who holds its slots, and who waits in which order."""
    with shared_limiter(url) as limiter:
        found = limiter.inspect(key_text(key))
    if as_json:
        print_json(as_dict(found, members=True))
    else:
        print_key(found)


def set_limit(
    key: Key,
    limit: Annotated[
        int,
        typer.Argument(min=0, metavar="LIMIT", show_default=False, help="Slots; 0 admits nobody."),
    ],
    *,
    url: Url = DEFAULT_URL,
) -> None:
    """Set a key's limit for everybody, whatever they declare, until `limiter reset`.

    Raising it admits who waits and now fits. Lowering it ends nobody.
    """
    with shared_limiter(url) as limiter:
        limiter.set_limit(key_text(key), limit)
        _tell(limiter, key)


def reset(key: Key, *, url: Url = DEFAULT_URL) -> None:
    """Return to the limit that a key's callers declare."""
    with shared_limiter(url) as limiter:
        limiter.reset_limit(key_text(key))
        _tell(limiter, key)


def pause(key: Key, *, url: Url = DEFAULT_URL) -> None:
    """Admit nobody to a key until `limiter resume`. Who holds a slot goes on."""
    with shared_limiter(url) as limiter:
        limiter.pause(key_text(key))
        _tell(limiter, key)


def resume(key: Key, *, url: Url = DEFAULT_URL) -> None:
    """Admit to a key again."""
    with shared_limiter(url) as limiter:
        limiter.resume(key_text(key))
        _tell(limiter, key)


def evict(
    leases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LEASE]...", show_default=False, help="As `limiter show` prints them."
        ),
    ] = None,
    *,
    all_of: Annotated[
        str | None,
        typer.Option("--all-of", metavar="KEY", help="Take all slots of this key back."),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Take slots back from holders that are stuck. They are told that their lease is lost.

    Exits with 1 if one of the leases is not held (any more).
    """
    if not leases and all_of is None:
        fail("limiter: say which lease to evict, or --all-of which key", WRONG_USE)
    with shared_limiter(url) as limiter:
        wanted = list(leases or ())
        missing = [lease for lease in wanted if not limiter.evict(lease)]
        if all_of is not None:
            holders = limiter.inspect(key_text(all_of)).holders
            wanted += [holder.id for holder in holders if limiter.evict(holder.id)]
    for lease in wanted:
        if lease not in missing:
            print_line(f"evicted {printable(lease)}")
    if missing:
        fail(f"limiter: nobody holds {', '.join(map(printable, missing))}", NO_SUCH_HOLDER)


def _in_use(
    limiter: SyncLimiter, pattern: str, unreadable: list[StoreError]
) -> Iterator[KeySnapshot]:
    for key in sorted(limiter.keys()):
        if fnmatchcase(key, pattern):
            try:
                snapshot = limiter.inspect(key)
            except StoreUnavailable:
                raise
            except StoreError as error:  # one stray record hides no other key
                unreadable.append(error)
                continue
            # It may have gone out of use since it was listed.
            if snapshot.in_use or snapshot.waiting or _is_changed(snapshot):
                yield snapshot


def _nothing(pattern: str) -> str:
    return "no key is" if pattern == "*" else f"no key that matches {printable(pattern)!r} is"


def _is_changed(snapshot: KeySnapshot) -> bool:
    return snapshot.paused or snapshot.override is not None


def _tell(limiter: SyncLimiter, key: str) -> None:
    print_keys([limiter.inspect(key_text(key))])
