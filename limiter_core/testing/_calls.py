"""Calls at random, for the stateful machine."""

from __future__ import annotations

from hypothesis import strategies as st

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Mode, Presence, Request
from limiter_core.tracing import labelled

KEYS = ("model/a", "model/b", "model/c")

NAMES = ("one", "other")
"""Names of limits."""

LISTENED_LEASE = 1_000_000.0
"""The lease of calls with a listener. No run outlives it: whether the process behind a listener
lives is not simulated."""

# Strategies are made once: making them costs more than drawing from them.

_KEYS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
_MODES = st.sampled_from((*[Mode.WAIT] * 6, Mode.TRY, Mode.RECLAIM))
_CALLERS = st.sampled_from(("a process", "a listener", "a job", "a job"))
PRESENCES = tuple(
    Presence(name, worker) for name in ("queue:x", "queue:y") for worker in ("one", "two")
)
"""The workers of job queues."""

_WORKERS = st.sampled_from((None, None, *PRESENCES, PRESENCES[0]._replace(leaving=True)))
_LEASES = st.sampled_from((30.1, 10.1))
_LABELS = st.sampled_from(("", "host:1", labelled("host:2", "trace-2"), labelled("", "trace-3")))
_MAX_HOLDS = st.sampled_from((None, None, None, 15.7))
_ORDERS = st.sampled_from((None, None, -60_000_000, -30_000_000))
_DEMANDS = {
    key: st.builds(
        Demand,
        st.just(key),
        limit=st.sampled_from((2, 2, 2, 2, 1, 3, 4, 0)),
        cost=st.sampled_from((1, 1, 1, 1, 2, 3)),
        on_conflict=st.sampled_from(ConflictResolution),
        priority=st.sampled_from((0, 0, 1, -1)),
        group=st.sampled_from((None, None, "x", "y")),
        max_waiting=st.sampled_from((None, None, None, None, 0, 1, 2)),
        name=st.sampled_from(("", *NAMES)),
    )
    for key in KEYS
}


@st.composite
def calls(draw: st.DrawFn) -> Request:
    """Draw a call that has no id yet; its order, if it has one, counts from now.

    No time in it is one that the machine lets pass: whether the last moment of a lease is still
    part of it is left open.
    """
    caller = draw(_CALLERS)
    listens = caller == "a listener"
    return Request(
        id="",
        demands=tuple(draw(_DEMANDS[key]) for key in draw(_KEYS)),
        lease=LISTENED_LEASE if listens else draw(_LEASES),
        mode=draw(_MODES),
        max_hold=draw(_MAX_HOLDS),
        claim=LISTENED_LEASE if listens else 3.3,
        order=draw(_ORDERS),
        payload=b"job" if caller == "a job" else None,
        claimant="worker-1",
        label=draw(_LABELS),
        presence=draw(_WORKERS) if caller == "a job" else None,
    )
