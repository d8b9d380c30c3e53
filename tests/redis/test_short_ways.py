"""The short ways of the script write, and answer, what the general way does."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Mode, Request
from limiter_redis.protocol import commands
from limiter_redis.protocol.commands import Operation
from limiter_redis.protocol.keyspace import keyspace_of, redis_keys

from ._fake_time import FAKED, TIME_KEY
from ._servers import Server

KEYS = ("scope/a", "scope/b")
Steps = list[tuple[list[Operation], str, float]]
SHORT = "if its_type ~= 'hash' then return nil end\n"
TEXT = FAKED.text.decode()
assert TEXT.count(SHORT) == 1, "the short way does not begin where it used to"
WAYS = {"short": TEXT, "general": TEXT.replace(SHORT, "if true then return nil end\n")}
"""The script with the short ways on a key that others use, and without them."""

START = 1_800_000_000_000_000
SECONDS = st.sampled_from([0.0] * 12 + [0.5, 5.0, 40.0])


def request(number: int, demands: list[Demand], **facts: Any) -> Operation:
    return commands.acquire(Request(f"r{number}", tuple(demands), **facts))


def plain(number: int, name: str = "", **facts: Any) -> Operation:
    return request(number, [Demand("scope/a", 1, name=name)], **facts)


def release(number: int, key: str = "scope/a") -> Operation:
    return commands.release(f"r{number}", key)


def renew(number: int) -> Operation:
    return commands.renew(f"r{number}", "scope/a")


ANY = st.builds(
    request,
    number=st.integers(0, 5),
    demands=st.lists(
        st.builds(
            Demand,
            key=st.sampled_from(KEYS),
            limit=st.sampled_from([1, 1, 2]),
            cost=st.sampled_from([1, 1, 1, 2]),
            on_conflict=st.sampled_from([ConflictResolution.QUEUE] * 4 + [*ConflictResolution]),
            priority=st.sampled_from([0, 0, 3]),
            group=st.sampled_from([None, None, None, "g"]),
            max_waiting=st.sampled_from([None, None, 1]),
            name=st.sampled_from(["", "n", "n", "m"]),
        ),
        min_size=1,
        max_size=2,
        unique_by=lambda demand: demand.key,
    ),
    mode=st.sampled_from([Mode.WAIT] * 5 + [*Mode]),
    lease=st.sampled_from([30.0, 30.0, 3.0]),
    claim=st.sampled_from([30.0, 1.0]),
    max_hold=st.sampled_from([None, None, 10.0]),
    label=st.sampled_from(["", "me", "me\x1ftrace"]),
    payload=st.sampled_from([None] * 5 + [b"job"]),
)
PLAIN = st.builds(
    plain,
    number=st.integers(0, 5),
    name=st.sampled_from(["n", "n", "n", ""]),
    lease=st.just(30.0),
    max_hold=st.sampled_from([None, None, 10.0]),
    label=st.sampled_from(["", "me", "me", "me\x1ftrace"]),
)
OPERATIONS = st.one_of(
    *(PLAIN, PLAIN, PLAIN, PLAIN, ANY),
    st.builds(release, st.integers(0, 5), st.sampled_from(KEYS)),
    st.builds(release, st.integers(0, 2)),
    st.one_of(
        st.builds(renew, st.integers(0, 5)),
        st.builds(commands.set_limit, st.sampled_from(KEYS), st.sampled_from([None, 1, 2])),
        st.builds(commands.set_paused, st.sampled_from(KEYS), st.booleans()),
    ),
)
STEPS = st.lists(
    st.tuples(st.lists(OPERATIONS, min_size=1, max_size=3), st.sampled_from(["p", "q"]), SECONDS),
    min_size=10,
    max_size=30,
)


def carry_out(server: Server, way: str, operations: list[Operation], process: str) -> str:
    opening = keyspace_of(way).opening
    keys = dict.fromkeys(key for each in operations for key in each.keys)
    names = [name for key in keys for name in redis_keys(opening, key)]
    said: str = server.admin.eval(
        WAYS[way], len(names), *names, opening, process, *(each.text for each in operations)
    )
    return said


def state(server: Server, way: str) -> dict[str, Any]:
    """Return all that is there, with the times at which it expires if the step says so."""
    names = list(server.admin.scan_iter(f"*{way}*"))
    expiring = [name for name in names if ":ended:" not in name and ":offers" not in name]
    with server.admin.pipeline(transaction=False) as batch:
        for name in names:
            batch.type(name)
        kinds = batch.execute()
        read: dict[str, Any] = {
            "string": batch.get,
            "hash": batch.hgetall,
            "zset": functools.partial(batch.zrange, start=0, end=-1, withscores=True),
        }
        for name, kind in zip(names, kinds, strict=True):
            read[kind](name)
        for name in expiring:
            batch.execute_command("PEXPIRETIME", name)
        found = batch.execute()
    values, ends = found[: len(names)], dict(zip(expiring, found[len(names) :], strict=True))
    return {
        name.replace(way, "", 1): (value, ends.get(name, False))
        for name, value in zip(names, values, strict=True)
    }


HAND_OVERS: Steps = [
    ([each], "p", 0.0)
    for each in (
        *(plain(0), plain(1), release(0), plain(1), plain(2)),
        *(plain(3), plain(4), release(1), plain(2), plain(5)),
    )
]
"""One waits where none does, others behind one; two claim."""


def test_a_slot_is_handed_over_as_in_the_general_way(server: Server) -> None:
    compare(server, HAND_OVERS)


@pytest.mark.exhaustive
@example(steps=HAND_OVERS)
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_the_short_ways_do_what_the_general_way_does(server: Server, steps: Steps) -> None:
    compare(server, steps)


def compare(server: Server, steps: Steps) -> None:
    """Take steps both ways."""
    server.admin.flushdb()
    now = START
    for operations, process, seconds in steps:
        now += 10 + round(seconds * 1_000_000)
        said: dict[str, str] = {}
        for way in WAYS:
            server.admin.set(TIME_KEY, now)
            said[way] = carry_out(server, way, operations, process)
        assert said["short"] == said["general"]
        assert state(server, "short") == state(server, "general")
    server.admin.flushdb()
