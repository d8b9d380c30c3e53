"""What comes back: the replies of the script, and its news. Pure functions.

Replies and news are lines of words; see the headers of the `.lua` files. Each reader names the key
in its error, where a record cannot be read.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from limiter_core.errors import StoreError
from limiter_core.requests import (
    Answer,
    Granted,
    Held,
    Loss,
    Notice,
    Queued,
    Refusal,
    Refused,
    Renewal,
    Replaced,
    from_fields,
)
from limiter_redis.protocol.errors import NOT_READABLE, Unreadable, unreadable_record
from limiter_redis.protocol.words import ANY_TEXT, key_word, seconds, unword

_LOSSES = {
    "expired": Loss.EXPIRED,
    "overran": Loss.OVERRAN,
    "evicted": Loss.EVICTED,
    "preempted": Loss.PREEMPTED,
}
_REFUSALS = {
    "full": Refusal.FULL,
    "queue": Refusal.QUEUE_FULL,
    "cost": Refusal.COST,
    "unknown": Refusal.UNKNOWN,
    "evicted": Refusal.EVICTED,
}


class News(NamedTuple):
    """A line that the script sends beside its replies, or over a channel.

    Attributes:
        id: the request it is about, or the key under "more".
        answer: the request's new answer; None with "look": the store has to be asked.
        loss: why the lease ended or has to, None if it is not about that.
        token: the fencing token of that lease, 0 if it is not said.
        notice: what became of a durable ticket.
        more: whether there is more to do on a key than one step may do.
        deferred: the key and the gate of a job that was offered slots in vain.
        repeated: whether the notice was sent before, and the job has not asked since.
    """

    id: str
    answer: Answer | None = None
    loss: Loss | None = None
    token: int = 0
    notice: Notice | None = None
    more: bool = False
    deferred: tuple[str, str] | None = None
    repeated: bool = False


def lines_of(reply: Any, operations: int) -> list[str]:
    """Return the lines of a call's reply: one for each operation, then the news.

    A line that is no text stays one that cannot be read: the others are not affected.

    Raises:
        Unreadable: it is no text of so many lines.
    """
    try:
        lines: list[str] = reply.decode().split("\n")
    except UnicodeDecodeError:
        lines = [text_of(line) for line in reply.split(b"\n")]
    except NOT_READABLE:
        raise Unreadable(f"the script's reply is no text: {reply!r:.100}") from None
    if len(lines) < operations:
        raise Unreadable(f"the script's reply to {operations} operations is {reply!r:.100}")
    return lines


def text_of(line: bytes) -> str:
    """Return a line, or message, as text; one that is none as a text that cannot be read."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return f"unreadable {line!r}"


def parse_answer(fields: Sequence[str], key: str = "") -> Answer:
    """Return the answer that a reply of `acquire.lua` stands for.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    try:
        return _answer(fields)
    except NOT_READABLE:
        raise unreadable_record(" ".join(fields), key) from None


def parse_hold_left(fields: Sequence[str]) -> float | None:
    """Return the seconds that a lease that was held before may still be held; None: not said."""
    if fields[0] != "granted" or len(fields) < 4:
        return None
    try:
        return seconds(fields[3])
    except NOT_READABLE:
        raise unreadable_record(" ".join(fields), "") from None


def _answer(fields: Sequence[str]) -> Answer:
    kind, *rest = fields
    if kind == "granted":
        waited = int(rest[3]) / 1_000_000 if len(rest) > 3 else None
        return from_fields(Granted, (int(rest[0]), int(rest[1]) / 1_000_000, 0.0, waited))
    if kind == "queued":
        limit, in_use, order = map(int, rest[1:4])
        blocker = unword(rest[5]) if len(rest) > 5 else ""
        blocked_by = tuple(rest[6].split("|")) if len(rest) > 6 else ()
        return Queued(rest[0], limit, in_use, order, seconds(rest[4]), blocker, blocked_by)
    if kind == "refused":
        return _refused(*rest)
    if kind == "replaced":
        return Replaced(rest[0])
    if kind == "held":
        return Held(int(rest[0]) / 1_000_000)
    raise ValueError(kind)


def _refused(key: str, limit: str, in_use: str, held_for: str, *rest: str) -> Refused:
    # What a process of an earlier version has kept for a waiter ends with the reason.
    reason, waiting, blocked_by = (*rest, "0", "-")[:3] if len(rest) == 1 else rest
    return Refused(
        key,
        int(limit),
        int(in_use),
        seconds(held_for),
        _REFUSALS[reason],
        int(waiting),
        () if blocked_by == "-" else tuple(blocked_by.split("|")),
    )


def renewal(replies: Iterable[tuple[str, str]]) -> Renewal:
    """Return what the replies of `renew.lua` to these ids stand for."""
    gone: dict[str, Loss] = {}
    preempted: set[str] = set()
    for request_id, line in replies:
        kind, reason = parse_renewal(line)
        if kind in ("gone", "lost"):
            gone[request_id] = parse_loss(reason)
        elif kind == "preempted":
            preempted.add(request_id)
    return Renewal(gone, frozenset(preempted))


_RENEWALS = frozenset(
    ("alive", "preempted", "look", "waiting", "lost", "gone", "refused", "replaced")
)


def parse_renewal(line: str, key: str = "") -> tuple[str, str]:
    """Return the kind of a reply of `renew.lua`, and what comes behind it.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    kind, _, rest = line.partition(" ")
    if kind not in _RENEWALS:
        raise unreadable_record(line, key)
    return kind, rest


def parse_loss(reason: str) -> Loss:
    """Return the loss that a reason of the script stands for."""
    return _LOSSES.get(reason, Loss.FORGOTTEN)


def parse_news(line: str) -> News:
    """Return what a line of news says.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        kind, subject, *rest = line.split(" ")
        if kind == "more":
            return News(subject, more=True)
        if "%" in subject:
            subject = unquote(subject, errors=ANY_TEXT)
        if kind == "answer":
            return News(subject, None if rest[0] == "look" else _answer(rest))
        if kind == "lost":
            return News(subject, loss=parse_loss(rest[0]), token=int(rest[1]) if rest[1:] else 0)
        if kind in ("notice", "repeat"):
            return News(subject, notice=_notice(subject, rest), repeated=kind == "repeat")
        if kind == "deferred":
            return News(subject, deferred=(unquote(rest[0], errors=ANY_TEXT), unword(rest[1])))
    except NOT_READABLE:
        pass
    raise unreadable_record(line, "")


def _notice(subject: str, fields: Sequence[str]) -> Notice:
    name, _, encoded = fields[0].rpartition("|")
    text = encoded.rstrip("=")
    answer = _answer(fields[1:])
    if not isinstance(answer, Granted | Refused | Replaced):
        raise ValueError(fields[1])  # noqa: TRY004  (it is no wrong type of ours)
    payload = base64.b64decode(text + "=" * (-len(text) % 4))
    return Notice(subject, payload, answer, unword(name or "-"))


def parse_flag(line: str, key: str) -> bool:
    """Return whether there was what an operation removes, or looks for.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    if line not in ("0", "1"):
        raise unreadable_record(line, key)
    return line == "1"


def parse_count(line: str, scope: str) -> int:
    """Return the number of keys that a step of a scope looked at, or the cursor it returned.

    Raises:
        StoreError: it cannot be read; names the scope.
    """
    try:
        return int(line)
    except ValueError:
        raise unreadable_record(line, f"{unquote(scope)}/") from None


def parse_duration(field: str, key: str) -> float | None:
    """Return a duration that is a reply about a key; see `seconds`.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    try:
        return seconds(field)
    except ValueError:
        raise unreadable_record(field, key) from None


def parse_scan(reply: Any) -> tuple[int, list[bytes]]:
    """Return where SCAN goes on (0: nowhere), and the names it found.

    Raises:
        StoreError: it is no reply to SCAN.
    """
    try:
        cursor, names = reply
        return int(cursor), [_bytes(name) for name in names]
    except NOT_READABLE:
        raise StoreError(f"the store answered SCAN with {reply!r:.100}") from None


def parse_scopes(reply: Any) -> list[str]:
    """Return the scopes (words) that are noted, without those that are none.

    Raises:
        StoreError: it is no set.
    """
    try:
        texts = [_bytes(member).decode(errors="replace") for member in reply]
    except NOT_READABLE:
        raise StoreError(f"the store answered SMEMBERS with {reply!r:.100}") from None
    return [text for text in texts if text and key_word(text) == text]


def _bytes(name: Any) -> bytes:
    return name.encode() if isinstance(name, str) else bytes(memoryview(name))
