"""Orders of events in which something went wrong once, and such as only long searches find."""

from __future__ import annotations

from typing import NamedTuple

from .search import HOLDS, WAITS, Order


class Case(NamedTuple):
    """An order of events.

    Attributes:
        name: what happens.
        consequence: what followed from it when it was found.
        kind: what the callers ask for.
        order: the events.
        ends: what becomes of the callers: the status of each, and the loss that it was told.
    """

    name: str
    consequence: str
    kind: str
    order: Order
    ends: tuple[str, str]


CASES = (
    Case(
        "preempted before the reply with the grant was read",
        "the preemption was dropped: both held for a third of a lease",
        "preempting",
        ("ask 0", "arrive ask 0", "ask 1", "arrive ask 1", "receive preempted 0", "read ask 0"),
        ("gone preempted", "holding"),
    ),
    Case(
        "evicted before the reply with the grant was read",
        "the eviction was dropped: the next one held beside it",
        "one key",
        (
            *("ask 0", "arrive ask 0", "evict 0", "receive evicted 0"),
            *("ask 1", "arrive ask 1", "read ask 1", "read ask 0"),
        ),
        ("gone evicted", "holding"),
    ),
    Case(
        "preempted before the subscription stands",
        "told with the next regular renewal",
        "preempting",
        (*HOLDS, "ask 1", "arrive ask 1", "lose preempted 0", "subscribed"),
        ("gone preempted", "holding"),
    ),
    Case(
        "evicted before the subscription stands",
        "told with the next regular renewal",
        "one key",
        (*HOLDS, "evict 0", "lose evicted 0", "subscribed"),
        ("gone evicted", "idle"),
    ),
    Case(
        "a job's ask is given up, and had arrived",
        "the lease that nobody had was renewed without end",
        "one job",
        ("ask 0", "arrive ask 0", "disconnect ask 0"),
        ("gone", "idle"),
    ),
    Case(
        "a job's ask is cancelled, and arrives later",
        "the lease that nobody had was renewed without end",
        "one job",
        ("ask 0", "leave 0", "arrive ask 0", "renew"),
        ("gone", "idle"),
    ),
    Case(
        "news of a preemption are lost with the reply to another call",
        "only those who waited were looked at: the holder was told with the next regular renewal",
        "preempting",
        (*HOLDS, "ask 1", "arrive ask 1", "lose preempted 0", "disconnect ask 1"),
        ("gone preempted", "holding"),
    ),
    Case(
        "the reply to a release that was sent again is lost, too",
        "the waiter that had the slot received that with its next regular renewal",
        "one key",
        (
            *(*WAITS, "leave 0", "disconnect release 0", "renew"),
            *("arrive release 0 #2", "lose granted 1", "disconnect release 0 #2"),
        ),
        ("gone", "holding"),
    ),
    Case(
        "a second delivery is granted while the first ends",
        "its lease was in no book, and not renewed",
        "one job",
        (
            *(*HOLDS, "ask 1", "leave 0", "arrive release 0"),
            *("arrive ask 1", "read ask 1", "read release 0"),
        ),
        ("gone", "holding"),
    ),
    Case(
        "the store is closed while a call is on its way",
        "its lease was in no book, and not renewed",
        "one key",
        ("ask 0", "arrive ask 0", "close", "read ask 0"),
        ("holding", "idle"),
    ),
    Case(
        "a job's lease is lost before its grant is read",
        "the job ran on, untold",
        "one job",
        ("ask 0", "arrive ask 0", "evict 0", "receive evicted 0", "read ask 0"),
        ("gone evicted", "idle"),
    ),
    Case(
        "a job's lease is lost as soon as its grant is read",
        "the job ran on, untold",
        "one job",
        ("ask 0", "arrive ask 0", "evict 0", "read ask 0", "receive evicted 0"),
        ("gone evicted", "idle"),
    ),
    Case(
        "a job is delivered again while an ask is on its way still",
        "two deliveries had the lease",
        "one job",
        ("ask 0", "delay ask 0", "ask 1", "arrive ask 1", "arrive ask 0", "read ask 1"),
        ("gone", "holding"),
    ),
    Case(
        "two deliveries of a job ask at once",
        "both had the lease",
        "one job",
        ("ask 0", "ask 1", "arrive ask 1", "arrive ask 0", "read ask 0", "read ask 1"),
        ("refused", "holding"),
    ),
    Case(
        "a delivery whose lease is over gives it back in vain, while the next one runs",
        "the lease of the next one was given back, untold",
        "one job",
        (
            *(*HOLDS, "expire 0", "lose expired 0", "ask 1", "arrive ask 1", "read ask 1"),
            "disconnect release 0",
        ),
        ("gone expired", "holding"),
    ),
    Case(
        "the ticket of a caller that gave up is granted",
        "the slot was idle for a lease",
        "one key",
        (
            *(*HOLDS, "ask 1", "leave 1", "arrive ask 1"),
            *("leave 0", "arrive release 0", "arrive release 1"),
        ),
        ("gone", "gone"),
    ),
    Case(
        "a release in the background fails once",
        "the slot was idle for a lease",
        "one key",
        (
            *(*WAITS, "stop 1", "leave 0", "arrive release 0", "receive granted 1"),
            *("renew", "disconnect release 1"),
        ),
        ("gone", "gone"),
    ),
    Case(
        "the store answers a release in the background with an error",
        "it was sent again and again, without a pause",
        "one key",
        (
            *(*WAITS, "stop 1", "leave 0", "arrive release 0", "receive granted 1"),
            *("renew", "fail release 1"),
        ),
        ("gone", "gone"),
    ),
    Case(
        "a lease is collected whose delivery has lost it, unheard, while the next one runs",
        "the lease of the next one was renewed no more",
        "one job",
        (
            *(*HOLDS, "collect 0", "expire 0", "lose expired 0"),
            *("ask 1", "arrive ask 1", "read ask 1", "forget 0"),
        ),
        ("gone", "holding"),
    ),
    Case(
        "a delivery cannot ask, while another runs",
        "the lease of that other one was renewed no more",
        "one job",
        (*HOLDS, "refuse 1"),
        ("holding", "gone"),
    ),
    Case(
        "the time of a lease is over while it is asked for again",
        "nobody had the lease that the store gave",
        "one key",
        (
            *(*HOLDS, "data lost", "renewal time", "arrive renew 0", "read renew 0"),
            *("late", "deadlines", "arrive release 0"),
        ),
        ("gone cut_off", "idle"),
    ),
    Case(
        "a call with a bound on its hold asks twice, and had the slot before",
        "the bound counted from when it asked again",
        "max_hold",
        ("ask 0", "delay ask 0"),
        ("holding", "idle"),
    ),
    Case(
        "a loop ends in the middle of an acquire",
        "the lease that nobody had was renewed without end",
        "one key",
        ("ask 0", "stop 0", "arrive ask 0", "renewal time", "arrive renew 0", "read renew 0"),
        ("gone", "idle"),
    ),
    Case(
        "the reply to a renewal is read after a silence that it does not cover",
        "the waiter that had the slot received that with its next regular renewal",
        "one key",
        (
            *(*WAITS, "renewal time", "arrive renew 1", "leave 0", "arrive release 0"),
            *("lose granted 1", "subscribed", "read renew 1"),
        ),
        ("gone", "holding"),
    ),
    Case(
        "a lease ends without a server after another had ended",
        "the holder was not told at the deadline",
        "two keys",
        (*HOLDS, "leave 0", "ask 1", "arrive ask 1", "read ask 1", "away"),
        ("gone", "gone cut_off"),
    ),
)

RARE: tuple[tuple[str, Order], ...] = (
    (
        "max_hold",
        (
            *(*WAITS, "hint 1", "ask 1", "leave 0", "arrive release 0"),
            *("receive granted 1", "renewal time"),
        ),
    ),
    (
        "one key",
        (
            *(*WAITS, "hint 1", "ask 1", "leave 0", "arrive release 0", "evict 1"),
            *("receive granted 1", "stop 1"),
        ),
    ),
    (
        "one job",
        (
            *("ask 0", "arrive ask 0", "read ask 0", "data lost", "other holds", "subscribed"),
            *("renew", "arrive renew 0", "ask 1", "other leaves", "arrive ask 1", "evict 1"),
        ),
    ),
    (
        "one key",
        (
            *(*WAITS, "hint 1", "ask 1", "leave 0", "arrive release 0"),
            *("receive granted 1", "stop 1"),
        ),
    ),
    (
        "one key",
        (
            *(*WAITS, "hint 1", "wake 1", "leave 0", "arrive release 0"),
            *("receive granted 1", "ask 1"),
        ),
    ),
    (
        "one key",
        (
            *("ask 0", "arrive ask 0", "ask 1", "arrive ask 1", "read ask 1", "hint 1"),
            *("ask 1", "arrive ask 1 #2", "evict 0", "receive granted 1"),
        ),
    ),
    ("one key", ("ask 0", "arrive ask 0", "evict 0", "receive evicted 0")),
    (
        "one key",
        (
            *("other holds", "ask 0", "arrive ask 0", "read ask 0", "hint 0", "ask 0"),
            *("other leaves", "renewal time", "disconnect ask 0 #2", "ask 0"),
            "arrive ask 0 #3",
        ),
    ),
    ("preempting", ("ask 0", "stop 0", "renewal time", "ask 1")),
    ("two keys", ("ask 0", "ask 1", "leave 1", "renewal time", "disconnect release 1")),
    (
        "preempting",
        (
            *("other holds", "ask 0", "arrive ask 0", "read ask 0", "hint 0", "ask 0"),
            *("arrive ask 0 #2", "ask 1", "arrive ask 1", "receive replaced 0"),
        ),
    ),
    (
        "one key",
        (
            *("ask 0", "arrive ask 0", "ask 1", "arrive ask 1", "read ask 1", "hint 1"),
            *("ask 1", "other preempts", "receive replaced 1"),
        ),
    ),
    (
        "one key",
        (
            *("ask 0", "arrive ask 0", "ask 1", "arrive ask 1", "read ask 1", "hint 1"),
            *("ask 1", "leave 0", "arrive release 0", "other preempts"),
            "receive preempted 1",
        ),
    ),
    ("one job", ("ask 0", "arrive ask 0", "other preempts", "receive preempted 0")),
    ("preempting", ("ask 0", "stop 0", "ask 1", "renewal time")),
    (
        "one key",
        (
            *("other holds", "ask 0", "arrive ask 0", "read ask 0", "renewal time"),
            *("close", "ask 0"),
        ),
    ),
    (
        "one key",
        (
            *("other holds", "ask 0", "arrive ask 0", "read ask 0", "hint 0", "ask 0"),
            *("other leaves", "renewal time", "evict 0", "disconnect ask 0 #2", "ask 0"),
        ),
    ),
    ("one key", ("ask 0", "stop 0", "renewal time", "arrive renew 0")),
    (
        "one key",
        (
            *("ask 0", "arrive ask 0", "ask 1", "arrive ask 1", "evict 0"),
            *("renewal time", "other preempts"),
        ),
    ),
    (
        "one key",
        (
            *("ask 0", "arrive ask 0", "ask 1", "arrive ask 1", "evict 0"),
            *("lose granted 1", "other preempts"),
        ),
    ),
)
"""Kinds and orders in which those cells of the table matter that few orders come to."""
