"""The subcommands that change limits: `set`, `reset`, `pause`, `resume`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, TextIO

import typer

from limiter_cli.durations import duration_of
from limiter_cli.exits import NOT_ALL_READ, WRONG_USE, fail, say
from limiter_cli.output import print_line, printable
from limiter_cli.shared_store import DEFAULT_URL, Url, key_text, shared_limiter
from limiter_cli.tables import change_text, print_keys
from limiter_core import (
    Change,
    ConfigurationError,
    KeySnapshot,
    StoreError,
    StoreUnavailable,
    SyncLimiter,
)

__all__ = ("By", "Reason", "note_unused", "one_key", "pause", "reset", "resume", "set_limit")

_WILDCARDS = frozenset("*?")
_SUGGESTED = 3

Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        show_default=False,
        help="All keys of the limits of this name, future ones too; as `limiter ls` prints it.",
    ),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="DURATION",
        show_default=False,
        help="With --name: end by itself after this time, such as 30m or 1h30m.",
    ),
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, for `limiter log`."),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        envvar="LIMITER_BY",
        metavar="TEXT",
        show_default=False,
        help="Your name, for `limiter log`. Default: host and process.",
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Change all keys that match a pattern, unasked.")
]
KeyOrPattern = Annotated[
    str | None,
    typer.Argument(
        metavar="KEY|PATTERN",
        show_default=False,
        help="A key as `limiter ls` prints it, or the name that was given to `limiter run`; or a "
        "pattern, such as 'customer=*', for those in use.",
    ),
]


def set_limit(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="[KEY|PATTERN] LIMIT",
            show_default=False,
            help="A key as `limiter ls` prints it (none with --name), and the slots; 0 admits no "
            "call. With --name also a share of what the code declares, as 50%.",
        ),
    ],
    *,
    name: Name = None,
    lasts: For = None,
    reason: Reason = None,
    by: By = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Set the limit of a key, or of all keys of a name, whatever the code declares.

    It counts until `limiter reset`. Raising it admits the waiters that fit now. Lowering it ends
    no holder. A key's own limit counts before that of its name.
    """
    *keys, value = given
    if len(keys) > 1 or bool(keys) == (name is not None):
        fail("limiter: give KEY LIMIT, or --name NAME LIMIT", WRONG_USE)
    with shared_limiter(url) as limiter:
        if name is not None:
            seconds = None if lasts is None else duration_of(lasts)
            change = limiter.set_name_limit(name, value, lasts=seconds, reason=reason, by=by)
            _print_change(limiter, change)
            return
        limit = _key_limit(value)
        _change(
            limiter,
            keys[0],
            lasts,
            lambda key: limiter.set_limit(key, limit, reason=reason, by=by),
            yes=yes,
        )


def reset(
    key: KeyOrPattern = None,
    *,
    name: Name = None,
    reason: Reason = None,
    by: By = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Return to the limit that the code declares for a key, or for the keys of a name."""
    _check_subject(key, name)
    with shared_limiter(url) as limiter:
        if name is not None:
            _print_change(limiter, limiter.reset_name_limit(name, reason=reason, by=by))
        elif key is not None:
            _change(
                limiter,
                key,
                None,
                lambda each: limiter.reset_limit(each, reason=reason, by=by),
                yes=yes,
            )


def pause(
    key: KeyOrPattern = None,
    *,
    name: Name = None,
    lasts: For = None,
    reason: Reason = None,
    by: By = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Admit no call to a key, or of a name, until `limiter resume`. Holders keep their slots."""
    _check_subject(key, name)
    with shared_limiter(url) as limiter:
        if name is not None:
            seconds = None if lasts is None else duration_of(lasts)
            _print_change(limiter, limiter.pause_name(name, lasts=seconds, reason=reason, by=by))
        elif key is not None:
            _change(
                limiter,
                key,
                lasts,
                lambda each: limiter.pause(each, reason=reason, by=by),
                yes=yes,
            )


def resume(
    key: KeyOrPattern = None,
    *,
    name: Name = None,
    reason: Reason = None,
    by: By = None,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Admit calls to a key, or of a name, again."""
    _check_subject(key, name)
    with shared_limiter(url) as limiter:
        if name is not None:
            _print_change(limiter, limiter.resume_name(name, reason=reason, by=by))
        elif key is not None:
            _change(
                limiter,
                key,
                None,
                lambda each: limiter.resume(each, reason=reason, by=by),
                yes=yes,
            )


def one_key(given: str) -> str:
    """Return the key that a subcommand is about which takes one.

    Raises:
        ConfigurationError: it is a pattern.
    """
    if _WILDCARDS & set(given):
        raise ConfigurationError(
            f"{given!r} is a pattern, and this takes one key: `limiter ls {given!r}` lists those "
            "in use that match. (In a key, * and ? are written %2A and %3F.)"
        )
    return key_text(given)


def note_unused(limiter: SyncLimiter, key: str) -> None:
    """Say that no call uses a key, and which keys in use look like it."""
    close = get_close_matches(key, [each for each in limiter.keys() if each != key], _SUGGESTED)
    hint = f"; did you mean {' or '.join(map(printable, close))}?" if close else ""
    say(f"limiter: no call uses the key {printable(key)} now{hint}")


def _check_subject(key: str | None, name: str | None) -> None:
    if (key is None) == (name is None):
        fail("limiter: give a key, or --name NAME", WRONG_USE)


def _key_limit(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 100):
        share = "; a share is for --name" if value.endswith("%") else ""
        raise ConfigurationError(
            f"the limit of a key is a whole number of 0 or more, got {value[:50]!r}{share}"
        )
    return int(value)


def _change(
    limiter: SyncLimiter, given: str, lasts: str | None, change: Callable[[str], None], *, yes: bool
) -> None:
    if lasts is not None:
        raise ConfigurationError("--for needs --name: what is set for a key stays until its reset")
    if _WILDCARDS & set(given):
        keys = _matching(limiter, given, yes=yes)
    else:
        keys = [key_text(given)]
        before = limiter.inspect(keys[0])
        if not (before.in_use or before.waiting or before.dormant):
            note_unused(limiter, keys[0])
    unreadable: list[StoreError] = []
    changed: list[KeySnapshot] = []
    for key in keys:
        try:
            change(key)
            changed.append(limiter.inspect(key))
        except StoreUnavailable:
            raise
        except StoreError as error:
            if len(keys) == 1:
                raise
            unreadable.append(error)  # the others are changed all the same
    print_keys(changed, limiter.policies())
    for each in unreadable:
        say(f"limiter: not changed: {each}")
    if unreadable:
        raise typer.Exit(NOT_ALL_READ)


def _matching(limiter: SyncLimiter, pattern: str, *, yes: bool) -> Sequence[str]:
    keys = sorted(key for key in limiter.keys() if fnmatchcase(key, pattern))
    if not keys:
        raise ConfigurationError(f"no key in use matches {pattern!r}")
    if yes:
        return keys
    match = "key matches" if len(keys) == 1 else "keys match"
    which = f"{len(keys)} {match} {printable(pattern)!r}"
    stdin: TextIO | None = sys.stdin
    if stdin is None or not stdin.isatty():
        fail(f"limiter: {which}: give --yes to change all of them", WRONG_USE)
    for key in keys:
        print_line(printable(key))
    typer.confirm(f"{which}. Change all of them?", abort=True)
    return keys


def _print_change(limiter: SyncLimiter, change: Change) -> None:
    print_line(printable(change_text(change)))
    if change.action in ("set", "pause") and not _is_used(limiter, change.name):
        say(
            f"limiter: no key in use has a limit named {printable(change.name)!r}: "
            "it counts from the first call on"
        )


def _is_used(limiter: SyncLimiter, name: str) -> bool:
    for key in limiter.keys():
        try:
            if limiter.inspect(key).name == name:
                return True
        except StoreUnavailable:
            raise
        except StoreError:  # one that cannot be read is none that is looked for
            continue
    return False
