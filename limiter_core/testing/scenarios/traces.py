"""S21: a waiter that carries a trace gets that of the holder; the label is shown without it."""

from __future__ import annotations

from limiter_core.requests import Demand, Mode
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.scenarios._jobs import DURABLE, job_of
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest
from limiter_core.tracing import labelled

OURS = labelled("host:1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
THEIRS = labelled("host 2 %", "00-11111111111111111111111111111111-2222222222222222-00")


@scenario("S21")
def a_waiter_with_a_trace_gets_that_of_the_holder(store: StoreUnderTest) -> Steps[None]:
    """When it asks again and when it looks, too; of a holder that has none, the label."""
    yield from store.take(store.request(id="holder", label=THEIRS))
    waiter = store.request(id="waiter", label=OURS)
    assert (yield from store.wait(waiter)).blocker == THEIRS
    assert (yield from store.wait(waiter)).blocker == THEIRS
    assert (yield from store.wait(waiter._replace(mode=Mode.LOOK))).blocker == THEIRS
    yield from store.take(store.request(Demand(OTHER_KEY, 1), label="host:3"))
    queued = yield from store.wait(store.request(Demand(OTHER_KEY, 1), label=OURS))
    assert queued.blocker == "host:3"


@scenario("S21")
def a_waiter_without_a_trace_gets_none(store: StoreUnderTest) -> Steps[None]:
    """Its request says that no trace is wanted."""
    yield from store.take(store.request(label=THEIRS))
    assert (yield from store.wait(store.request(label="host:1"))).blocker == ""


@scenario("S21")
def the_blocker_is_the_oldest_holder_of_the_key(store: StoreUnderTest) -> Steps[None]:
    """Also after the first one left, and whichever lease ends first."""
    for number, lease in enumerate((60, 20, 40)):
        label = labelled(f"host:{number}", "trace")
        yield from store.take(
            store.request(Demand(KEY, 3), id=f"{number}", lease=lease, label=label)
        )
    waiters = [store.request(Demand(KEY, 3), label=OURS) for _ in range(3)]
    assert (yield from store.wait(waiters[0])).blocker == labelled("host:0", "trace")
    yield from store.release("0")
    yield from store.take(waiters[0])
    assert (yield from store.wait(waiters[1])).blocker == labelled("host:1", "trace")
    yield from store.release("1")
    yield from store.take(waiters[1])
    assert (yield from store.wait(waiters[2])).blocker == labelled("host:2", "trace")


@scenario("S21", "S12", "S9")
def without_a_holder_there_is_no_blocker(store: StoreUnderTest) -> Steps[None]:
    """The key is paused; and of several keys that counts on which the call waits."""
    yield from store.pause()
    yield from store.take(store.request(Demand(OTHER_KEY, 2), label=THEIRS))
    both = store.request(Demand(OTHER_KEY, 2), Demand(KEY, 1), label=OURS)
    queued = yield from store.wait(both)
    assert (queued.key, queued.blocker) == (KEY, "")


@scenario("S21")
def a_trace_is_no_part_of_the_label_that_is_shown(store: StoreUnderTest) -> Steps[None]:
    """`inspect` shows it beside the label, of holders and waiters, and after a hand-over."""
    yield from store.take(store.request(id="holder", label=THEIRS))
    waiter = store.request(id="waiter", label=OURS)
    yield from store.wait(waiter)
    snapshot = yield from store.inspect()
    [holder], [waiting] = snapshot.holders, snapshot.waiters
    assert labelled(holder.label, holder.trace) == THEIRS
    assert (waiting.label, waiting.trace) == ("host:1", OURS.removeprefix("host:1\x1f"))
    yield from store.release("holder")
    yield from store.take(waiter)
    [holder] = (yield from store.inspect()).holders
    assert (holder.label, labelled("host:1", holder.trace)) == ("host:1", OURS)


@scenario("S21", "S17", needs=DURABLE)
def a_job_with_a_trace_gets_that_of_the_holder(store: StoreUnderTest) -> Steps[None]:
    """As a call does."""
    yield from store.take(store.request(id="holder", label=THEIRS))
    job = job_of(store, "job")._replace(label=OURS)
    assert (yield from store.wait(job)).blocker == THEIRS
