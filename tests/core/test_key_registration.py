"""Types that define their own key: `__limit_key__`, and `register_key_type`."""

from __future__ import annotations

import datetime
import enum
import pathlib
import sys
import threading
import uuid
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

import limiter_core
from limiter_core import (
    ConfigurationError,
    KeyDerivationError,
    register_key_type,
)

from ._key_values import (
    Nameless,
    Printable,
    apart,
    key,
    same,
)

# -- what says its key itself ----------------------------------------------------------------------


class Customer:
    def __init__(self, name: Any) -> None:
        self.name = name

    def __limit_key__(self) -> str:
        return self.name


class BigCustomer(Customer):
    pass


class Renamed(BaseModel):
    id: str

    def __limit_key__(self) -> str:
        return f"model {self.id}"


class OwnText(str):
    __slots__ = ()

    def __limit_key__(self) -> str:
        return self.lower()


def test_an_object_may_say_its_key_itself():
    assert same(Customer("a b"), BigCustomer("a b"), "a b")
    assert same([Customer("a")], ["a"])
    assert same({Customer("a"): 1}, {"a": 1})
    assert same(Renamed(id="7"), "model 7")
    assert same(OwnText("A"), "a")
    assert apart(Customer("a"), Customer("b"))


@pytest.mark.parametrize("wrong", [7, None, b"a", ["a"]])
def test_what_an_object_says_of_itself_has_to_be_text(wrong):
    with pytest.raises(KeyDerivationError, match=r"the __limit_key__\(\) of .* has to be text"):
        key(Customer(wrong))


def test_text_for_people_is_no_key_of_an_object():
    with pytest.raises(KeyDerivationError, match="text for people"):
        key(Customer(repr(Nameless())))


@pytest.fixture
def fresh() -> type:
    """A class that nobody has registered."""

    class ObjectId:
        def __init__(self, text: str) -> None:
            self.text = text

        def __str__(self) -> str:
            return self.text

    return ObjectId


def test_a_registered_type_goes_by_the_text_that_was_registered(fresh):
    with pytest.raises(KeyDerivationError):
        key(fresh("a"))
    register_key_type(fresh, str)
    assert same(fresh("a"), "a")
    assert same([{fresh("a"): fresh("b")}], [{"a": "b"}])
    assert apart(fresh("a"), fresh("b"))
    assert limiter_core.register_key_type is register_key_type


def test_a_subclass_goes_by_the_nearest_class_that_says_something(fresh):
    class Child(fresh):
        pass

    class Own(fresh):
        def __limit_key__(self) -> str:
            return "own"

    class Registered(Own):
        pass

    register_key_type(fresh, lambda value: f"base {value}")
    register_key_type(Registered, lambda value: f"registered {value}")
    assert same(Child("a"), "base a")
    assert same(Own("a"), "own")
    assert same(Registered("a"), "registered a")


def test_a_subclass_of_a_built_in_type_may_be_registered():
    class Exact(datetime.timedelta):
        def __str__(self) -> str:
            return "exact"

    register_key_type(Exact, lambda value: f"exactly {value.total_seconds()}")
    assert same(Exact(seconds=1), "exactly 1.0")
    assert same(datetime.timedelta(seconds=1), "0:00:01")


def test_to_register_the_same_again_changes_nothing(fresh):
    def defined_again() -> Any:
        def text(value: Any) -> str:
            return value.text

        return text

    register_key_type(fresh, defined_again())
    register_key_type(fresh, defined_again())
    assert same(fresh("a"), "a")
    with pytest.raises(ConfigurationError, match="would change their keys"):
        register_key_type(fresh, str)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("Customer", str, "needs a class, got 'Customer'"),
        (Nameless(), str, "needs a class"),
        (list[int], str, "needs a class"),
        (Nameless, "id", "needs a function"),
        (Nameless, None, "needs a function"),
        (Nameless, str, "has its address in it"),
        (Nameless, repr, "has its address in it"),
        (Printable, repr, "has its address in it"),
        *[
            (kind, lambda value: "x", f"the key text of a {kind.__name__} is fixed")
            for kind in (
                object, type, bool, type(None), str, int, float, uuid.UUID, dict, list, set,
                enum.Enum, BaseModel, SecretStr, datetime.datetime, pathlib.PurePath,
            )
        ],
    ],
)  # fmt: skip
def test_a_wrong_registration_is_refused(kind, text, message):
    with pytest.raises(ConfigurationError) as refusal:
        register_key_type(kind, text)
    assert message in str(refusal.value)


def test_a_registered_function_that_returns_no_text_is_told(fresh):
    register_key_type(fresh, lambda value: 7)
    with pytest.raises(KeyDerivationError, match="the text registered for argument 'value' has to"):
        key(fresh("a"))


def test_what_says_a_key_may_raise(fresh):
    def broken(value: object) -> str:
        raise LookupError("no such customer")

    register_key_type(fresh, broken)
    with pytest.raises(LookupError, match="no such customer"):
        key(fresh("a"))


def test_types_may_be_registered_while_keys_are_made():
    kinds = [type(f"Kind{number}", (), {}) for number in range(200)]
    failed: list[BaseException] = []
    started = threading.Barrier(4)

    def register(mine: list[type]) -> None:
        started.wait(10)
        try:
            for kind in mine:
                register_key_type(kind, lambda value: type(value).__name__)
                assert same(kind(), kind.__name__)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=register, args=(kinds[place::4],)) for place in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not failed
    assert all(same(kind(), kind.__name__) for kind in kinds)
