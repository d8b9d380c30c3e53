"""S20: the name of a key's limit, which `inspect` shows to processes that do not have the code."""

from __future__ import annotations

from limiter_core.limits import ConflictResolution
from limiter_core.requests import Demand, Mode
from limiter_core.testing.scenario_runner import scenario
from limiter_core.testing.store_under_test import KEY, OTHER_KEY, Steps, StoreUnderTest

NAMED = Demand(KEY, 1, name="billing")


def _name(store: StoreUnderTest, key: str = KEY) -> Steps[str]:
    return (yield from store.inspect(key)).name


@scenario("S20")
def inspect_shows_the_name_of_a_holder_s_limit(store: StoreUnderTest) -> Steps[None]:
    """Of a single holder, after a renewal, too; and any printable text."""
    yield from store.take(store.request(NAMED, id="holder"))
    assert (yield from _name(store)) == "billing"
    yield from store.renew("holder")
    assert (yield from _name(store)) == "billing"
    yield from store.take(store.request(Demand(OTHER_KEY, 1, name="région, 50 %|-")))
    assert (yield from _name(store, OTHER_KEY)) == "région, 50 %|-"


@scenario("S20")
def inspect_shows_the_name_while_calls_wait(store: StoreUnderTest) -> Steps[None]:
    """And after the slot was handed over."""
    yield from store.take(store.request(NAMED, id="holder"))
    waiter = store.request(NAMED, id="waiter")
    yield from store.wait(waiter)
    assert (yield from _name(store)) == "billing"
    yield from store.release("holder")
    yield from store.take(waiter)
    assert (yield from _name(store)) == "billing"


@scenario("S20", "S12", "S14")
def a_name_is_kept_as_long_as_its_key(store: StoreUnderTest) -> Steps[None]:
    """While only an override or a pause keeps the key, too; then it is forgotten."""
    yield from store.take(store.request(NAMED, id="holder"))
    yield from store.set_limit(3)
    yield from store.release("holder")
    assert (yield from _name(store)) == "billing"
    yield from store.pause()
    yield from store.reset_limit()
    assert (yield from _name(store)) == "billing"
    yield from store.resume()
    assert (yield from _name(store)) == ""
    yield from store.set_limit(3)
    assert (yield from _name(store)) == ""


@scenario("S20", "S2", "S12")
def a_name_ends_with_the_last_lease(store: StoreUnderTest) -> Steps[None]:
    """Each step first drops what ended: an override that comes later has no name."""
    yield from store.take(store.request(NAMED, id="ended", lease=10))
    store.clock.advance(11)
    yield from store.set_limit(3)
    assert (yield from _name(store)) == ""


@scenario("S20")
def of_two_names_the_last_call_that_came_has_the_right_one(store: StoreUnderTest) -> Steps[None]:
    """Admitted or queued; not refused, not repeated, and not without a name."""
    yield from store.take(store.request(Demand(KEY, 2, name="first"), id="first"))
    yield from store.take(store.request(Demand(KEY, 2, name="second")))
    assert (yield from _name(store)) == "second"
    third = store.request(Demand(KEY, 2, name="third"), id="third")
    yield from store.wait(third)
    assert (yield from _name(store)) == "third"
    cancel = ConflictResolution.CANCEL
    yield from store.be_refused(store.request(Demand(KEY, 2, 1, cancel, name="refused")))
    yield from store.be_refused(store.request(Demand(KEY, 2, name="tried"), mode=Mode.TRY))
    yield from store.take(store.request(Demand(KEY, 2, name="first"), id="first"))
    yield from store.wait(store.request(Demand(KEY, 2)))
    assert (yield from _name(store)) == "third"


@scenario("S20", "S9")
def each_key_of_a_call_has_its_own_name(store: StoreUnderTest) -> Steps[None]:
    """Also the keys in whose queue it does not wait."""
    yield from store.take(store.request(Demand(KEY, 1), id="holder"))
    both = store.request(NAMED, Demand(OTHER_KEY, 1, name="crm"))
    yield from store.wait(both)
    assert (yield from _name(store, OTHER_KEY)) == "crm"
    yield from store.release("holder")
    yield from store.take(both)
    assert ((yield from _name(store)), (yield from _name(store, OTHER_KEY))) == ("billing", "crm")
