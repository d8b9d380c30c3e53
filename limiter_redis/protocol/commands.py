"""What is sent: the operations of the script, and calls of it in bytes. Pure functions.

Operations travel as words, many in one call; see the headers of the `.lua` files.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

from limiter_core.requests import KeySnapshot, Presence, Request, from_fields
from limiter_redis.protocol.forms import Form
from limiter_redis.protocol.keyspace import Keyspace, redis_keys
from limiter_redis.protocol.policy_words import Known
from limiter_redis.protocol.script import FULL, Script
from limiter_redis.protocol.words import (
    id_word,
    key_word,
    label_word,
    microseconds,
    payload_word,
    quoted,
    word,
)

T = TypeVar("T")


NO_POLICIES: Mapping[str, Known] = {}

BATCH = 128
"""Operations that travel in one call of the script at the most (S16)."""

SCAN_COUNT = 1000
"""Redis keys that a step of SCAN looks at, about."""

NOTE_LASTS = 8 * 24 * 3600
"""Seconds that a scope stays noted for `sweep`: longer than its last durable ticket (S14)."""


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


def acquire(
    request: Request, policies: Mapping[str, Known] = NO_POLICIES, now: float = 0.0
) -> Operation:
    """Return the operation for a request.

    Args:
        request: the request.
        policies: those in force, by the names of limits.
        now: the local clock, on which they end.
    """
    hold, payload, demands = request.max_hold, request.payload, request.demands
    job = "-" if payload is None else payload_word(payload, request.presence)
    # `_value_`: `value` costs a Python call.
    text = (
        f"acquire {id_word(request.id)} {request.mode._value_} {microseconds(request.lease)} "
        f"{0 if hold is None else microseconds(hold)} {microseconds(request.claim)} "
        f"{request.order or 0} {job} "
        f"{word(request.claimant)} {label_word(request.label)} "
        f"{0 if request.listener is None else 1} {request.fencing_token or 0}"
    )
    for key, limit, cost, conflict, priority, group, max_waiting, name in demands:
        number: int | str = limit
        if policies and name in policies:
            number = policies[name].limit_word(limit, cost, now)
        text += (
            f" {key_word(key)} {number} {cost} {conflict._value_} {priority} "
            f"{'-' if group is None else '=' + quoted(group)} "
            f"{-1 if max_waiting is None else max_waiting} {word(name)}"
        )
    keys = (demands[0].key,) if len(demands) == 1 else tuple(demand.key for demand in demands)
    return from_fields(Operation, (text, keys, None))


def release(request_id: str, key: str, *, for_good: bool = False) -> Operation:
    """Return the operation that removes a lease or ticket.

    Args:
        request_id: its id.
        key: one of its keys.
        for_good: whether no request of this id may take anything from now on, either: one may
            still be on its way.
    """
    end = " for_good" if for_good else ""
    text = f"release {id_word(request_id)} {key_word(key)}{end}"
    return from_fields(Operation, (text, (key,), None))


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
        f"release {id_word(request_id)} {key_word(key)} {end} {word(claimant)}", (key,)
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
    """Return the operation that removes a ticket that was not taken up."""
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
    whose = f" {word(claimant)}" if claimant else ""
    return Operation(f"renew {id_word(request_id)} {key_word(key)}{whose}", (key,))


def find(request_id: str, key: str) -> Operation:
    """Return the operation that asks whether a key knows a request."""
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
        text += f" {word(presence.name)} {word(presence.worker)} {stays}"
    return Operation(text, (), scope)


def missed(scope: str, gate: str, skip: int) -> Operation:
    """Return the operation that repeats the notices of a gate's slots that are not claimed.

    Args:
        scope: whose keys are looked at (a word), "" for those without one.
        gate: the name of the gate.
        skip: how many keys were looked at before.
    """
    return Operation(f"missed {'=' + scope if scope else '-'} {word(gate)} {skip}", (), scope)


def refusals(scope: str, gate: str, cursor: str) -> Operation:
    """Return the operation that repeats the notices of a gate's jobs whose waiting ended badly.

    Args:
        scope: as for `missed`.
        gate: the name of the gate.
        cursor: what the operation returned before, "0" for the first.
    """
    return Operation(f"refusals {'=' + scope if scope else '-'} {word(gate)} {cursor}", (), scope)


def inspect(key: str) -> Operation:
    """Return the operation that looks at a key."""
    return Operation(f"inspect {key_word(key)} {KeySnapshot.WAITERS_SHOWN}", (key,))


def packed_command(*command: str | int) -> bytes:
    """Return a plain command, as it is sent."""
    return f"*{len(command)}\r\n{''.join(_packed(str(word)) for word in command)}".encode()


LOADING = Form.LOADING  # a member of an enum takes its time to be looked up

_NEEDS_MEMORY = re.compile("configure |acquire [^ ]+ (?!look )").match
"""Finds the operations that are refused where memory is full."""


class Encoder:
    """Makes calls of the script, as they are sent."""

    def __init__(self, script: Script, names: Keyspace, process: str) -> None:
        self._names = names
        function = _packed("FCALL") + _packed(script.function)
        load = packed_command("FUNCTION", "LOAD", script.library).decode()
        self._before = ("", load, "", "")
        self._heads = (
            *(function, function, _packed("EVALSHA") + _packed(script.sha.decode())),
            _packed("EVAL") + _packed(script.text.decode()),
        )
        self._on_full_server = _packed("FCALL") + _packed(script.function + FULL)
        self._who = _packed(names.opening) + _packed(process)

    def __call__(self, operations: Sequence[Operation], form: Form = Form.DIGEST) -> bytes:
        """Return the call that carries out these operations.

        Args:
            operations: one after the other.
            form: which of the forms of a call.
        """
        opening = self._names.opening
        keys = dict.fromkeys([key for operation in operations for key in operation.keys])
        names = [_packed_keys(opening, key) for key in keys]
        count = 3 * len(names)
        for operation in operations:
            if operation.scope is not None:
                names.append(_packed(self._names.offers_index(operation.scope)))
                count += 1
        head = self._heads[form]
        if form <= LOADING and not _NEEDS_MEMORY(operations[0].text):
            head = self._on_full_server
        # What is asked is ASCII, so its characters are its bytes.
        asked = "".join([f"${len(text)}\r\n{text}\r\n" for text, _, _ in operations])
        return (
            f"{self._before[form]}*{count + 5 + len(operations)}\r\n{head}{_packed(str(count))}"
            f"{''.join(names)}{self._who}{asked}"
        ).encode()


@functools.lru_cache(maxsize=4096)
def _packed_keys(opening: str, key: str) -> str:
    return "".join(_packed(name) for name in redis_keys(opening, key_word(key)))


def _packed(argument: str) -> str:
    return f"${len(argument.encode())}\r\n{argument}\r\n"


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items into lists of so many at the most."""
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some
