"""The error tree: who is what, what each tells, and that all survive pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

import limiter_core
from limiter_core import (
    ConfigurationError,
    Evicted,
    KeyDerivationError,
    LeaseLost,
    LimiterError,
    LimitReached,
    Preempted,
    QueueFull,
    StoreError,
    StoreUnavailable,
    Superseded,
    WaitTimeout,
)

TREE = {
    LimiterError: (Exception,),
    ConfigurationError: (LimiterError, ValueError),
    KeyDerivationError: (LimiterError, ValueError),
    LimitReached: (LimiterError,),
    WaitTimeout: (LimitReached, TimeoutError),
    QueueFull: (LimitReached,),
    Evicted: (LimitReached,),
    Superseded: (LimiterError,),
    LeaseLost: (LimiterError,),
    Preempted: (LeaseLost,),
    StoreError: (LimiterError,),
    StoreUnavailable: (StoreError, ConnectionError),
}
EXAMPLES = [
    LimiterError("what"),
    ConfigurationError("what"),
    KeyDerivationError("what"),
    LimitReached("customer_id=42", 3, 2),
    LimitReached("customer_id=42", 3, 2, 1.5),
    WaitTimeout("customer_id=42", 3, 3),
    WaitTimeout("customer_id=42", 3, 3, 1.5),
    QueueFull("customer_id=42", 3, 3, 1.5),
    Evicted("customer_id=42", 3, 3),
    Evicted("key:eu", 3, 3, None, "billing"),
    LimitReached("key:eu", 3, 2, None, "billing"),
    LimitReached("key:eu", 3, 2, 1.5, "billing", ("key:eu", "crm")),
    WaitTimeout("key:eu", 3, 3, None, "billing"),
    QueueFull("key:eu", 3, 3, 1.5, "billing"),
    Superseded("customer_id=42"),
    Superseded("key:eu", "billing"),
    LeaseLost("id-1", ("a", "b"), "it was evicted"),
    Preempted("id-1", ("a", "b"), "a newer call took the slot"),
    StoreError("what"),
    StoreUnavailable("what"),
    StoreUnavailable(111, "connection refused"),
]


@pytest.mark.parametrize(("kind", "bases"), TREE.items(), ids=lambda item: str(item)[:60])
def test_every_error_is_what_a_caller_would_look_for(kind, bases):
    assert issubclass(kind, bases[0])
    assert all(issubclass(kind, base) for base in bases)


def test_the_tree_is_complete():
    exported = {
        value
        for value in vars(limiter_core).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert exported == set(TREE)
    assert {type(example) for example in EXAMPLES} == set(TREE)


def test_misuse_and_a_failing_store_never_share_a_class():
    ours = set(TREE) - {LimiterError}
    for misuse in (ConfigurationError, KeyDerivationError):
        for failure in (StoreError, StoreUnavailable):
            shared = {
                kind for kind in ours if issubclass(misuse, kind) and issubclass(failure, kind)
            }
            assert shared == set()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
def test_an_error_survives_pickling(error, protocol):
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
def test_an_error_survives_copying(error):
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)


def test_limit_reached_tells_where_and_how_full():
    error = LimitReached("customer_id=42", 3, 2, 1.5)
    told = (error.key, error.max_concurrent, error.in_use, error.retry_after)
    assert told == ("customer_id=42", 3, 2, 1.5)
    assert str(error) == "'customer_id=42' is full: 2 of 3 slots in use"


@pytest.mark.parametrize("kind", [LimitReached, WaitTimeout, QueueFull])
def test_a_refusal_names_the_limit_where_the_key_does_not(kind):
    error = kind("key:eu", 3, 3, None, "shop.bill")
    assert error.name == "shop.bill"
    assert "'key:eu' (shop.bill)" in str(error)
    for key, name in (("a=1", "a"), ("s/a=1,b=2&crm", "a,b&crm"), ("shop.bill()", "shop.bill")):
        assert f"{key!r} (" not in str(kind(key, 3, 3, None, name))


def test_a_wait_timeout_says_so():
    error = WaitTimeout("customer_id=42", 3, 3)
    assert str(error) == "timed out waiting for 'customer_id=42': 3 of 3 slots in use"
    assert error.retry_after is None


@pytest.mark.parametrize("kind", [LimitReached, WaitTimeout, QueueFull])
def test_a_refusal_at_a_paused_key_says_that_it_is_paused(kind):
    told = str(kind("a", 0, 1))
    assert "it is paused (its limit is 0), 1 slot in use" in told
    assert "of 0" not in told


def test_queue_full_says_so():
    assert "the queue of 'a' is full" in str(QueueFull("a", 1, 1))


def test_a_lost_lease_tells_which_and_why():
    error = LeaseLost("id-1", ["a", "b"], "it was evicted")
    assert (error.lease_id, error.keys, error.reason) == ("id-1", ("a", "b"), "it was evicted")
    assert str(error) == "lost the lease on 'a', 'b': it was evicted"


def test_a_superseded_call_tells_by_whom():
    assert Superseded("a").key == "a"
    assert "'a'" in str(Superseded("a"))
    assert "'key:a' (billing)" in str(Superseded("key:a", "billing"))
    assert Superseded("key:a", "billing").name == "billing"


def test_a_store_error_keeps_its_cause():
    driver = OSError("refused")
    with pytest.raises(ConnectionError) as caught:
        raise StoreUnavailable("the store is away") from driver
    assert caught.value.__cause__ is driver
    assert str(caught.value) == "the store is away"
