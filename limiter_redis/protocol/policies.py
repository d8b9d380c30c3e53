"""Policies of names, and the log of changes, as the script has them; see `lua/policies.lua`."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import get_args

from limiter_core.errors import StoreError, StoreUnavailable
from limiter_core.policies import Action, Change, Policy, parsed_number
from limiter_redis.protocol.commands import BATCH, Operation, batched
from limiter_redis.protocol.errors import NOT_READABLE, unreadable_record
from limiter_redis.protocol.policy_words import NONE
from limiter_redis.protocol.words import key_word, microseconds, unword, word

_ACTIONS: dict[str, Action] = {action: action for action in get_args(Action)}


def change(change: Change) -> Operation:
    """Return the operation that changes what is in force for a name."""
    kind = "pause" if change.action in ("pause", "resume") else "limit"
    value = NONE if change.action in ("reset", "resume") else change.new
    lasts = 0 if change.lasts is None else microseconds(change.lasts)
    return Operation(
        f"configure - policy {word(change.name)} {kind} {value} {lasts} {change.action} "
        f"{word(change.new)} {word(change.by)} {word(change.reason)}",
        (),
        "",
    )


def log(change: Change) -> Operation:
    """Return the operation that adds a change to the log."""
    lasts = 0 if change.lasts is None else microseconds(change.lasts)
    texts = (change.key, change.name, change.old, change.new)
    return Operation(
        f"configure - log {change.action} {' '.join(map(word, texts))} {lasts} "
        f"{word(change.by)} {word(change.reason)}",
        (),
        "",
    )


def apply(key: str, name: str, policy: str, cursor: str) -> Operation:
    """Return the operation that judges waiters of a key by a policy: a chunk of them.

    Args:
        key: the key.
        name: the limit's name.
        policy: as `policy_words` returns it.
        cursor: where to go on; "0" at first.
    """
    text = f"configure {key_word(key)} policy {word(name)} {policy} {cursor}"
    return Operation(text, (key,))


def apply_all(
    keys: Iterable[str], name: str, policy: str
) -> Generator[list[Operation], list[str | StoreError], StoreUnavailable | None]:
    """Yield the operations that judge all waiters of keys by a policy, some at a time.

    Each time their replies are sent back, or why there is none. A key that cannot be read is left
    as it is: it keeps the others from nothing.

    Returns:
        Why some could not be reached; None if all were.
    """
    away: StoreUnavailable | None = None
    for some in batched(keys, BATCH):
        cursors = dict.fromkeys(some, "0")
        while cursors:
            lines = yield [apply(key, name, policy, cursor) for key, cursor in cursors.items()]
            away = next((line for line in lines if isinstance(line, StoreUnavailable)), away)
            cursors = {
                key: line
                for key, line in zip(cursors, lines, strict=True)
                if isinstance(line, str) and line.isdecimal() and line != "0"
            }
    return away


def look() -> Operation:
    """Return the operation that reads the policies."""
    return Operation("inspect - policies", (), "")


def look_at_changes() -> Operation:
    """Return the operation that reads the log."""
    return Operation("inspect - changes", (), "")


def changed(change: Change, line: str) -> Change:
    """Return the entry of the log for a change of a name, from the reply."""
    try:
        old, at = line.split(" ")
        return _entry(change, old, at)
    except NOT_READABLE:
        raise unreadable_record(line, change.name) from None


def logged(change: Change, line: str) -> Change:
    """Return the entry of the log for a change of a key, from the reply."""
    try:
        return _entry(change, word(change.old), line)
    except NOT_READABLE:
        raise unreadable_record(line, change.key) from None


def _entry(change: Change, old: str, at: str) -> Change:
    return Change(
        change.action,
        change.key,
        change.name,
        unword(old),
        change.new,
        change.by,
        change.reason,
        change.lasts,
        int(at) / 1e6,
    )


def parse_policies(line: str) -> tuple[Policy, ...]:
    """Return the policies in force, in the order of their names.

    Raises:
        StoreError: the reply cannot be read.
    """
    try:
        now, *records = line.split(";")
        found = [_policy(record.split(" "), int(now)) for record in records]
    except NOT_READABLE:
        raise unreadable_record(line, "policies") from None
    return tuple(sorted(found, key=lambda each: (each.name, each.paused)))


def _policy(words: list[str], now: int) -> Policy:
    field, value, ends, since, by, reason = words
    is_pause = field.endswith("|")
    limit, percent = (None, None) if is_pause else parsed_number(value)
    return Policy(
        unword(field.removesuffix("|")),
        limit,
        percent,
        unword(by),
        unword(reason),
        int(since) / 1e6,
        int(ends) / 1e6 if int(ends) else None,
        (int(ends) - now) / 1e6 if int(ends) else None,
    )


def parse_changes(line: str) -> tuple[Change, ...]:
    """Return the log, the last change first.

    Raises:
        StoreError: the reply cannot be read.
    """
    try:
        return tuple(_change(record.split(" ")) for record in line.split(";")[1:])
    except NOT_READABLE:
        raise unreadable_record(line, "changes") from None


def _change(words: list[str]) -> Change:
    at, action, key, name, old, new, lasts, by, reason = words
    return Change(
        _ACTIONS[action],
        unword(key),
        unword(name),
        unword(old),
        unword(new),
        unword(by),
        unword(reason),
        int(lasts) / 1e6 if int(lasts) else None,
        int(at) / 1e6,
    )
