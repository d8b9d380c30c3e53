"""What stands for a value in a key: plain text, a number, a constant of Python, or JSON.

The types are a closed list, whose text is whole (values that differ print differently) and stable
(the same in every process). All others have to say what identifies them: text made for people may
be masked, shortened, or have an address in it. `plain` is the one function for a value, wherever
it stands: at the top, or inside a list, a dict or a model.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import ipaddress
import json
import numbers
import operator
import pathlib
import re
import threading
import types
import uuid
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr

from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError, KeyDerivationError

__all__ = ("Json", "Plain", "checked_text", "json_text", "number_text", "plain")

T = TypeVar("T")


class Json(NamedTuple):
    """Canonical JSON, or the digest of a secret: neither text nor a number."""

    text: str


Plain = str | int | float | None | Json
"""What stands for a value. (True and False are ints, and stay themselves.)"""

_DIGEST_BYTES = 16
_FOR_PEOPLE = re.compile(r"\*{10}| at 0x[0-9a-fA-F]+>")
"""A masked secret, and the address in the text of an object."""

_registered: dict[type, Callable[[Any], str]] = {}
_registering = threading.Lock()


def register_key_type(kind: type[T], text: Callable[[T], str]) -> None:
    """Say what identifies the values of a class that is not yours to change::

        register_key_type(ObjectId, str)

    Counts for the whole process, wherever such a value stands, and for subclasses (by inheritance),
    unless one is registered itself or has a `__limit_key__`. Call it where the program starts, in
    every process, since it decides about keys. Safe in any thread; doing it again changes nothing.

    Args:
        kind: a class.
        text: takes a value and returns what identifies it: text that is the same for equal values
            and in every process, and different for all others.

    Raises:
        ConfigurationError: `kind` is no class, or one whose rule is fixed (built-in types and the
            others of the list in docs/reference/keys.md); `text` is no function, or prints an
            address; or the class was registered with another function before.
    """
    given: Any = kind
    function: Any = text
    if not isinstance(given, type):
        raise ConfigurationError(f"register_key_type() needs a class, got {brief(given)}")
    if given in _RULES or given in (object, type, bool, type(None)):
        raise ConfigurationError(
            f"the key text of a {given.__qualname__} is fixed; "
            "register a subclass of it, or limit by LIMIT_BY.fn(...)"
        )
    if not callable(function):
        raise ConfigurationError(
            f"register_key_type() needs a function that returns the text of a "
            f"{given.__qualname__}, got {brief(function)}"
        )
    if function in (str, repr) and _has_default_text(given, function):
        raise ConfigurationError(
            f"{function.__name__}() of a {given.__qualname__} has its address in it, which changes "
            "from run to run: give a function that returns what identifies it"
        )
    with _registering:
        before = _registered.get(given, function)
        if _origin(before) != _origin(function):
            raise ConfigurationError(
                f"{given.__qualname__} is registered with {brief(before)}; with "
                f"{brief(function)} its values would change their keys"
            )
        _registered[given] = text


def plain(value: object, where: str) -> Plain:
    """Return what stands for a value.

    Args:
        value: what a strategy found.
        where: what the value is, for the message ("argument 'customer_id'").

    Raises:
        KeyDerivationError: its type is none of the list, and does not say what identifies it.
        RecursionError: it contains itself.
    """
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return cast("str | int | None", value)
    # The most derived class decides. By inheritance, and not by `isinstance`: a proxy claims to be
    # what it stands for, but has nothing of it.
    for cls in kind.__mro__:
        rule = _RULES.get(cls)
        if rule is not None:
            return rule(value, where)
        if cls in _registered:
            return checked_text(_registered[cls](value), f"the text registered for {where}")
        if "__limit_key__" in cls.__dict__:
            return checked_text(
                cast(Any, kind).__limit_key__(value), f"the __limit_key__() of {where}"
            )
        if "__dataclass_fields__" in cls.__dict__:
            fields, unset = dataclasses.fields(cast(Any, value)), dataclasses.MISSING
            return _object(((f.name, getattr(value, f.name, unset)) for f in fields), where)
    if issubclass(kind, numbers.Integral):  # another library's: numpy's, for one
        try:
            return operator.index(cast(Any, value))
        except TypeError:  # with a unit, as numpy's timedelta64
            pass
    raise KeyDerivationError(
        f"{where} is a {_full_name(kind)}, which cannot stand in a key, as no text is sure to "
        "identify it. Give the class a __limit_key__() that returns text, or call "
        f"limiter_core.register_key_type({kind.__qualname__}, function_that_returns_text), or "
        'limit by a plain value inside of it: a dotted path ("order.id"), or LIMIT_BY.fn'
    )


def checked_text(text: object, what: str) -> str:
    """Return the text of a user's function, if it can identify anything.

    Raises:
        KeyDerivationError: it is no text, or text for people: masked, or with an address in it.
    """
    if not isinstance(text, str):
        raise KeyDerivationError(f"{what} has to be text (str), got a {type(text).__qualname__}")
    # Both are rare, and quicker to rule out than to find.
    if ("**********" in text or " at 0x" in text) and _FOR_PEOPLE.search(text):
        raise KeyDerivationError(
            f"{what} is text for people, as it hides a secret or has an address in it: it would "
            "put all calls on one key, or each on its own. Return what identifies the value"
        )
    return str.__str__(text)


def number_text(value: float, where: str) -> str:
    """Return the digits of a number.

    Raises:
        KeyDerivationError: there are thousands of them.
    """
    try:
        return repr(value)
    except ValueError:  # Python prints no more than some thousands of digits
        raise KeyDerivationError(f"{where} is a number too large to print") from None


def json_text(found: Plain, where: str) -> str:
    """Return what stands for a value, as JSON. Sets, which JSON lacks, are ``set[...]``."""
    if isinstance(found, str):
        # Not with escapes: they make one of a character and its two halves.
        return json.dumps(found, ensure_ascii=False)
    if isinstance(found, Json):
        return found.text
    if found is None or isinstance(found, bool):
        return json.dumps(found)
    return number_text(found, where)


# -- one rule for each type of the list ------------------------------------------------------------

_Rule = Callable[[Any, str], Plain]


def _by_value(to_plain: Callable[[Any], Plain]) -> _Rule:
    """Return the rule of a type whose value is all that there is to it, also to a subclass."""
    return lambda value, where: to_plain(value)  # noqa: ARG005


def _by_text(base: type, to_text: Callable[[Any], str]) -> _Rule:
    """Return the rule of a type that prints itself; a subclass may print, and be, more."""
    iso = getattr(base, "isoformat", None)

    def rule(value: Any, where: str) -> Plain:
        kind: Any = cast(Any, type(value))
        own = kind.__str__ is not base.__str__ or getattr(kind, "isoformat", None) is not iso
        if own and not isinstance(value, enum.Enum):
            raise KeyDerivationError(
                f"{where} is a {_full_name(kind)}, a {base.__qualname__} that prints itself in "
                "another way, so it cannot stand in a key unless you say what identifies it: "
                f"limiter_core.register_key_type({kind.__qualname__}, function_that_returns_text)"
            )
        if isinstance(value, datetime.datetime | datetime.time):
            if value.tzinfo is not None and value.utcoffset() is None:
                raise KeyDerivationError(
                    f"{where} is a {kind.__qualname__} in a time zone that its text does not show, "
                    "since the offset depends on the day"
                )
        try:
            return to_text(value)
        except ValueError:  # a fraction of thousands of digits
            raise KeyDerivationError(f"{where} is a number too large to print") from None

    return rule


def _array(items_of: Callable[[Any], Iterable[Any]]) -> _Rule:
    def rule(value: Any, where: str) -> Plain:
        inside = _inside(where)
        texts = [json_text(plain(item, inside), inside) for item in items_of(value)]
        return Json("[" + ",".join(texts) + "]")

    return rule


def _set(items_of: Callable[[Any], Iterable[Any]]) -> _Rule:
    def rule(value: Any, where: str) -> Plain:
        inside = _inside(where)
        texts = sorted(json_text(plain(item, inside), inside) for item in items_of(value))
        return Json("set[" + ",".join(texts) + "]")

    return rule


def _dict(value: Any, where: str) -> Json:
    # What is stored: a subclass may show less of it (of the values of a multi-dict the first).
    stored: Iterable[tuple[Any, Any]] = dict[Any, Any].items(value)
    return _object(stored, where)


def _mapping_proxy(value: Any, where: str) -> Json:
    return _object(value.items(), where)


def _model(value: BaseModel, where: str) -> Json:
    fields = {name: getattr(value, name, dataclasses.MISSING) for name in type(value).model_fields}
    return _object({**fields, **(value.model_extra or {})}.items(), where)


def _root_model(value: RootModel[Any], where: str) -> Plain:
    return plain(value.root, where)


def _object(members: Iterable[tuple[Any, Any]], where: str) -> Json:
    inside = _inside(where)
    texts: dict[str, str] = {}
    for key, value in members:
        if value is dataclasses.MISSING:
            raise KeyDerivationError(f"the field {key!r} of {where} is not set, so it has no text")
        name = _member_name(key, where)
        if name in texts:
            raise KeyDerivationError(f"{where} has two dict keys that print the same")
        texts[name] = json_text(plain(value, inside), inside)
    return Json("{" + ",".join(f"{name}:{texts[name]}" for name in sorted(texts)) + "}")


def _member_name(key: object, where: str) -> str:
    found = plain(key, f"a dict key in {where}")
    if found is None or isinstance(found, bool | Json):
        raise KeyDerivationError(
            f"{where} has a dict key that is a {type(key).__qualname__}; "
            "dict keys in a limit's key must be text or numbers"
        )
    return json_text(found if isinstance(found, str) else number_text(found, where), where)


def _secret(value: Any, where: str) -> Json:
    hidden = json_text(plain(value.get_secret_value(), where), where)
    digest = hashlib.blake2b(
        hidden.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, person=b"limiter secret"
    )
    return Json(f"secret:{digest.hexdigest()}")


def _inside(where: str) -> str:
    return where if where.startswith("something in ") else f"something in {where}"


_RULES: dict[type, _Rule] = {
    # An enum's member that is also one of these goes by it, as its class is the more derived one.
    str: _by_value(str.__str__),
    int: _by_value(int.__int__),
    float: _by_value(float.__float__),
    bytes: _by_value(bytes.__repr__),
    uuid.UUID: _by_value(uuid.UUID.__str__),
    decimal.Decimal: _by_text(decimal.Decimal, decimal.Context(capitals=1).to_sci_string),
    **{
        kind: _by_text(kind, kind.__str__)
        for kind in (
            fractions.Fraction,
            datetime.datetime,
            datetime.date,
            datetime.time,
            datetime.timedelta,
            pathlib.PurePath,
            ipaddress.IPv4Address,
            ipaddress.IPv6Address,
            ipaddress.IPv4Interface,
            ipaddress.IPv6Interface,
            ipaddress.IPv4Network,
            ipaddress.IPv6Network,
            range,
        )
    },
    list: _array(list[Any].__iter__),
    tuple: _array(tuple[Any, ...].__iter__),
    dict: _dict,
    types.MappingProxyType: _mapping_proxy,
    set: _set(set[Any].__iter__),
    frozenset: _set(frozenset[Any].__iter__),
    BaseModel: _model,
    RootModel: _root_model,
    SecretStr: _secret,
    SecretBytes: _secret,
    Secret: _secret,
    enum.Flag: _by_value(enum.Flag.__str__),
    enum.Enum: _by_value(enum.Enum.__str__),
}


def _full_name(kind: type) -> str:
    within = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{within}{kind.__qualname__}"


def _has_default_text(kind: Any, function: object) -> bool:
    return kind.__repr__ is object.__repr__ and (function is repr or kind.__str__ is object.__str__)


def _origin(function: Any) -> object:
    """Return what two definitions of one function, before and after a reload, have in common."""
    name = getattr(function, "__qualname__", None)
    return function if name is None else (function.__module__, name)
