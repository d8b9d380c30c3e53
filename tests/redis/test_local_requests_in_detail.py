"""What a process holds and waits for: its invariants one by one, and exceptions amid an event."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from limiter_core.requests import (
    Answer,
    Demand,
    Granted,
    Loss,
    Mode,
    Queued,
    Replaced,
    Request,
)
from limiter_redis.connection.backoff import FIRST, LONGEST
from limiter_redis.session.entries import Entry, Event, State
from limiter_redis.session.local_requests import LONGEST_WAY, LocalRequests
from limiter_redis.session.tracker import RequestTracker
from tests.core._throw import Thrower, Thrown, sweep

LEASE = 30.0
NOW = 1000.0
QUEUED = Queued("k", 1, 1, 1, None)
REPLACED = Replaced("k")
GRANTED = Granted(7, LEASE)
TOLD_GRANTED = Granted(7, 27.0, 3.0)
"""As a holder is notified of it: it stops before the store does."""


class Recorder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Answer | Loss | None] = []
        self.ends: list[float] = []

    def look_again(self, answer: Answer | None = None) -> bool:
        self.told.append(answer)
        return True

    def lease_renewed(self, expires_at: float) -> None:
        self.ends.append(expires_at)

    def lease_lost(self, loss: Loss) -> None:
        self.told.append(loss)


class OneRequest:
    """The books of a process with one request."""

    def __init__(self) -> None:
        self.requests = LocalRequests(lambda: 0.5)
        self.listener = Recorder()
        self.request = Request("r", (Demand("k", 1),), LEASE, listener=self.listener)

        self.noted: Entry
        """Its entry, as `note` found it last."""

    @property
    def entry(self) -> Entry:
        return self.requests.entries["r"]

    def note(self) -> None:
        """Remember the entry, whatever becomes of it."""
        (self.noted,) = (*self.requests.releasing.values(), *self.requests.entries.values())

    def ask(self) -> None:
        self.requests.asked(self.request, NOW)

    def answer(self, answer: Answer) -> None:
        self.requests.answered(self.request, answer, NOW, NOW)

    def hold(self, token: int = 7) -> None:
        self.answer(Granted(token, LEASE))

    def lose(self, loss: Loss = Loss.EVICTED, token: int = 7) -> None:
        self.requests.loss_received("r", loss, token, NOW)

    def receive(self, answer: Answer | None) -> None:
        self.requests.answer_received("r", answer, NOW, NOW)

    def told(self) -> list[Answer | Loss | None]:
        """Tell the listener what is to be told; returns all that it was told."""
        outbox = self.requests.outbox
        while outbox:
            said = outbox.popleft()
            if said.loss is not None:
                self.listener.lease_lost(said.loss)
            elif said.renewed_until is not None:
                self.listener.lease_renewed(said.renewed_until)
            else:
                self.listener.look_again(said.answer)
        return self.listener.told

    def content(self) -> object:
        """Return all that is in the books."""
        entries = [
            tuple(sorted({"asking": True, **vars(entry)}.items(), key=str))
            for entry in (*self.requests.entries.values(), *self.requests.releasing.values())
        ]
        return entries, list(self.requests.rivals), list(self.requests.outbox), self.requests.looks


@pytest.fixture
def one() -> OneRequest:
    """The books of a process with one request, which was not sent yet."""
    return OneRequest()


@pytest.mark.parametrize("answer", [Granted(9, LEASE), QUEUED, REPLACED, None])
@pytest.mark.parametrize("state", ["nothing", "asked", "waiting", "held", "releasing"])
def test_a_look_changes_nothing(one: OneRequest, state: str, answer: Answer | None) -> None:
    """L6, whoever looks, and whatever the store says."""
    if state != "nothing":
        one.ask()
    if state == "waiting":
        one.answer(QUEUED)
    elif state in {"held", "releasing"}:
        one.hold()
    if state == "releasing":
        one.requests.release("r", NOW)
    before = one.content()
    for listener in (one.listener, Recorder(), None):
        look = one.request._replace(mode=Mode.LOOK, listener=listener)
        one.requests.asked(look, NOW)
        if answer is None:
            assert one.requests.not_answered(look, NOW, unsure=True) is None
        else:
            one.requests.answered(look, answer, NOW, NOW)
        assert one.content() == before


@pytest.mark.parametrize("line", ["granted 7 60000000", "queued k 1 1 1 -"])
def test_a_look_of_a_store_notes_no_lease(line: str) -> None:
    """L6: as when a gate asks whether a slot was handed over, or whether its job still waits."""
    tracker = RequestTracker("limiter")
    request = Request("r", (Demand("k", 1),), listener=Recorder(), payload=b"x", mode=Mode.LOOK)
    tracker.begin(request, NOW)
    tracker.settle(request, line, NOW)
    tracker.withdraw(request)
    assert not tracker.entries
    assert not tracker.requests


def test_a_call_is_told_one_grant(one: OneRequest) -> None:
    """L7: the news of a grant, and the reply that says the same."""
    one.ask()
    one.answer(QUEUED)
    one.receive(GRANTED)
    one.receive(GRANTED)
    one.hold()
    assert one.told() == [TOLD_GRANTED]
    assert one.entry.state is State.HELD


def test_a_grant_that_came_with_the_news_is_the_answer_to_a_failed_ask(one: OneRequest) -> None:
    """L7: the caller does not ask again for what it has."""
    one.ask()
    one.receive(GRANTED)
    assert one.requests.not_answered(one.request, NOW, unsure=True) == Granted(7, 27.0)
    assert one.entry.state is State.HELD


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([Loss.EVICTED, Loss.EVICTED], [Loss.EVICTED]),
        ([Loss.EVICTED, Loss.EXPIRED], [Loss.EVICTED]),
        ([Loss.PREEMPTED, Loss.PREEMPTED], [Loss.PREEMPTED]),
        ([Loss.EVICTED, Loss.PREEMPTED], [Loss.EVICTED]),
        ([Loss.PREEMPTED, Loss.EVICTED], [Loss.PREEMPTED, Loss.EVICTED]),
    ],
)
def test_a_loss_is_told_once(one: OneRequest, losses: list[Loss], told: list[Loss]) -> None:
    """L7: a holder that was to release its slot, and has not, is notified of the end as well."""
    one.ask()
    one.hold()
    for loss in losses:
        one.lose(loss)
    assert one.told() == told


@pytest.mark.parametrize(
    ("token", "told"),
    [(6, []), (7, [Loss.EVICTED]), (8, [Loss.EXPIRED]), (0, [Loss.EVICTED])],
    ids=["of the lease before", "of this lease", "of the lease after", "not said"],
)
def test_a_loss_that_comes_after_the_grant(one: OneRequest, token: int, told: list[Loss]) -> None:
    """L1: a holder that gets news of the end of a later lease of its id lost its own before."""
    one.ask()
    one.hold(7)
    one.lose(token=token)
    assert one.told() == told


@pytest.mark.parametrize("loss", [Loss.EVICTED, Loss.PREEMPTED])
@pytest.mark.parametrize("tokens", [(7,), (6, 7), (7, 6)], ids=str)
def test_a_loss_that_comes_before_the_grant(
    one: OneRequest, tokens: tuple[int, ...], loss: Loss
) -> None:
    """L1: that of an older lease does not hide it."""
    one.ask()
    for token in tokens:
        one.lose(loss, token)
    assert one.told() == []
    one.hold(7)
    assert one.told() == [loss]


def test_an_older_loss_that_comes_before_the_grant(one: OneRequest) -> None:
    one.ask()
    one.lose(token=6)
    one.hold(7)
    assert one.told() == []
    assert one.requests.due(NOW) == []


def test_after_a_loss_without_a_token_the_store_is_asked_at_once(one: OneRequest) -> None:
    """L1: it may be that of the lease before."""
    one.ask()
    one.lose(token=0)
    one.hold(7)
    assert one.told() == []
    assert one.requests.due(NOW) == [one.entry]


def test_news_of_a_grant_that_is_known_as_lost_have_the_store_asked(one: OneRequest) -> None:
    """L7: nobody begins with a lease that has ended."""
    one.ask()
    one.answer(QUEUED)
    one.lose(token=7)
    one.receive(GRANTED)
    assert one.entry.state is State.WAITING
    assert one.told() == [None, None]


def test_news_of_a_grant_that_took_long_have_the_store_asked(one: OneRequest) -> None:
    """The slot may be another's by now."""
    one.ask()
    one.answer(QUEUED)
    one.requests.answer_received("r", Granted(7, LEASE), NOW - 1.1 * LONGEST_WAY * LEASE, NOW)
    assert one.entry.state is State.WAITING
    assert one.told() == [None]


def test_a_release_that_fails_is_sent_again_after_pauses_that_grow(one: OneRequest) -> None:
    """L4: within each two seconds, until it works or the lease is over."""
    one.ask()
    one.hold()
    one.requests.release("r", NOW, "k")
    one.note()
    now, tries = NOW, 0
    while one.requests.releases_due(now):
        tries += 1
        one.requests.happened(one.noted, Event.FAILED, now)
        assert one.requests.releases_due(now) == []
        assert now + FIRST / 2 <= one.noted.renew_at <= now + LONGEST
        now = one.noted.renew_at
    assert LEASE / LONGEST <= tries < 4 * LEASE / LONGEST
    assert not one.requests


def test_what_cannot_be_changes_nothing(one: OneRequest) -> None:
    """Events that no order brings: an ask comes twice, news says that a holder waits no more."""
    one.ask()
    before = one.content()
    one.ask()
    assert one.content() == before
    one.hold()
    before = one.content()
    one.receive(REPLACED)
    assert one.content() == before


# -- exceptions ------------------------------------------------------------------------------------

Act = Callable[[OneRequest], object]
ASKED: list[Act] = [OneRequest.ask]
WAITING: list[Act] = [*ASKED, lambda one: one.answer(QUEUED)]
HELD: list[Act] = [*ASKED, OneRequest.hold]
RELEASING: list[Act] = [*HELD, lambda one: one.requests.release("r", NOW)]


@pytest.mark.parametrize(
    ("before", "act", "state", "told"),
    [
        (ASKED, OneRequest.lose, State.ASKED, []),
        (WAITING, OneRequest.lose, State.WAITING, [None]),
        (HELD, OneRequest.lose, State.GONE, [Loss.EVICTED]),
        (HELD, lambda one: one.lose(Loss.PREEMPTED), State.HELD, [Loss.PREEMPTED]),
        (WAITING, lambda one: one.receive(GRANTED), State.HELD, [TOLD_GRANTED]),
        (WAITING, lambda one: one.receive(REPLACED), State.GONE, [REPLACED]),
        (WAITING, lambda one: one.receive(None), State.WAITING, [None]),
        (HELD, lambda one: one.requests.happened_to_all(Event.SILENCE, NOW), State.HELD, []),
        (HELD, lambda one: one.requests.release("r", NOW, "k"), State.RELEASING, []),
        (
            RELEASING,
            lambda one: one.requests.happened(one.noted, Event.RELEASED, NOW),
            State.GONE,
            [],
        ),
        (
            RELEASING,
            lambda one: one.requests.happened(one.noted, Event.CALLER_GONE, NOW),
            State.RELEASING,
            [],
        ),
    ],
)
def test_an_exception_amid_an_event_that_comes_once_more(
    before: list[Act], act: Act, state: State, told: list[Answer | Loss | None]
) -> None:
    """At each of its lines, the request is then where it would be, and its listener is notified."""

    def trial(thrower: Thrower) -> None:
        one = OneRequest()
        for each in before:
            each(one)
        one.note()
        with suppress(Thrown), thrower.tracing():
            act(one)
        if thrower.has_thrown:
            act(one)
        assert list(dict.fromkeys(one.told())) == told
        found = [*one.requests.entries.values(), *one.requests.releasing.values()]
        assert found == ([] if state is State.GONE else [one.noted])
        assert bool(one.requests.releasing) == (state is State.RELEASING)
        assert not found or one.noted.state is state

    assert sweep(trial) > 3


@pytest.mark.parametrize(
    ("before", "act"),
    [
        ([], OneRequest.ask),
        (WAITING, OneRequest.ask),
        (ASKED, OneRequest.hold),
        (ASKED, lambda one: one.answer(QUEUED)),
        (ASKED, lambda one: one.answer(REPLACED)),
        ([*ASKED, OneRequest.lose], OneRequest.hold),
    ],
)
def test_a_caller_that_gives_up_with_an_exception_leaves_a_release(
    before: list[Act], act: Act
) -> None:
    """L4, L5: at each line of what it does to the books."""

    def trial(thrower: Thrower) -> None:
        one = OneRequest()
        for each in before:
            each(one)
        with suppress(Thrown), thrower.tracing():
            act(one)
        one.requests.release("r", NOW, "k")
        assert not one.requests.entries
        assert [each.request.id for each in one.requests.releases_due(NOW)] == ["r"]

    assert sweep(trial) > 3
