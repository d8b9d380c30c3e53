"""Exceptions of others, raised amid an exchange with the server: they pass through, unchanged."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis

from limiter_core import LIMIT_BY, ConcurrencyLimit, StoreUnavailable, SyncLimiter, WaitTimeout
from limiter_core.requests import Demand, Granted, Request
from limiter_core.threads import SystemThread
from limiter_redis import RedisStore
from limiter_redis.session.renewal import LeaseRenewer
from tests.core._throw import Thrower, Thrown, sweep

from ._servers import OneNode, Process, server_program
from ._tools import until_now

LIMIT = ConcurrencyLimit(LIMIT_BY.constant("one"), max_concurrent=1, lease=60)


class SoftTimeLimit(Exception):
    """As those of job queues: an `Exception`."""


class GreenTimeout(BaseException):
    """As gevent's."""


ONCE = os.environ.get("LIMITER_SLOW_TESTS") != "1"
"""A line that runs often is interrupted the first time; in the slow run later ones as well."""
KINDS = [
    *(SoftTimeLimit, GreenTimeout, KeyboardInterrupt, SystemExit, RuntimeError),
    *(TimeoutError, ConnectionResetError, ValueError),  # as a socket or a parser raises them
]
in_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals go to the main one"
)


@contextmanager
def alarm_in(seconds: float, kind: type[BaseException]) -> Iterator[None]:
    """Have a signal handler raise, once.

    A signal that comes between Python's last look for signals and a blocking call of the system
    interrupts no call: the handler would run only after it. So the signal is sent again and again.
    """
    raised: list[BaseException] = []

    def handler(*_: object) -> None:
        if not raised:
            raised.append(kind("time is up"))
            raise raised[0]

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def limiter(own_server: Process) -> Iterator[SyncLimiter]:
    store = RedisStore(f"{own_server.url}?socket_timeout=8")
    limiter = SyncLimiter(store)
    with limiter.hold(LIMIT):
        pass
    yield limiter
    store.close()


def in_use(limiter: SyncLimiter) -> int:
    return limiter.inspect(LIMIT).in_use


@in_main_thread
@pytest.mark.parametrize("kind", KINDS)
def test_raised_while_acquiring(
    kind: type[BaseException], own_server: Process, limiter: SyncLimiter
) -> None:
    """It is raised as it is, at once, though the server says nothing; no slot is left taken."""
    with own_server.frozen(), alarm_in(0.2, kind):
        started = time.monotonic()
        with pytest.raises(kind, match="time is up"):
            limiter.acquire(LIMIT)
        assert time.monotonic() - started < 4, "it waited for the server before"
    until_now(lambda: in_use(limiter) == 0, "what was granted in vain comes back")
    with limiter.hold(LIMIT, timeout=5) as lease:
        assert limiter.inspect(LIMIT).holders[0].id == lease.id


@in_main_thread
@pytest.mark.parametrize("kind", KINDS)
def test_raised_while_releasing(
    kind: type[BaseException],
    own_server: Process,
    limiter: SyncLimiter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is raised as it is, and the slot comes back as soon as the server answers."""
    lease = limiter.acquire(LIMIT)
    with own_server.frozen(), alarm_in(0.2, kind):
        started = time.monotonic()
        with pytest.raises(kind, match="time is up"):
            lease.release()
        assert time.monotonic() - started < 4, "it waited for the server before"
    until_now(lambda: in_use(limiter) == 0, "the slot comes back")
    assert "could not release" not in caplog.text


@in_main_thread
@pytest.mark.parametrize("kind", [SoftTimeLimit, TimeoutError])
def test_raised_while_connecting(kind: type[BaseException], own_server: Process) -> None:
    with SyncLimiter(own_server.url) as limiter:
        with own_server.frozen(), alarm_in(0.2, kind), pytest.raises(kind, match="time is up"):
            limiter.acquire(LIMIT)
        limiter.acquire(LIMIT, timeout=5).release()


@in_main_thread
@pytest.mark.parametrize("kind", [SoftTimeLimit, TimeoutError])
def test_raised_while_the_store_is_away(kind: type[BaseException], own_server: Process) -> None:
    """Between two attempts."""
    with SyncLimiter(own_server.url) as limiter:
        own_server.kill()
        with alarm_in(0.7, kind), pytest.raises(kind, match="time is up"):
            limiter.acquire(LIMIT)


@in_main_thread
@pytest.mark.parametrize("kind", [SoftTimeLimit, TimeoutError])
def test_raised_while_waiting(
    kind: type[BaseException], own_server: Process, limiter: SyncLimiter
) -> None:
    held = limiter.acquire(LIMIT)
    with alarm_in(0.2, kind), pytest.raises(kind, match="time is up"):
        limiter.acquire(LIMIT)
    until_now(lambda: limiter.inspect(LIMIT).waiting == 0, "its ticket is gone")
    held.release()
    assert in_use(limiter) == 0


def signal_once(monkeypatch: pytest.MonkeyPatch, place: type, method: str) -> None:
    """Have the signal of `a_handler_of` arrive at the beginning of a method, once."""
    plain = getattr(place, method)

    def interrupted(self: object) -> None:
        if not arrived:
            arrived.append(None)
            signal.raise_signal(signal.SIGUSR1)
        plain(self)

    arrived: list[None] = []
    monkeypatch.setattr(place, method, interrupted)


@contextmanager
def a_handler_of(kind: type[BaseException]) -> Iterator[None]:
    """Have a signal handler raise."""

    def handler(*_: object) -> None:
        raise kind("time is up")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@in_main_thread
@pytest.mark.parametrize("kind", [TimeoutError, RuntimeError])
def test_raised_while_the_renewer_begins(
    kind: type[BaseException], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system raises itself there, if it has no more threads or open files."""
    with SyncLimiter(url) as limiter, a_handler_of(kind):
        signal_once(monkeypatch, LeaseRenewer, "_start")
        with pytest.raises(kind, match="time is up"):
            limiter.acquire(LIMIT)
        limiter.acquire(LIMIT, timeout=5).release()


@in_main_thread
@pytest.mark.parametrize("kind", [SoftTimeLimit, TimeoutError, RuntimeError])
def test_raised_while_the_slots_are_about_to_be_read(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call reads them, and does not wait for a thread that has not begun."""
    server = OneNode(server_program())
    with SyncLimiter(server.cluster_url) as limiter, a_handler_of(kind):
        signal_once(monkeypatch, SystemThread, "start")
        with pytest.raises(kind, match="time is up"):
            limiter.inspect(LIMIT)
        assert in_use(limiter) == 0
    server.close()


@in_main_thread
def test_a_half_read_connection_is_not_used_again(
    own_server: Process, limiter: SyncLimiter
) -> None:
    """The late reply to a question that was given up answers no other one."""
    for number in range(5):
        with own_server.frozen(), alarm_in(0.05, SoftTimeLimit), pytest.raises(SoftTimeLimit):
            limiter.inspect(f"key {number}")
        assert limiter.inspect("another").key == "another"


def test_errors_of_the_server_stay_errors_of_the_store(
    own_server: Process, limiter: SyncLimiter
) -> None:
    own_server.kill()
    with pytest.raises(StoreUnavailable) as caught:
        limiter.inspect(LIMIT)
    assert isinstance(caught.value.__cause__, Exception)


@in_main_thread
def test_what_is_raised_amid_news_reaches_its_caller(
    limiter: SyncLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that grants others in this process passes on the word of it, then raises."""
    waiting: Any = SyncLimiter(limiter._engine.store)
    held = limiter.acquire(LIMIT)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(waiting.acquire(LIMIT, timeout=10)))
    thread.start()
    until_now(lambda: limiter.inspect(LIMIT).waiting == 1, "it waits")
    tracker: Any = limiter._engine.store.session.tracker  # type: ignore[attr-defined]
    say, thrown = tracker._notify, []

    def say_at_last(said: object) -> None:
        if not thrown and threading.current_thread() is threading.main_thread():
            thrown.append(True)
            raise SoftTimeLimit
        say(said)

    monkeypatch.setattr(tracker, "_notify", say_at_last)
    with pytest.raises(SoftTimeLimit):
        held.release()
    thread.join(10)
    assert got, "who waited was not told"
    got[0].release()  # type: ignore[attr-defined]


# -- at every line ---------------------------------------------------------------------------------


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    """A store on one server, or in a cluster."""
    store = RedisStore(url)
    yield store
    store.close()


class Waiter:
    """Another caller in this process, which waits."""

    def __init__(self, store: RedisStore, key: str) -> None:
        self._face = store.sync_face()
        self._notified_parties: list[object] = []
        self.request = Request(f"waiter-{key}", (Demand(key, 1),), lease=60.0, listener=self)
        self.answer: object = self._face.acquire(self.request)

    def look_again(self, answer: object = None) -> bool:
        self._notified_parties.append(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        pass

    def lease_lost(self, loss: object) -> None:
        pass

    def is_granted(self) -> bool:
        while self._notified_parties and not isinstance(self.answer, Granted):
            said = self._notified_parties.pop(0)
            self.answer = self._face.acquire(self.request) if said is None else said
        return isinstance(self.answer, Granted)

    def leave(self) -> None:
        self._face.release(self.request.id)


def throw_into(thrower: Thrower, work: Callable[[], object]) -> None:
    raised = False
    with thrower.tracing():
        try:
            work()
        except Thrown:
            raised = True
    assert raised == thrower.has_thrown, f"it was swallowed: {thrower.where}"


def left_over(store: RedisStore, thrown: dict[str, str]) -> list[str]:
    """Return where an exception was thrown that left a key in use."""
    return [thrown.get(key.partition("/")[0], key) for key in store.sync_face().keys()]


def all_is_free(store: RedisStore, thrown: dict[str, str]) -> None:
    try:
        until_now(lambda: not left_over(store, thrown), "every slot comes back")
    except AssertionError as error:
        error.add_note(f"left over: {left_over(store, thrown)}")
        raise
    assert not store.session.tracker.entries


def swept(store: RedisStore, trial: Callable[[Thrower, str], None]) -> None:
    """Each trial has a key of its own: what comes back a little later is waited for once."""
    thrown: dict[str, str] = {}

    def with_a_key(thrower: Thrower) -> None:
        key = f"key-{thrower.at}"
        trial(thrower, key)
        thrown[key] = thrower.where

    assert sweep(with_a_key, once=ONCE) > 50
    all_is_free(store, thrown)


@pytest.mark.exhaustive
@in_main_thread
def test_at_every_line_of_a_hold(store: RedisStore) -> None:
    limiter = SyncLimiter(store)

    def trial(thrower: Thrower, key: str) -> None:
        limit = ConcurrencyLimit(LIMIT_BY.constant("a"), 1, lease=60, scope=key)
        other = ConcurrencyLimit(LIMIT_BY.constant("b"), 1, lease=60, scope=key)

        def work() -> None:
            with limiter.hold(limit):
                pass
            limiter.acquire([limit, other]).release()

        throw_into(thrower, work)

    swept(store, trial)


@pytest.mark.exhaustive
@in_main_thread
def test_at_every_line_of_waiting_in_vain(store: RedisStore) -> None:
    limiter = SyncLimiter(store)

    def trial(thrower: Thrower, key: str) -> None:
        limit = ConcurrencyLimit(LIMIT_BY.constant(key), 1, lease=60)

        def work() -> None:
            with suppress(WaitTimeout, StoreUnavailable):  # on a busy machine no reply is in time
                limiter.acquire(limit, timeout=0.005)

        held = limiter.acquire(limit)
        throw_into(thrower, work)
        held.release()

    swept(store, trial)


@pytest.mark.exhaustive
@in_main_thread
def test_at_every_line_of_handing_over(store: RedisStore) -> None:
    limiter = SyncLimiter(store)
    waiters: list[Waiter] = []

    def trial(thrower: Thrower, key: str) -> None:
        lease = limiter.acquire(ConcurrencyLimit(LIMIT_BY.constant(key), 1, lease=60))
        waiters.append(Waiter(store, key))
        throw_into(thrower, lease.release)

    def finished() -> bool:
        for waiter in [waiter for waiter in waiters if waiter.is_granted()]:
            waiters.remove(waiter)
            waiter.leave()
        return not waiters

    thrown: dict[str, str] = {}

    def with_a_key(thrower: Thrower) -> None:
        key = f"key-{thrower.at}"
        trial(thrower, key)
        thrown[key] = thrower.where

    assert sweep(with_a_key, once=ONCE) > 20
    until_now(finished, "all who wait are served")
    all_is_free(store, thrown)


def test_connections_may_break_as_often_as_they_like(own_server: Process) -> None:
    """More often than redis-py's pools have connections by default."""
    store = RedisStore(own_server.url)
    limiter = SyncLimiter(store)
    with redis.Redis.from_url(own_server.url) as operator:
        for _ in range(150):
            operator.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with limiter.hold(LIMIT, timeout=5):
                pass
    store.close()
