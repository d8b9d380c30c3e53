"""What callers write - ids, labels, keys, groups - never becomes script text, nor leaves its place.

And numbers and times: none loses a digit on its way through Lua.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution, SyncLimiter
from limiter_core._checks import short_label
from limiter_core.requests import Demand, Granted, Notice, Queued, Request
from limiter_core.tracing import labelled
from limiter_redis import RedisStore
from limiter_redis.protocol.words import ANY_TEXT, SAFE, id_word, label_word, unword, word

from ._fake_time import FAKED, TIME_KEY, ServerClock
from ._servers import Server

thorough = settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a server in between makes shrinking slow
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

HOSTILE = (
    "'] = nil; redis.call('FLUSHALL') --",
    '"]]--',
    "]]",
    "}:state:x{",
    "a b",
    "a\nb\r\nc",
    "\0",
    "%s%d%",
    "{",
    "}",
    "*",
    "|",
    "@contract/a",
    "=",
    "-",
    "💥",
    "%2D",
    "answer x look",
    "\ud800",
)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.sampled_from(HOSTILE)
# Behind the one a trace would begin, behind the other the leases that the caller holds.
labels = texts.map(lambda text: text.replace("\x1f", "?").replace("\x1e", "?"))


@contextmanager
def only_within_the_namespace(server: Server, namespace: str) -> Iterator[None]:
    """Check that nothing is written, and nothing lost, outside of a namespace."""
    server.admin.flushdb()
    server.admin.set("bystander", "untouched", ex=600)
    yield
    names = [name for name in server.admin.scan_iter(count=1000) if name != TIME_KEY]
    strange = [name for name in names if not name.startswith(f"{{{namespace}")]
    assert strange == ["bystander"]
    assert server.admin.get("bystander") == "untouched"


@thorough
@example(written=(HOSTILE[0],) * 4)
@example(written=("-",) * 4)
@given(written=st.tuples(texts, labels, texts, texts.filter(str.strip)))
def test_what_a_caller_writes_stays_where_it_belongs(
    server: Server, store: RedisStore, written: tuple[str, ...]
) -> None:
    """Row 32: values, labels, groups, scopes; shown as they were written.

    But for the label of a limiter: what a log would interpret is replaced in it.
    """
    value, label, group, scope = written
    limit = ConcurrencyLimit("value", 1, scope=scope, fair_by="group")
    limiter = SyncLimiter(store, label=label)
    arguments = {"value": value, "group": group}
    with only_within_the_namespace(server, "limiter"):
        with limiter.hold(limit, arguments):
            key = limiter.key_for(limit, arguments)
            assert list(limiter.keys()) == [key]
            waiting = Request(
                "waiter",
                (Demand(key, 1, group=group, name=value),),
                label=label,
                payload=label.encode(errors="surrogatepass"),
            )
            store.sync_face().acquire(waiting)
            snapshot = limiter.inspect(limit, arguments)
            assert snapshot.name == value
            assert [each.label for each in snapshot.holders] == [short_label(label)]
            assert [(each.label, each.group) for each in snapshot.waiters] == [(label, group)]
            store.sync_face().release("waiter")
        assert list(limiter.keys()) == []


@thorough
@example(name=HOSTILE[0], claimant=HOSTILE[0], payload=b"")
@given(name=texts, claimant=texts, payload=st.binary(max_size=100))
def test_ids_made_by_users_stay_where_they_belong(
    server: Server, store: RedisStore, name: str, claimant: str, payload: bytes
) -> None:
    """S1, S18, S19: an id may be any text; so may a claimant, and a payload any bytes."""
    face = store.sync_face()
    notices: list[Notice] = []
    face.on_notice(notices.append)
    ids = (name, name + "'", "x" + name)
    with only_within_the_namespace(server, "limiter"):
        for number, each in enumerate(ids):
            request = Request(
                each, (Demand("ids/a", 1), Demand("ids/b", 1)), payload=payload, claimant=claimant
            )
            answer = face.acquire(request)
            assert isinstance(answer, Queued if number else Granted)
        snapshot = face.inspect("ids/a")
        assert [each.id for each in snapshot.holders] == [name]
        assert [each.id for each in snapshot.waiters] == list(ids[1:])
        assert face.evict(name)
        assert [(each.id, each.payload) for each in notices] == [(ids[1], payload)]
        assert set(face.renew([*ids]).gone) == {name}
        for each in ids[1:]:
            assert face.release(each), "by its id alone"
        assert list(face.keys()) == []


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("limiter", "limiter2"), ("a", "a-b")])
def test_namespaces_do_not_meet(server: Server, one: str, other: str) -> None:
    """The same keys and ids in two namespaces of one database."""
    stores = [RedisStore(server.url, namespace=name) for name in (one, other)]
    limiters = [SyncLimiter(store) for store in stores]
    limit = ConcurrencyLimit(LIMIT_BY.constant("work"))
    with limiters[0].hold(limit), limiters[1].hold(limit):
        for store, limiter in zip(stores, limiters, strict=True):
            assert len(list(limiter.keys())) == 1
            assert limiter.inspect(limit).in_use == 1
            store.sync_face().sweep()
    for store in stores:
        store.close()


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.every_server
@thorough
@example(microsecond=0)
@example(microsecond=5_100)
@example(microsecond=999_999)
@given(microsecond=st.integers(0, 999_999))
def test_every_microsecond_is_read_right(server: Server, microsecond: int) -> None:
    """Rows 3, 20: two numbers are not joined as text, and no digit of a token is lost."""
    store = RedisStore(server.url, script=FAKED)
    second = int(time.time()) + 1
    # The clock goes on with each step; the first one reads the policies.
    server.admin.set(TIME_KEY, second * 1_000_000 + microsecond - 2)
    answer = store.sync_face().acquire(Request("r", (Demand("n/a", 1),), lease=0.123457))
    assert answer == Granted(second * 1_000_000 + microsecond, 0.123457)
    waiting = store.sync_face().acquire(Request("w", (Demand("n/a", 1),), lease=0.5))
    assert isinstance(waiting, Queued)
    assert waiting.look_again is not None
    assert abs(waiting.look_again - 0.123457) < 0.00001
    store.sync_face().release("w")
    store.sync_face().release("r")
    store.close()


def test_the_servers_clock_jumps(server: Server, clock: ServerClock) -> None:
    """Row 2; S11: forward, leases end and no more than the limit hold; back, tokens still rise."""
    store = RedisStore(server.url, script=FAKED)
    face = store.sync_face()
    first = face.acquire(Request("first", (Demand("j/a", 2),)))
    assert isinstance(first, Granted)
    server.admin.decrby(TIME_KEY, 60_000_000)
    second = face.acquire(Request("second", (Demand("j/a", 2),)))
    assert isinstance(second, Granted)
    assert second.fencing_token > first.fencing_token
    assert isinstance(face.acquire(Request("third", (Demand("j/a", 2),), lease=600)), Queued)
    assert face.renew(["first", "second"]).gone == {}
    server.admin.incrby(TIME_KEY, 120_000_000)
    assert set(face.renew(["first", "second"]).gone) == {"first", "second"}
    third = face.acquire(Request("third", (Demand("j/a", 2),)))
    assert isinstance(third, Granted)
    assert third.fencing_token > second.fencing_token
    assert face.inspect("j/a").in_use == 1
    face.release("third")
    store.close()


@thorough
@given(
    priorities=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=2, max_size=6, unique=True)
)
def test_priorities_of_any_size_sort_as_numbers(store: RedisStore, priorities: list[int]) -> None:
    """Rows 20; S7."""
    face = store.sync_face()
    face.acquire(Request("holder", (Demand("p/a", 1),)))
    for priority in priorities:
        demand = Demand("p/a", 1, on_conflict=ConflictResolution.PRIORITY, priority=priority)
        face.acquire(Request(f"w{priority}", (demand,)))
    shown = [each.priority for each in face.inspect("p/a").waiters]
    for priority in priorities:
        face.release(f"w{priority}", ("p/a",))
    face.release("holder", ("p/a",))
    assert shown == sorted(priorities, reverse=True)


@given(st.text(), st.text())
def test_a_label_and_its_trace_are_one_word(label: str, trace: str) -> None:
    """The same as without the shorter ways for traces, which are not kept in a cache."""
    for text in (label, labelled(label, trace)):
        assert label_word(text) == word(text)
        assert not set(label_word(text)) & set(" \n\x1f{}")
        assert unword(label_word(text)) == text


@thorough
@given(texts | st.text(st.characters(max_codepoint=127)))
def test_an_id_is_quoted_as_a_part_of_a_url(text: str) -> None:
    assert id_word(text) == quote(text, safe=SAFE, errors=ANY_TEXT)


def test_traces_push_no_names_out_of_the_cache() -> None:
    word("billing")
    kept = word.cache_info()
    for number in range(2 * (kept.maxsize or 0)):
        label_word(labelled("web-1", f"00-{number:032x}-{number:016x}-01"))
    assert word.cache_info().currsize <= kept.currsize + 1
