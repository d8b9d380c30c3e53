"""Namespaces: which there may be, and that no two of them have a name in common."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from limiter_core import ConcurrencyLimit, ConfigurationError, SyncLimiter
from limiter_redis import RedisStore, store_from_url
from limiter_redis.protocol.keyspace import (
    Keyspace,
    check_cluster,
    checked_namespace,
    redis_keys,
)
from limiter_redis.protocol.words import key_word

from ._servers import Server

# -- which there may be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "namespace",
    [
        "x",
        "x" * 128,
        "a b",
        "*?[]\\^-",
        "é:ü",
        ":",
        "shop:",
        "{s}x",
        "{s}::",
        "a:{b c}:d",
        "{a:b}:c",
    ],
)
def test_namespaces_that_there_may_be(server: Server, namespace: str) -> None:
    store = RedisStore(server.url, namespace=namespace)
    assert store.namespace == namespace
    limit = ConcurrencyLimit("value", 1)
    limiter = SyncLimiter(store)
    with limiter.hold(limit, {"value": "a:b/c{d}%"}):
        assert list(limiter.keys()) == [limiter.key_for(limit, {"value": "a:b/c{d}%"})]
    store.close()


@pytest.mark.parametrize(
    "namespace",
    [
        *("", "x" * 129, "a\nb", "a\0", "\ud800", None, 7, b"limiter"),
        *(
            "{",
            "}",
            "{}",
            "{}:x",
            "{a",
            "a}",
            "}a{",
            "{a}{b}",
            "{{a}}",
            "{a}:b}",
            "x{a}y{b}",
            "{{a}",
        ),
        *("{shop}", "x:{shop}", "{shop}:state", "{s:t}:offers:x", "{shop}:process", "{a}:notices"),
    ],
)
def test_namespaces_that_cannot_be(namespace: Any) -> None:
    """It is told what was given, and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        RedisStore("redis://localhost", namespace=namespace)
    assert repr(namespace) in str(caught.value)
    assert "{shop}:limits" in str(caught.value)


@pytest.mark.parametrize(
    ("namespace", "better"),
    [("shop:limits", "{shop}:limits"), (":shop:x", ":{shop}:x"), ("é:", "{é}:")],
)
def test_a_cluster_asks_for_a_tag(namespace: str, better: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore("redis+cluster://localhost:6379", namespace=namespace)
    assert repr(namespace) in str(caught.value)
    assert repr(better) in str(caught.value)
    RedisStore("redis+cluster://localhost:6379", namespace=better)
    RedisStore(client=redis.Redis(), namespace=namespace).close()


def test_a_url_names_one() -> None:
    """Percent-encoded, like all that stands in a query."""
    for url in ("redis://localhost/3", "redis+cluster://a,b:7000", "redis+sentinel://a,b/service"):
        store = store_from_url(f"{url}?namespace=%7Ba%20b%2A%7D%3Alimits&socket_timeout=3")
        assert store.namespace == "{a b*}:limits"
        assert store._endpoint.timeout == 3
        with pytest.raises(ConfigurationError, match="hash tag"):
            store_from_url(f"{url}?namespace=%7Bshop%7D")


# -- all of them -----------------------------------------------------------------------------------

PIECES = ["a", "b", ":", "{a}", ":{b}", ":state", ":offers", "{a:b}"]
namespaces = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
limiter_keys = st.lists(
    st.sampled_from(["a", "b", ":", "/", "{", "}", "state", ":offers", "}:state", "process:s0"]),
    max_size=5,
).map("".join)


def possible(namespace: str) -> bool:
    try:
        checked_namespace(namespace)
    except ConfigurationError:
        return False
    return True


def all_names(names: Keyspace, key: str) -> set[str]:
    """Return all names in a namespace that has this one limiter key."""
    scope, slash, _ = key.partition("/")
    head = f"{names.opening}{scope}}}"
    return {
        *redis_keys(names.opening, key),
        f"{head}:ended:a",
        names.offers_index(scope if slash else ""),
        f"{head}:process:s0",
        *(f"{names.common}:{kind}" for kind in ("offers", "scopes", "notices", "process:s0")),
        *(f"{names.namespace}:{kind}" for kind in ("notices:0", "notices:1")),
        *(f"{names.namespace}:process:{kind}" for kind in ("0:0", "1:0")),
    }


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """Two namespaces, with a key each, of which the second begins like a name in the first."""
    one, key = draw(namespaces.filter(possible)), key_word(draw(limiter_keys))
    name = draw(st.sampled_from(sorted(all_names(Keyspace(one), key))))
    other = name[: draw(st.integers(1, len(name)))]
    assume(other != one and possible(other))
    rest = name[len(Keyspace(other).opening) :]
    theirs = rest.replace("}:state", "").replace("}:ends", "").replace(":", "/", 1)
    return one, key, other, key_word(draw(limiter_keys | st.just(theirs)))


@pytest.mark.exhaustive
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(neighbours())
def test_no_two_namespaces_have_a_name_in_common(drawn: tuple[str, str, str, str]) -> None:
    """Also if one is the beginning of a name in the other."""
    one, key, other, their_key = drawn
    mine, theirs = Keyspace(one), Keyspace(other)
    assert not all_names(mine, key) & all_names(theirs, their_key)
    for names, word in itertools.product((mine, theirs), (key, their_key)):
        state = redis_keys(names.opening, word)[0]
        assert names.key_of(state) == word
        assert (theirs if names is mine else mine).key_of(state) is None


@pytest.mark.exhaustive
@settings(max_examples=500, deadline=None)
@given(namespace=namespaces.filter(possible), keys=st.lists(limiter_keys, min_size=2, max_size=4))
def test_a_tag_of_its_own_is_one_slot(namespace: str, keys: list[str]) -> None:
    """As Redis hashes names, whatever is in them."""
    names = Keyspace(namespace)
    if names.in_one_slot:
        check_cluster(names)
        every = {name for key in keys for name in all_names(names, key_word(key))}
        assert len({key_slot(name.encode()) for name in {names.common, *every}}) == 1
