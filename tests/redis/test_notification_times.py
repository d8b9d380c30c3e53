"""How soon a holder is notified of its loss, and a waiter of its slot, on real servers.

The bound: within a second, or three round trips if these take longer, counted from when a message
can arrive again. Leases are long: a renewal that is due anyway would come far too late. What was
measured is printed at the end of the module (`pytest -s`), and is a property of each test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from limiter_core import ConcurrencyLimit, ConflictResolution, StoreUnavailable, SyncLimiter
from limiter_core.requests import Demand, Queued, Request
from limiter_redis import RedisStore

from ._fake_time import ServerClock
from ._notification_trial import WORLDS, NotificationTrial, running_trial
from ._notified_parties import LEASE, LIMIT, LoopParty, seconds_until
from ._processes import Worker
from ._servers import OneNode, Process, Server, server_program
from ._tools import until_now

Record = Callable[[str, float], None]


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, float]]:
    """What was measured, by the names of the tests; printed at the end."""
    rows: dict[str, float] = {}
    yield rows
    width = max(map(len, rows), default=0)
    print("\nseconds until notified")  # noqa: T201
    for name, seconds in rows.items():
        print(f"{name:{width}}  {seconds:6.3f}")  # noqa: T201


@pytest.fixture
def took(
    request: pytest.FixtureRequest,
    table: dict[str, float],
    record_property: Callable[[str, object], None],
) -> Callable[[float], None]:
    """Note how long it took."""

    def note(seconds: float) -> None:
        table[request.node.name] = seconds
        record_property("seconds_until_notified", round(seconds, 3))

    return note


@pytest.fixture(scope="module")
def running_node() -> Iterator[OneNode]:
    program = server_program()
    node = OneNode(program)
    yield node
    node.close()


# -- situations: each returns from when the seconds count ------------------------------------------


def nothing_is_wrong(trial: NotificationTrial) -> float:
    trial.begin()
    trial.until_settled()
    return trial.happens()


def first_of_its_process(trial: NotificationTrial) -> float:
    trial.begin()
    return max(trial.happens(), trial.until_subscribed())


def reply_held_back(trial: NotificationTrial) -> float:
    """The news of it come before the reply that says that it has, or waits for, its slot."""
    trial.proxy.hold_back(b"queued" if trial.waits else b"granted", replies=True)
    trial.party.start()
    until_now(lambda: trial.proxy.held, "its reply is held back")
    trial.until_settled()
    trial.happens()
    until_now(lambda: trial.proxy.messages, "the news have come")
    return trial.proxy.release()


def subscription_held_back(trial: NotificationTrial) -> float:
    trial.proxy.hold_back(b"SUBSCRIBE", replies=False)
    trial.begin()
    until_now(lambda: trial.proxy.held, "its subscription is held back")
    happened = trial.happens()
    until_now(lambda: time.monotonic() > happened + 1.0, "a second has passed")
    trial.proxy.release()
    return max(happened, trial.until_subscribed())


def killed(trial: NotificationTrial, kind: str) -> float:
    trial.begin()
    trial.until_settled()
    trial.server.admin.client_kill_filter(_type=kind, skipme=True)
    return trial.happens()


def killed_afterwards(trial: NotificationTrial) -> float:
    """The message cannot arrive, and nothing tells the party but the end of the connection."""
    trial.begin()
    trial.until_settled()
    trial.proxy.hold_back(b"message\r\n", replies=True)
    trial.happens()
    until_now(lambda: trial.proxy.held, "the message is held back")
    at = time.monotonic()
    trial.proxy.hang_up()
    return at


def paused(trial: NotificationTrial) -> float:
    trial.begin()
    trial.until_settled()
    trial.server.admin.client_pause(500)
    return trial.happens()


def news_lost_with_the_reply(trial: NotificationTrial, more: int) -> float:
    """It came with the reply to a call of the same process; that to the same call resent, too."""
    trial.begin()
    trial.until_settled()
    trial.proxy.lose(b"answer " if trial.waits else b"lost ", more)

    def ask(operation: str, *given: Any) -> Any:
        try:
            return trial.party.ask(operation, *given)
        except StoreUnavailable:  # it was sent twice, and the reply to both is lost
            return Queued("", 0, 0, 0, None)

    trial.happens(ask)
    assert trial.proxy.lost
    until_now(lambda: not trial.proxy.is_losing(), "all that is to be lost is lost")
    return trial.proxy.lost_at


def far(trial: NotificationTrial, round_trip: float) -> float:
    trial.proxy.delay = round_trip / 2
    trial.begin()
    trial.until_settled()
    return trial.happens()


def far_and_first_of_its_process(trial: NotificationTrial, round_trip: float) -> float:
    trial.proxy.delay = round_trip / 2
    return first_of_its_process(trial)


SITUATIONS: dict[str, Callable[[NotificationTrial], float]] = {
    "nothing is wrong": nothing_is_wrong,
    "first of its process": first_of_its_process,
    "reply held back": reply_held_back,
    "subscription held back": subscription_held_back,
    "CLIENT KILL TYPE pubsub": partial(killed, kind="pubsub"),
    "CLIENT KILL TYPE normal": partial(killed, kind="normal"),
    "cut with the message": killed_afterwards,
    "CLIENT PAUSE": paused,
    "news lost with a reply": partial(news_lost_with_the_reply, more=0),
    "and with that resent": partial(news_lost_with_the_reply, more=1),
    "20 ms away": partial(far, round_trip=0.02),
    "200 ms away": partial(far, round_trip=0.2),
    "first, 200 ms away": partial(far_and_first_of_its_process, round_trip=0.2),
}


BRIEFLY = [
    "nothing is wrong",
    "first of its process",
    "subscription held back",
    "CLIENT KILL TYPE pubsub",
    "200 ms away",
]
"""Where a lease ends by itself, which makes no news that a reply could bring, or lose."""

ALL = [
    *((news, each) for news in ("preempted", "evicted", "handed over") for each in SITUATIONS),
    *(("run out", each) for each in BRIEFLY),
]
EXPIRED = [*BRIEFLY, "reply held back", "cut with the message", "CLIENT PAUSE"]
IN_A_CLUSTER = [
    *(
        ("evicted", each)
        if each in BRIEFLY
        else pytest.param("evicted", each, marks=pytest.mark.exhaustive)
        for each in SITUATIONS
        if each not in ("20 ms away", "CLIENT PAUSE")
    ),
    *(("handed over", each) for each in BRIEFLY),
]

# Every news reaches both worlds by the same lines; each situation is tried in both all the same.
ONE_WORLD = ["asyncio", pytest.param("threads", marks=pytest.mark.slow)]


def marks_of(world: str, news: str, situation: str) -> list[pytest.MarkDecorator]:
    """Return how much of the table is tried: each news in some situations, one in each."""
    if world == "threads" and news != "evicted":
        return [pytest.mark.slow]
    if situation in BRIEFLY or (world, news) == ("asyncio", "handed over"):
        return []
    return [pytest.mark.exhaustive]


CASES = [
    pytest.param(world, *case, marks=marks_of(world, *case)) for world in WORLDS for case in ALL
]


def seconds_to_notify(trial: NotificationTrial, situation: str) -> float:
    """Bring a situation about; returns the seconds until the party was notified."""
    since = SITUATIONS[situation](trial)
    return seconds_until(trial.notified_at, since, trial.proxy.url)


@pytest.mark.parametrize(("world", "news", "situation"), CASES)
def test_time_until_notified(
    server: Process, world: str, news: str, situation: str, took: Callable[[float], None]
) -> None:
    with running_trial(server, news, world) as trial:
        took(seconds_to_notify(trial, situation))


@pytest.mark.parametrize("world", ONE_WORLD)
@pytest.mark.parametrize("situation", EXPIRED)
def test_notified_of_the_end_of_its_lease(
    server: Process, clock: ServerClock, world: str, situation: str, took: Callable[[float], None]
) -> None:
    with running_trial(server, "expired", world, clock=clock) as trial:
        took(seconds_to_notify(trial, situation))


@pytest.mark.parametrize("world", ONE_WORLD)
@pytest.mark.parametrize(("news", "situation"), IN_A_CLUSTER)
def test_notified_in_a_cluster(
    running_node: OneNode, world: str, news: str, situation: str, took: Callable[[float], None]
) -> None:
    running_node.admin.flushall()
    with running_trial(running_node, news, world) as trial:
        took(seconds_to_notify(trial, situation))


@pytest.mark.parametrize("news", ["preempted", "evicted", "handed over"])
def test_notified_when_the_event_loop_runs_again(
    server: Process, news: str, took: Callable[[float], None]
) -> None:
    with running_trial(server, news, "asyncio") as trial:
        trial.begin()
        trial.until_settled()
        assert isinstance(trial.party, LoopParty)
        go_on = trial.party.block()
        happened = trial.happens()
        until_now(lambda: time.monotonic() > happened + 1.0, "it was blocked for a second")
        took(seconds_until(trial.notified_at, go_on(), trial.proxy.url))


@pytest.mark.parametrize("world", ONE_WORLD)
@pytest.mark.parametrize("news", ["preempted", "evicted", "handed over"])
def test_notified_when_its_process_goes_on(
    server: Server,
    start: Callable[..., Worker],
    world: str,
    news: str,
    took: Callable[[float], None],
) -> None:
    """Stopped by SIGSTOP, as by a host that swaps or moves."""
    waits = news == "handed over"
    ends = {"url": server.url, "limit": {"max_concurrent": 1, "lease": LEASE}}
    first = start("hold.py", **ends) if waits else None
    if first is not None:
        first.wait_for("begins")
    party = start("hold.py", **ends, **{"async": world == "asyncio"})
    store = RedisStore(server.url)
    face: Any = store.sync_face()
    key = SyncLimiter("memory://").key_for(LIMIT).replace("notified", "work")
    if waits:
        until_now(lambda: face.inspect(key).waiting, "it waits")
    else:
        party.wait_for("begins")
    listens = lambda: len(server.admin.pubsub_channels("limiter:process:*")) >= 1 + waits  # noqa: E731
    until_now(listens, "it receives messages")
    party.freeze()
    frozen_at = time.monotonic()
    if first is not None:
        first.tell()
        until_now(lambda: not face.inspect(key).waiting, "the slot is handed over")
    elif news == "evicted":
        assert face.evict(face.inspect(key).holders[0].id)
    else:
        latest = ConflictResolution.CANCEL_RUNNING
        face.acquire(Request("rival", (Demand(key, 1, on_conflict=latest),), lease=LEASE))
    until_now(lambda: time.monotonic() > frozen_at + 1.5, "it was frozen for a while")
    since = time.monotonic()
    party.thaw()

    def notified_at() -> float:
        said = party.event("begins" if waits else "lost")
        return said["at"] if said is not None else 0.0

    took(seconds_until(notified_at, since, server.url))
    face.release("rival")
    store.close()


@pytest.mark.slow  # the health check takes ten seconds, and no renewal comes sooner
@pytest.mark.parametrize(("news", "bound"), [("evicted", 11.0), ("handed over", 6.0)])
def test_notified_on_a_half_open_connection(
    server: Process, news: str, bound: float, took: Callable[[float], None]
) -> None:
    """A holder is told by the health check, or a renewal; who waits looks every five seconds."""
    with running_trial(server, news, "threads") as trial:
        trial.begin()
        trial.until_settled()
        trial.proxy.hold_back(b"message\r\n", replies=True)
        took(seconds_until(trial.notified_at, trial.happens(), trial.proxy.url, bound=bound))


def test_notified_by_a_limiter_that_had_looked_before(server: Server) -> None:
    """An eviction at once after the grant, by another that is there already."""
    with SyncLimiter(server.url) as one, SyncLimiter(server.url) as other:
        other.inspect("user=eve")
        lease = one.acquire(ConcurrencyLimit("user", lease=30.0), {"user": "eve"})
        assert other.evict(lease.id)
        until_now(lambda: lease.lost, "it is notified", patience=4.0)
