"""The subcommands of an operator: `ls`, `show`, `explain`, and those that change keys.

They look at, and change, the keys of a store that the limited processes share. Each exits with 69
if the store cannot be reached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from limiter_cli.exits import NO_SUCH_HOLDER, NOT_ALL_READ, WRONG_USE, fail, say
from limiter_cli.output import print_json, print_line, printable
from limiter_cli.shared_store import DEFAULT_URL, Key, Url, described, key_text, shared_limiter
from limiter_cli.tables import as_dict, print_key, print_keys
from limiter_core import KeySnapshot, StoreError, StoreUnavailable, SyncLimiter

__all__ = ("evict", "explain", "ls", "pause", "reset", "resume", "set_limit", "show")

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
    name: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            show_default=False,
            help="Only keys of limits with such a name, as 'billing*'. Default: all.",
        ),
    ] = "*",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the keys in use: those with holders, waiters, or a change made here.

    Exits with 1 if a key is left out since its records cannot be read.
    """
    unreadable: list[StoreError] = []
    with shared_limiter(url) as limiter:
        found = [
            each
            for each in _in_use(limiter, pattern, unreadable)
            if name == "*" or fnmatchcase(each.name, name)
        ]
    if as_json:
        print_json([as_dict(key, members=False) for key in found])
    else:
        print_keys(found)
    for error in unreadable:
        say(f"limiter: {error}")
    if unreadable:
        raise typer.Exit(NOT_ALL_READ)
    if not found and not as_json:
        say(f"limiter: {_nothing(pattern, name)} in use at {described(url)}")


def show(key: Key, *, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show one key: its limit, the holders of its slots, and the waiters in their order."""
    with shared_limiter(url) as limiter:
        found = limiter.inspect(key_text(key))
    if as_json:
        print_json(as_dict(found, members=True))
    else:
        print_key(found)


def explain(key: Key, *, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Say why a call on a key would have to wait now: the holders, and its place in line."""
    with shared_limiter(url) as limiter:
        found = limiter.explain(key_text(key))
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_line(printable(str(found)))


def set_limit(
    key: Key,
    limit: Annotated[
        int,
        typer.Argument(min=0, metavar="LIMIT", show_default=False, help="Slots; 0 admits no call."),
    ],
    *,
    url: Url = DEFAULT_URL,
) -> None:
    """Set a key's limit for all its callers, whatever they declare, until `limiter reset`.

    Raising it admits the waiters that fit now. Lowering it ends no holder.
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
    """Admit no call to a key until `limiter resume`. Holders keep their slots."""
    with shared_limiter(url) as limiter:
        limiter.pause(key_text(key))
        _tell(limiter, key)


def resume(key: Key, *, url: Url = DEFAULT_URL) -> None:
    """Admit calls to a key again."""
    with shared_limiter(url) as limiter:
        limiter.resume(key_text(key))
        _tell(limiter, key)


def evict(
    leases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LEASE|TICKET]...",
            show_default=False,
            help="As `limiter show` prints them.",
        ),
    ] = None,
    *,
    all_of: Annotated[
        str | None,
        typer.Option("--all-of", metavar="KEY", help="Evict all holders of this key."),
    ] = None,
    waiting: Annotated[
        str | None,
        typer.Option("--waiting", metavar="KEY", help="Evict all waiters of this key."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="GATE", help="With --waiting: only of this queue, as celery:shop."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Evict holders that are stuck, or waiters.

    A holder is notified of the lost lease. A call that waits is refused. A queued job that waits
    ends as cancelled in its queue, at the latest when a worker of the queue is there again.

    Exits with 1 if one of the ids is not there (any more).
    """
    if not leases and all_of is None and waiting is None:
        fail(
            "limiter: give leases or tickets to evict, or a key: --all-of KEY, or --waiting KEY",
            WRONG_USE,
        )
    if name is not None and waiting is None:
        fail("limiter: --name selects waiters of a key: give --waiting KEY, too", WRONG_USE)
    with shared_limiter(url) as limiter:
        wanted = list(leases or ())
        missing = [each for each in wanted if not _evict(limiter, each)]
        if all_of is not None:
            holders = limiter.inspect(key_text(all_of)).holders
            wanted += [each.id for each in holders if _evict(limiter, each.id, key_text(all_of))]
        if waiting is not None:
            wanted += _evict_waiters(limiter, key_text(waiting), name)
    for each in wanted:
        if each not in missing:
            print_line(f"evicted {printable(each)}")
    if missing:
        names = ", ".join(map(printable, missing))
        fail(f"limiter: there is no lease or ticket {names}", NO_SUCH_HOLDER)


def _evict(limiter: SyncLimiter, each: str, key: str | None = None) -> bool:
    # A call that was handed a slot and has not claimed it still waits.
    return limiter.evict_waiter(each, key) or limiter.evict(each)


def _evict_waiters(limiter: SyncLimiter, key: str, name: str | None) -> list[str]:
    """Evict all waiters of a key, the dormant ones too."""
    evicted: list[str] = []
    while True:  # no more than so many are shown at once
        found = limiter.inspect(key)
        waiters = [*found.waiters, *(each for dormant in found.dormant for each in dormant.waiters)]
        wanted = [each.id for each in waiters if name is None or each.name == name]
        ended = [each for each in wanted if limiter.evict_waiter(each, key)]
        evicted += ended
        if not ended:
            return evicted


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
            if snapshot.in_use or snapshot.waiting or snapshot.dormant or _is_changed(snapshot):
                yield snapshot


def _nothing(pattern: str, name: str) -> str:
    matching = "" if pattern == "*" else f" that matches {printable(pattern)!r}"
    of_name = "" if name == "*" else f" of a limit named {printable(name)!r}"
    return f"no key{matching}{of_name} is"


def _is_changed(snapshot: KeySnapshot) -> bool:
    return snapshot.paused or snapshot.override is not None


def _tell(limiter: SyncLimiter, key: str) -> None:
    print_keys([limiter.inspect(key_text(key))])
