"""The subcommands of an operator that look: `ls`, `show`, `explain`, `log`; and `evict`.

Those that change limits are in `change`. Each exits with 69 if the store cannot be reached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, NamedTuple

import typer

from limiter_cli.change import By, Reason, note_unused, one_key
from limiter_cli.exits import NO_SUCH_HOLDER, NOT_ALL_READ, WRONG_USE, fail, say
from limiter_cli.output import print_json, print_line, printable
from limiter_cli.shared_store import (
    DEFAULT_URL,
    KEY_HELP,
    Key,
    Url,
    described,
    key_text,
    shared_limiter,
)
from limiter_cli.tables import as_dict, print_changes, print_key, print_keys, print_policies
from limiter_core import KeySnapshot, Policy, StoreError, StoreUnavailable, SyncLimiter

__all__ = ("evict", "explain", "log", "ls", "show")

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
        policies = [each for each in limiter.policies() if fnmatchcase(each.name, name)]
    if as_json:
        print_json([as_dict(key, members=False) for key in found])
    else:
        print_keys(found, policies)
        if pattern == "*":
            print_policies(policies)
    for error in unreadable:
        say(f"limiter: {error}")
    if unreadable:
        raise typer.Exit(NOT_ALL_READ)
    if not found and not as_json:
        say(f"limiter: {_nothing(pattern, name)} in use at {described(url)}")


def show(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", show_default=False, help=KEY_HELP)
    ] = None,
    *,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", show_default=False, help="What is set for all keys of a name."
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show one key: its limit, the holders of its slots, and the waiters in their order.

    With --name: what an operator set for the limits of a name, and why.
    """
    if (key is None) == (name is None):
        fail("limiter: give a key, or --name NAME", WRONG_USE)
    with shared_limiter(url) as limiter:
        policies = limiter.policies()
        if key is None:
            _show_name([each for each in policies if each.name == name], name or "", as_json)
            return
        found = limiter.inspect(one_key(key))
        if as_json:
            print_json(as_dict(found, members=True))
        else:
            print_key(found, policies)
        if not (found.in_use or found.waiting or found.dormant):
            note_unused(limiter, found.key)


def _show_name(policies: Sequence[Policy], name: str, as_json: bool) -> None:
    if as_json:
        print_json([{**dataclasses.asdict(each), "value": each.value} for each in policies])
    elif policies:
        print_policies(policies)
    else:
        say(f"limiter: nothing is set for limits named {printable(name)!r}")


def explain(key: Key, *, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Say why a call on a key would have to wait now: the holders, and its place in line."""
    with shared_limiter(url) as limiter:
        found = limiter.explain(one_key(key))
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_line(printable(str(found)))


def log(
    *,
    count: Annotated[
        int,
        typer.Option("-n", "--count", min=1, max=100, metavar="N", help="The last so many."),
    ] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show the last changes that operators made: when, who, what, and why; the latest first."""
    with shared_limiter(url) as limiter:
        found = limiter.changes()[:count]
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
    elif found:
        print_changes(found)
    else:
        say(f"limiter: no change is noted at {described(url)}")


def evict(
    leases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LEASE|TICKET",
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
    reason: Reason = None,
    by: By = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Evict holders that are stuck, or waiters.

    A holder is notified of the lost lease. A call that waits is refused. A queued job that waits
    ends as cancelled in its queue, at the latest when a worker of the queue is there again.

    Exits with 1 if one of the ids is not there (any more), or if with --name some waiters could
    not be looked at.
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
        note = _Note(reason, by)
        missing = [each for each in wanted if not _evict(limiter, note, each)]
        if all_of is not None:
            key = key_text(all_of)
            holders = limiter.inspect(key).holders
            wanted += [each.id for each in holders if _evict(limiter, note, each.id, key)]
        unseen = 0
        if waiting is not None:
            evicted, unseen = _evict_waiters(limiter, note, key_text(waiting), name)
            wanted += evicted
    for each in wanted:
        if each not in missing:
            print_line(f"evicted {printable(each)}")
    if missing:
        names = ", ".join(map(printable, missing))
        fail(f"limiter: there is no lease or ticket {names}", NO_SUCH_HOLDER)
    if unseen:
        fail(
            f"limiter: {unseen} more wait behind the first {KeySnapshot.WAITERS_SHOWN}, and were "
            "not looked at: jobs of the queue may be among them. Try again when those in front "
            "have run",
            NO_SUCH_HOLDER,
        )


class _Note(NamedTuple):
    """What the log is to say of an eviction."""

    reason: str | None
    by: str | None


def _evict(limiter: SyncLimiter, note: _Note, each: str, key: str | None = None) -> bool:
    # A call that was handed a slot and has not claimed it still waits.
    ended = limiter.evict_waiter(each, key, reason=note.reason, by=note.by)
    return ended or limiter.evict(each, key, reason=note.reason, by=note.by)


def _evict_waiters(
    limiter: SyncLimiter, note: _Note, key: str, name: str | None
) -> tuple[list[str], int]:
    """Evict all waiters of a key, the dormant ones too.

    Returns:
        Their ids, and how many others of a key could not be looked at, of which some may be of the
        queue `name`: `inspect` shows the first ones.
    """
    evicted: list[str] = []
    most: int | None = None
    while True:
        found = limiter.inspect(key)
        if most is None:  # those that come meanwhile are not meant
            most = found.waiting + sum(dormant.waiting for dormant in found.dormant)
        waiters = [*found.waiters, *(each for dormant in found.dormant for each in dormant.waiters)]
        wanted = [each.id for each in waiters if name is None or each.name == name]
        reason, by = note
        ended = [each for each in wanted if limiter.evict_waiter(each, key, reason=reason, by=by)]
        evicted += ended
        if not ended or len(evicted) >= most:
            return evicted, 0 if ended else found.waiting - len(found.waiters)


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
