"""What things are called in a namespace, and that no two namespaces meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from limiter_core.requests import Demand, Granted, Notice, Queued, Request
from limiter_core.testing.listener import RecordingListener
from limiter_redis import RedisStore
from limiter_redis.protocol.words import id_word, key_word

from ._processes import Worker
from ._servers import Process, Server
from ._tools import until_now
from .test_access_rights import RIGHTS, use_everything

EVERY_KIND = [
    # what a table of docs/reference/redis-layout.md says, by the beginnings of its names
    ("limiter", "{limiter:", "{limiter}", "limiter"),
    ("shop:limits", "shop:limits:{", "shop:limits", "shop:limits"),
    ("{shop}:limits", "{shop}:limits:{", "{shop}:limits", "{shop}:limits"),
    ("x:{shop}:limits", "x:{shop}:limits:{", "x:{shop}:limits", "x:{shop}:limits"),
    ("a b*[c]?:limits", "a b*[c]?:limits:{", "a b*[c]?:limits", "a b*[c]?:limits"),
    ("a b*[c]?^\\-é", "{a b*[c]?^\\-é:", "{a b*[c]?^\\-é}", "a b*[c]?^\\-é"),
]


def job(name: str, *keys: str, **facts: Any) -> Request:
    demands = tuple(Demand(key, 1) for key in keys)
    return Request(name, demands, payload=name.encode(), **facts)


# -- on a server -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("namespace", "opening", "common", "channels"), EVERY_KIND)
def test_every_name_is_as_the_page_says(
    server: Server, namespace: str, opening: str, common: str, channels: str
) -> None:
    """Literally: all Redis keys and all channels, of keys with and without a scope."""
    store = RedisStore(server.url, namespace=namespace)
    face = store.sync_face()
    received: list[Notice] = []
    face.on_notice(received.append)
    listener = RecordingListener()
    keys = ("customer=42", "orders/region=eu")
    for key in keys:
        face.acquire(Request(f"holder-{key[:2]}", (Demand(key, 1),), listener=listener))
        assert isinstance(face.acquire(job(f"job-{key[:2]}", key)), Queued)
        face.acquire(Request(f"late-{key[:2]}", (Demand(key, 1),), listener=RecordingListener()))
        store.session.tracker.end(f"late-{key[:2]}")  # what is said to it is said to a stranger
        assert face.evict(f"late-{key[:2]}") is False
    listening = f"{channels}:process:{store.session.tracker.process}", f"{channels}:notices:0"
    until_now(lambda: set(server.admin.pubsub_channels("*")) >= {*listening}, "it listens")
    face.evict("holder-cu")
    face.evict("holder-or")
    assert sorted(face.keys()) == sorted(keys)
    names = {
        *(f"{opening}customer=42}}:{kind}" for kind in ("state", "ends", "queue")),
        *(f"{opening}orders}}:{kind}:region=eu" for kind in ("state", "ends", "queue")),
        f"{opening}customer=42}}:ended:{id_word('holder-cu')}",
        f"{opening}orders}}:ended:{id_word('holder-or')}",
        f"{common}:offers",
        f"{opening}orders}}:offers",
        f"{common}:scopes",
        f"{common}:layout",
    }
    assert set(server.admin.scan_iter(count=1000)) == names
    assert [notice.id for notice in received] == ["job-cu", "job-or"]
    face.sweep()
    for name in ("job-cu", "job-or", "late-cu", "late-or"):
        face.release(name)
    store.session.tracker.requests.clear()  # else it goes on beside the next test
    store.close()


NEIGHBOURS = [
    "shop",
    "shop:limits",
    "shop:limits:x",
    "shop:",
    "{shop}:limits",
    "{shop}:limits:x",
    "{shop:limits}x",
    "{shop:limits}:x",
    "shop:limits:{x}y",
    "shop:limits:{x}:y",
    "a b*[c]?:limits",
    "a bXc?:limits",
    "a bXcc:limits",
    "a b*[c]?",
    "shop*",
    "*:*",
]


def test_namespaces_do_not_see_each_other(server: Server) -> None:
    """Of which one is the beginning of the other, or fits the other as a pattern."""
    stores = {name: RedisStore(server.url, namespace=name) for name in NEIGHBOURS}
    keys = {"k", "limits", "x", "s/k", "s/x:{}:state", "limits/x/state"}
    for name, store in stores.items():
        face = store.sync_face()
        face.on_notice(lambda _: True)
        for key in keys:
            face.acquire(Request(f"{name}/{key}", (Demand(key, 1),)))
            assert isinstance(face.acquire(job(f"job:{name}/{key}", key)), Queued)
    words = {key_word(key) for key in keys}
    for name, store in stores.items():
        face = store.sync_face()
        assert sorted(face.keys()) == sorted(words), name
        for key in keys:
            snapshot = face.inspect(key)
            assert [each.id for each in snapshot.holders] == [f"{name}/{key}"]
            assert [each.id for each in snapshot.waiters] == [f"job:{name}/{key}"]
        strangers = [f"{other}/k" for other in NEIGHBOURS if other != name]
        assert face.evict(strangers[0]) is False
        assert set(face.renew(strangers).gone) == set(strangers)
        face.sweep()
    for name, store in stores.items():
        face = store.sync_face()
        assert sorted(face.keys()) == sorted(words), "what others let go of, they alone did"
        for key in keys:
            assert face.release(f"job:{name}/{key}")
            assert face.release(f"{name}/{key}")
        assert list(face.keys()) == []
        store.close()


async def test_names_in_an_event_loop(server: Server) -> None:
    """The async face looks at its own keys, too."""
    stores = [
        RedisStore(server.url, namespace=name) for name in ("shop:limits", "shop:limits:{x}y")
    ]
    for store in stores:
        await store.async_face().acquire(Request("r", (Demand("a", 1), Demand("s/b", 1))))
    for store in stores:
        assert sorted([key async for key in store.async_face().keys()]) == ["a", "s/b"]
        assert await store.async_face().release("r")
        await store.aclose()


def test_a_release_touches_no_other_key(store: RedisStore) -> None:
    """Whatever the others are called: no name that the script makes up is one of theirs."""
    face = store.sync_face()
    others = ["orders/nothing", "orders/none", "orders/}:nothing", "orders/a:nothing", "a}:none"]
    for key in others:
        face.acquire(Request(key, (Demand(key, 1),)))
    for key in ("orders", "orders/a", "a"):
        face.acquire(Request("r", (Demand(key, 1),)))
        face.release("r", (key,))
    for key in others:
        assert [each.id for each in face.inspect(key).holders] == [key]
        face.release(key, (key,))


@pytest.mark.parametrize("scope", ["-", "=", "a b", "{}", "é"])
def test_a_sweep_finds_scopes_of_any_name(server: Server, scope: str) -> None:
    """S17: what is noted is what the script calls it."""
    one, other = RedisStore(server.url), RedisStore(server.url)
    offered: list[str] = []
    other.sync_face().on_notice(lambda notice: offered.append(notice.id))
    face = one.sync_face()
    face.acquire(Request("holder", (Demand(f"{scope}/key", 1),)))
    face.acquire(job("job", f"{scope}/key", claim=0.05))
    face.release("holder", (f"{scope}/key",))

    def is_offered() -> bool:
        other.sync_face().sweep()
        return offered != []

    until_now(is_offered, "the job is offered again")
    face.release("job", (f"{scope}/key",))
    one.close()
    other.close()


@pytest.mark.parametrize("namespace", ["shop:limits", "shop:"])
async def test_the_rights_to_a_prefix_are_enough(own_server: Process, namespace: str) -> None:
    """Keys and channels that begin with "shop:", and the commands of the page."""
    rights = RIGHTS.replace("~{limiter*", "~shop:*").replace("&limiter:*", "&shop:*")
    assert rights != RIGHTS
    user = ("limited", "reset", "on", ">s3cret", *rights.split())
    own_server.admin.execute_command("ACL", "SETUSER", *user)
    url = own_server.url.replace("redis://", "redis://limited:s3cret@")
    await use_everything(url, namespace)
    own_server.admin.script_flush()
    await use_everything(url, namespace)
    assert own_server.admin.execute_command("ACL", "LOG") == []


def test_with_these_rights_between_processes(
    own_server: Process, start: Callable[..., Worker]
) -> None:
    """Waits, is handed the slot, gets jobs of a process that died; and notices are forwarded."""
    rights = RIGHTS.replace("~{limiter*", "~shop:*").replace("&limiter:*", "&shop:*")
    user = ("limited", "reset", "on", ">s3cret", *rights.split())
    own_server.admin.execute_command("ACL", "SETUSER", *user)
    url = own_server.url.replace("redis://", "redis://limited:s3cret@")
    common: dict[str, Any] = {"url": url, "namespace": "shop:limits"}
    limit = {"max_concurrent": 1, "lease": 1.5}
    first = start("hold.py", **common, limit=limit)
    first.wait_for("begins")
    second = start("hold.py", **common, limit=limit, **{"async": True})
    store = RedisStore(url, namespace="shop:limits")
    face = store.sync_face()
    until_now(lambda: list(face.keys()), "a worker holds")
    [key] = face.keys()
    until_now(lambda: face.inspect(key).waiting == 1, "the other waits")
    first.tell()
    second.wait_for("begins")
    first.end()
    received: list[str] = []
    face.on_notice(lambda notice: received.append(notice.id))
    assert isinstance(face.acquire(job("job", key)), Queued)
    second.kill()

    def swept() -> bool:
        face.sweep()
        return received == ["job"]

    until_now(swept, "the dead one's slot is offered to the job")
    assert isinstance(face.acquire(job("job", key)), Granted)
    assert isinstance(face.acquire(job("next", key)), Queued)
    web = RedisStore(url, namespace="shop:limits")  # it cannot wake jobs
    mute = web.sync_face()
    listener = RecordingListener()
    until_now(
        lambda: own_server.admin.pubsub_numsub("shop:limits:notices:0")[0][1], "it receives notices"
    )
    mute.acquire(Request("call", (Demand("other", 1),), listener=listener))  # so its renewer runs
    assert mute.release("job", (key,))
    until_now(lambda: received == ["job", "next"], "the notice is forwarded")
    mute.release("call")
    face.release("next", (key,))
    assert own_server.admin.execute_command("ACL", "LOG") == []
    store.close()
    web.close()
