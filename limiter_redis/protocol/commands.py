"""What goes over the wire, and what it means: pure functions, shared by both transports.

Operations travel as words, many in one call; replies and news come as lines of words (see the
headers of the `.lua` files). Durations are seconds here and microseconds there.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from redis.exceptions import ResponseError

from limiter_core.errors import StoreError
from limiter_core.requests import (
    Answer,
    DormantSnapshot,
    Granted,
    Held,
    HolderSnapshot,
    KeySnapshot,
    Loss,
    Notice,
    Presence,
    Queued,
    Refusal,
    Refused,
    Renewal,
    Replaced,
    Request,
    WaiterSnapshot,
)
from limiter_redis.protocol.keyspace import Names, redis_keys
from limiter_redis.protocol.script import Script

T = TypeVar("T")

NO_SENSE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""What reading raises where something else was written than what is read."""


class Unreadable(ResponseError):
    """A reply that is none of the script's: of another type, or with too few lines."""


class Operation(NamedTuple):
    """An operation.

    Attributes:
        text: as its `.lua` file describes it.
        keys: the limiter keys that it names.
        scope: the scope whose offers it wants, None for none.
    """

    text: str
    keys: tuple[str, ...]
    scope: str | None = None

    @property
    def subject(self) -> str:
        """What it is about, for people."""
        if self.keys:
            return "the key " + ", ".join(map(repr, self.keys))
        return f"the scope {unquote(self.scope or '')!r}"


_LOSSES = {
    "expired": Loss.EXPIRED,
    "overran": Loss.OVERRAN,
    "evicted": Loss.EVICTED,
    "preempted": Loss.PREEMPTED,
}
_SAFE = ":@+/=,"
_ANY = "surrogatepass"  # a lone surrogate is no text, but it may stand in a str
_PRINTED = "".join(map(chr, range(ord("!"), ord("~") + 1))).replace("{", "").replace("}", "")
"""What stands in a word for a key as it is: braces would end the hash tag."""
_REFUSALS = {
    "full": Refusal.FULL,
    "queue": Refusal.QUEUE_FULL,
    "cost": Refusal.COST,
    "unknown": Refusal.UNKNOWN,
    "evicted": Refusal.EVICTED,
}


# -- operations ------------------------------------------------------------------------------------


def acquire(request: Request) -> Operation:
    """Return the operation for a request."""
    hold, payload, demands = request.max_hold, request.payload, request.demands
    # `_value_`: `value` costs a Python call.
    text = (
        f"acquire {id_word(request.id)} {request.mode._value_} {microseconds(request.lease)} "
        f"{0 if hold is None else microseconds(hold)} {microseconds(request.claim)} "
        f"{request.order or 0} {'-' if payload is None else _payload(payload, request.presence)} "
        f"{_word(request.claimant)} {_word(request.label)} "
        f"{0 if request.listener is None else 1} {request.fencing_token or 0}"
    )
    for key, limit, cost, conflict, priority, group, max_waiting in demands:
        text += (
            f" {key_word(key)} {limit} {cost} {conflict._value_} {priority} "
            f"{'-' if group is None else '=' + quote(group, safe=_SAFE, errors=_ANY)} "
            f"{-1 if max_waiting is None else max_waiting}"
        )
    keys = (demands[0].key,) if len(demands) == 1 else tuple(demand.key for demand in demands)
    return Operation(text, keys)


def release(request_id: str, key: str, *, for_good: bool = False) -> Operation:
    """Return the operation that removes a lease or ticket.

    Args:
        request_id: its id.
        key: one of its keys.
        for_good: whether no request of this id may take anything from now on, either: one may
            still be on its way.
    """
    end = " for_good" if for_good else ""
    return Operation(f"release {id_word(request_id)} {key_word(key)}{end}", (key,))


def release_claim(request_id: str, key: str, claimant: str, *, for_good: bool) -> Operation:
    """Return the operation that gives back a job's lease, unless another delivery has it (S18).

    Args:
        request_id: its id.
        key: one of its keys.
        claimant: which delivery gives it back.
        for_good: whether this delivery may take nothing from now on: its request may still be on
            its way.
    """
    end = "gone" if for_good else "of"
    return Operation(
        f"release {id_word(request_id)} {key_word(key)} {end} {_word(claimant)}", (key,)
    )


def give_back(acquire: Operation) -> Operation:
    """Return the operation that releases what an acquire took, and nothing that another has."""
    words = acquire.text.split(" ", 9)
    request_id, payload, claimant, key = words[1], words[7], words[8], acquire.keys[0]
    end = "" if payload == "-" else f" of {claimant}"
    return Operation(f"release {request_id} {key_word(key)}{end}", (key,))


def is_release(operation: Operation) -> bool:
    """Whether an operation removes a lease or ticket."""
    return operation.text.startswith("release ")


def withdraw(ticket_id: str, key: str) -> Operation:
    """Return the operation that removes a ticket that nobody took up."""
    return Operation(f"withdraw {id_word(ticket_id)} {key_word(key)}", (key,))


def evict(lease_id: str, key: str) -> Operation:
    """Return the operation that takes a slot back."""
    return Operation(f"evict {id_word(lease_id)} {key_word(key)}", (key,))


def dismiss(ticket_id: str, key: str) -> Operation:
    """Return the operation that ends the waiting of a ticket."""
    return Operation(f"dismiss {id_word(ticket_id)} {key_word(key)}", (key,))


def renew(request_id: str, key: str, claimant: str = "") -> Operation:
    """Return the operation that starts a lease time again.

    Args:
        request_id: its id.
        key: the first of its keys.
        claimant: of a job: which delivery has the lease (S18).
    """
    whose = f" {_word(claimant)}" if claimant else ""
    return Operation(f"renew {id_word(request_id)} {key_word(key)}{whose}", (key,))


def find(request_id: str, key: str) -> Operation:
    """Return the operation that tells whether a key knows a request."""
    return Operation(f"find {id_word(request_id)} {key_word(key)}", (key,))


def set_limit(key: str, limit: int | None) -> Operation:
    """Return the operation that overrides the declared limits, or (None) returns to them."""
    value = "-" if limit is None else limit
    return Operation(f"configure {key_word(key)} limit {value}", (key,))


def set_paused(key: str, paused: bool) -> Operation:
    """Return the operation that pauses or resumes a key."""
    return Operation(f"configure {key_word(key)} pause {'1' if paused else '-'}", (key,))


def sweep(key: str) -> Operation:
    """Return the operation that reaps a key."""
    return Operation(f"sweep {key_word(key)}", (key,))


def offers(scope: str, presence: Presence | None = None) -> Operation:
    """Return the operation that looks after durable tickets of a scope (a word), "" for none."""
    text = f"offers {'=' + scope if scope else '-'}"
    if presence is not None:
        stays = "leaves" if presence.leaving else "there"
        text += f" {_word(presence.name)} {_word(presence.worker)} {stays}"
    return Operation(text, (), scope)


def inspect(key: str) -> Operation:
    """Return the operation that looks at a key."""
    return Operation(f"inspect {key_word(key)} {KeySnapshot.WAITERS_SHOWN}", (key,))


def packed_command(*command: str | int) -> bytes:
    """Return a plain command, as it goes over the wire."""
    return f"*{len(command)}\r\n{''.join(_packed(str(word)) for word in command)}".encode()


def scope_of(key: str) -> str:
    """Return the (encoded) scope of a key, "" without one."""
    scope, slash, _ = key.partition("/")
    return scope if slash else ""


class Encoder:
    """Makes calls of the script, as they go over the wire."""

    def __init__(self, script: Script, names: Names, process: str) -> None:
        self._names = names
        self._by_digest = _packed("EVALSHA") + _packed(script.sha.decode())
        self._by_text = _packed("EVAL") + _packed(script.text.decode())
        self._who = _packed(names.opening) + _packed(process)

    def __call__(self, operations: Sequence[Operation], *, by_text: bool = False) -> bytes:
        """Return the call that carries out these operations.

        Args:
            operations: one after the other.
            by_text: for a server that does not know the script's digest.
        """
        opening = self._names.opening
        keys = dict.fromkeys([key for operation in operations for key in operation.keys])
        names = [_packed_keys(opening, key) for key in keys]
        count = 3 * len(names)
        for operation in operations:
            if operation.scope is not None:
                names.append(_packed(self._names.offers_index(operation.scope)))
                count += 1
        head = self._by_text if by_text else self._by_digest
        # What is asked is ASCII, so its characters are its bytes.
        asked = "".join([f"${len(text)}\r\n{text}\r\n" for text, _, _ in operations])
        return (
            f"*{count + 5 + len(operations)}\r\n{head}{_packed(str(count))}"
            f"{''.join(names)}{self._who}{asked}"
        ).encode()


@functools.lru_cache(maxsize=4096)
def _packed_keys(opening: str, key: str) -> str:
    return "".join(_packed(name) for name in redis_keys(opening, key_word(key)))


def _packed(argument: str) -> str:
    return f"${len(argument.encode())}\r\n{argument}\r\n"


# -- replies ---------------------------------------------------------------------------------------


class News(NamedTuple):
    """A line that the script sends beside its replies, or over a channel.

    Attributes:
        id: the request it is about, or the key under "more".
        answer: the request's new answer; None with "look": to be learnt by asking.
        loss: why the lease ended or has to, None if it is not about that.
        token: the fencing token of that lease, 0 if it is not said.
        notice: what became of a durable ticket.
        more: whether there is more to do on a key than one step may do.
        deferred: the key and the gate of a job that was offered slots in vain.
    """

    id: str
    answer: Answer | None = None
    loss: Loss | None = None
    token: int = 0
    notice: Notice | None = None
    more: bool = False
    deferred: tuple[str, str] | None = None


def lines_of(reply: Any, operations: int) -> list[str]:
    """Return the lines of a call's reply: one for each operation, then the news.

    A line that is no text stays one that cannot be read: it is nobody else's.

    Raises:
        Unreadable: it is no text of so many lines.
    """
    try:
        lines: list[str] = reply.decode().split("\n")
    except UnicodeDecodeError:
        lines = [text_of(line) for line in reply.split(b"\n")]
    except NO_SENSE:
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


def unreadable(said: str, key: str) -> StoreError:
    """Return the error for what was written, or said, about a key and cannot be read."""
    about = f" of the key {key!r}" if key else ""
    return StoreError(
        f"the store's record{about} cannot be read: {said if len(said) < 200 else said[:200]!r}; "
        "did another version, or something else, write there?"
    )


def parse_answer(fields: Sequence[str], key: str = "") -> Answer:
    """Return the answer that a reply of `acquire.lua` stands for.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    try:
        return _answer(fields)
    except NO_SENSE:
        raise unreadable(" ".join(fields), key) from None


def _answer(fields: Sequence[str]) -> Answer:
    kind, *rest = fields
    if kind == "granted":
        return Granted(int(rest[0]), int(rest[1]) / 1_000_000)
    if kind == "queued":
        return Queued(rest[0], int(rest[1]), int(rest[2]), int(rest[3]), seconds(rest[4]))
    if kind == "refused":
        limit, in_use = int(rest[1]), int(rest[2])
        return Refused(rest[0], limit, in_use, seconds(rest[3]), _REFUSALS[rest[4]])
    if kind == "replaced":
        return Replaced(rest[0])
    if kind == "held":
        return Held(int(rest[0]) / 1_000_000)
    raise ValueError(kind)


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
        raise unreadable(line, key)
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
            subject = unquote(subject, errors=_ANY)
        if kind == "answer":
            return News(subject, None if rest[0] == "look" else _answer(rest))
        if kind == "lost":
            return News(subject, loss=parse_loss(rest[0]), token=int(rest[1]) if rest[1:] else 0)
        if kind == "notice":
            return News(subject, notice=_notice(subject, rest))
        if kind == "deferred":
            return News(subject, deferred=(unquote(rest[0], errors=_ANY), _unword(rest[1])))
    except NO_SENSE:
        pass
    raise unreadable(line, "")


def _notice(subject: str, fields: Sequence[str]) -> Notice:
    name, _, encoded = fields[0].rpartition("|")
    text = encoded.rstrip("=")
    answer = _answer(fields[1:])
    if not isinstance(answer, Granted | Refused | Replaced):
        raise ValueError(fields[1])  # noqa: TRY004  (it is no wrong type of ours)
    payload = base64.b64decode(text + "=" * (-len(text) % 4))
    return Notice(subject, payload, answer, _unword(name or "-"))


def parse_flag(line: str, key: str) -> bool:
    """Return whether there was what an operation removes, or looks for.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    if line not in ("0", "1"):
        raise unreadable(line, key)
    return line == "1"


def parse_count(line: str, scope: str) -> int:
    """Return the number of keys that `offers.lua` looked at.

    Raises:
        StoreError: it cannot be read; names the scope.
    """
    try:
        return int(line)
    except ValueError:
        raise unreadable(line, f"{unquote(scope)}/") from None


def parse_duration(field: str, key: str) -> float | None:
    """Return a duration that is a reply about a key; see `seconds`.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    try:
        return seconds(field)
    except ValueError:
        raise unreadable(field, key) from None


def parse_scan(reply: Any) -> tuple[int, list[bytes]]:
    """Return where SCAN goes on (0: nowhere), and the names it found.

    Raises:
        StoreError: it is no reply to SCAN.
    """
    try:
        cursor, names = reply
        return int(cursor), [_bytes(name) for name in names]
    except NO_SENSE:
        raise StoreError(f"the store answered SCAN with {reply!r:.100}") from None


def parse_scopes(reply: Any) -> list[str]:
    """Return the scopes (words) that are noted, without those that are none.

    Raises:
        StoreError: it is no set.
    """
    try:
        texts = [_bytes(member).decode(errors="replace") for member in reply]
    except NO_SENSE:
        raise StoreError(f"the store answered SMEMBERS with {reply!r:.100}") from None
    return [text for text in texts if text and key_word(text) == text]


def _bytes(name: Any) -> bytes:
    return name.encode() if isinstance(name, str) else bytes(memoryview(name))


def parse_snapshot(key: str, text: str) -> KeySnapshot:
    """Return the snapshot that a reply of `inspect.lua` stands for.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    try:
        return _snapshot(key, json.loads(text))
    except NO_SENSE:
        raise unreadable(text, key) from None


def _snapshot(key: str, state: Any) -> KeySnapshot:
    now = int(state["now"])
    holders = sorted(
        (_holder(*holder, now=now) for holder in state["holders"] or ()),
        key=lambda holder: holder.fencing_token,
    )
    waiters = [_waiter(*waiter, now=now) for waiter in state["waiters"] or ()]
    declared = {holder.limit for holder in holders} | {waiter.limit for waiter in waiters}
    override = None if state["override"] is False else int(state["override"])
    return KeySnapshot(
        key=key,
        limit=max(declared, default=0) if override is None else override,
        in_use=int(state["used"]),
        waiting=int(state["queued"]),
        paused=state["paused"],
        override=override,
        declared=tuple(sorted(declared)),
        holders=tuple(holders),
        waiters=tuple(waiters),
        dormant=tuple(
            sorted(
                (_dormant(*each, now=now) for each in state["dormant"] or ()),
                key=lambda each: each.name,
            )
        ),
    )


def _dormant(
    name: str, until: str, waiting: int, waiters: Sequence[Sequence[str]], *, now: int
) -> DormantSnapshot:
    return DormantSnapshot(
        name=_unword(name),
        absent_for=(now - int(until)) / 1_000_000 if int(until) else None,
        waiting=waiting,
        waiters=tuple(_waiter(*waiter, now=now) for waiter in waiters),
    )


def _holder(lease_id: str, record: str, due: str, *, now: int) -> HolderSnapshot:
    token, cost, limit, since, _, _, claimed, preempted, _, _, label, _ = record.split(" ")
    return HolderSnapshot(
        id=unquote(lease_id, errors=_ANY),
        cost=int(cost),
        limit=int(limit),
        fencing_token=int(token),
        held_for=(now - int(token if since == "-" else since)) / 1_000_000,
        expires_in=(int(float(due)) - now) / 1_000_000,
        claimed=claimed == "1",
        preempted=preempted == "1",
        label=_unword(label),
    )


def _waiter(ticket_id: str, record: str, *, now: int) -> WaiterSnapshot:
    order, sequence, _, _, _, _, _, label, payload, home, _, *demands = record.split(" ")
    _, limit, cost, _, priority, group, _ = demands[7 * int(home) - 7 : 7 * int(home)]
    name, *deferral = payload.split("|")[:-1] or ("-",)
    return WaiterSnapshot(
        id=unquote(ticket_id, errors=_ANY),
        cost=int(cost),
        limit=int(limit),
        priority=int(priority),
        group=None if group == "-" else unquote(group[1:], errors=_ANY),
        waiting_for=(now - int(order if sequence == "-" else sequence)) / 1_000_000,
        durable=payload != "-",
        label=_unword(label),
        name=_unword(name),
        deferred=bool(deferral) and deferral[1] != "0",
    )


# -- values ----------------------------------------------------------------------------------------


def microseconds(duration: float) -> int:
    """Return a duration as the script counts it."""
    return round(duration * 1_000_000)


def seconds(field: str) -> float | None:
    """Return a duration of the script, None where it says "-"."""
    return None if field == "-" else int(field) / 1_000_000


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items into lists of so many at the most."""
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some


def id_word(request_id: str) -> str:
    """Return an id, which may be any text, as one word; that of a limiter is one."""
    plain = request_id.isascii() and request_id.replace("-", "").isalnum()
    return request_id if plain else quote(request_id, safe=_SAFE, errors=_ANY)


@functools.lru_cache(maxsize=4096)
def key_word(key: str) -> str:
    """Return a key as one word without braces; each that a limiter derives is one."""
    return quote(key, safe=_PRINTED, errors=_ANY)


@functools.lru_cache(maxsize=1024)
def _word(text: str) -> str:
    """Return text as one word of printable ASCII; "-" stands for none."""
    return "%2D" if text == "-" else quote(text, safe=_SAFE, errors=_ANY) or "-"


def _unword(word: str) -> str:
    return "" if word == "-" else unquote(word, errors=_ANY)


def _payload(payload: bytes, presence: Presence | None) -> str:
    """Return a payload as one word, with the gate in front whose workers can wake the job."""
    if presence is None:
        return _base64(payload)
    worker = "" if presence.leaving else _word(presence.worker)
    return f"{_word(presence.name)}|{worker}|{_base64(payload)}"


def _base64(payload: bytes) -> str:
    return base64.b64encode(payload).decode() or "="
