"""What the script says of a key that is inspected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from limiter_core.requests import DormantSnapshot, HolderSnapshot, KeySnapshot, WaiterSnapshot
from limiter_redis.protocol.errors import NOT_READABLE, unreadable_record
from limiter_redis.protocol.words import ANY_TEXT, unword

_WORDS_WITHOUT_NAME = 12
"""Spaces in a reply about a single holder whose limit has no name."""


def parse_snapshot(key: str, text: str) -> KeySnapshot:
    """Return the snapshot that a reply of `inspect.lua` stands for.

    Raises:
        StoreError: it cannot be read; names the key.
    """
    try:
        return _sole(key, text) if text.startswith("sole ") else _snapshot(key, json.loads(text))
    except NOT_READABLE:
        raise unreadable_record(text, key) from None


def _sole(key: str, text: str) -> KeySnapshot:
    """Return the snapshot of a key with a single holder; entry.lua describes its record."""
    _, now, lease_id, due, cost, limit, since, token, *_, label, name = (
        f"{text} -" if text.count(" ") == _WORDS_WITHOUT_NAME else text
    ).split(" ")
    holder = HolderSnapshot(
        id=unquote(lease_id, errors=ANY_TEXT),
        cost=int(cost),
        limit=int(limit),
        fencing_token=int(token),
        held_for=(int(now) - int(since)) / 1_000_000,
        expires_in=(int(due) - int(now)) / 1_000_000,
        claimed=True,
        preempted=False,
        label=unword(label),
    )
    return KeySnapshot(
        key=key,
        limit=holder.limit,
        in_use=holder.cost,
        waiting=0,
        paused=False,
        override=None,
        declared=(holder.limit,),
        holders=(holder,),
        waiters=(),
        name=unword(name),
    )


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
        name=unword(state["name"]),
    )


def _dormant(
    name: str, until: str, waiting: int, waiters: Sequence[Sequence[str]], *, now: int
) -> DormantSnapshot:
    return DormantSnapshot(
        name=unword(name),
        absent_for=(now - int(until)) / 1_000_000 if int(until) else None,
        waiting=waiting,
        waiters=tuple(_waiter(*waiter, now=now) for waiter in waiters),
    )


def _holder(lease_id: str, record: str, due: str, *, now: int) -> HolderSnapshot:
    token, cost, limit, since, _, _, claimed, preempted, _, _, label, _ = record.split(" ")
    return HolderSnapshot(
        id=unquote(lease_id, errors=ANY_TEXT),
        cost=int(cost),
        limit=int(limit),
        fencing_token=int(token),
        held_for=(now - int(token if since == "-" else since)) / 1_000_000,
        expires_in=(int(float(due)) - now) / 1_000_000,
        claimed=claimed == "1",
        preempted=preempted == "1",
        label=unword(label),
    )


def _waiter(ticket_id: str, record: str, *, now: int) -> WaiterSnapshot:
    order, sequence, _, _, _, _, _, label, payload, home, _, *demands = record.split(" ")
    _, limit, cost, _, priority, group, _ = demands[7 * int(home) - 7 : 7 * int(home)]
    name, *deferral = payload.split("|")[:-1] or ("-",)
    return WaiterSnapshot(
        id=unquote(ticket_id, errors=ANY_TEXT),
        cost=int(cost),
        limit=int(limit.partition("|")[0]),
        priority=int(priority),
        group=None if group == "-" else unquote(group[1:], errors=ANY_TEXT),
        waiting_for=(now - int(order if sequence == "-" else sequence)) / 1_000_000,
        durable=payload != "-",
        label=unword(label),
        name=unword(name),
        deferred=bool(deferral) and deferral[1] != "0",
    )
