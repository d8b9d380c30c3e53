"""From values to the text of a key: readable, injective, bounded. Pure functions.

The grammar, whole::

    key    = [ scope "/" ] part *( "&" part )          at most MAX_KEY_LENGTH characters after "/"
    part   = argument *( "," argument )                LIMIT_BY.fn_argument
           | name "()"                                 LIMIT_BY.fn_name
           | name                                      LIMIT_BY.constant
           | "key:" value                              LIMIT_BY.fn and custom strategies
    argument = name "=" value

Every character of a user's text that means something here (and every one outside ASCII) is
percent-encoded, so two different tuples of values never meet in one key. A value that is not
plain text starts with ``!``, which text never does: ``!None`` is not ``"None"``. A longer key is
cut, and ``#`` and a digest of the whole take the place of its tail.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import json
import pathlib
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast
from urllib.parse import quote

from pydantic import BaseModel

from limiter_core.errors import KeyDerivationError

__all__ = (
    "MAX_KEY_LENGTH",
    "MAX_WHOLE_LENGTH",
    "bounded",
    "name_text",
    "scoped",
    "split_scope",
    "value_text",
)

MAX_KEY_LENGTH = 200
MAX_WHOLE_LENGTH = 2 * MAX_KEY_LENGTH + 1  # with a scope, and what separates it
"""Characters of a key behind its scope, and of a scope; well within any store."""

_DIGEST_BYTES = 16
_PRINTED = (
    int,
    float,
    str,
    bytes,
    uuid.UUID,
    decimal.Decimal,
    enum.Enum,
    pathlib.PurePath,
    datetime.date,
    datetime.time,
    datetime.timedelta,
)


def name_text(name: str) -> str:
    """Encode a name: of an argument, a function, a constant or a scope."""
    if name.isidentifier() and name.isascii():
        return name
    return _quoted(name, safe="@+")


def value_text(value: object, *, where: str) -> str:
    """Encode a value so that equal text means "prints the same".

    `42` and `"42"`, a `UUID` and its text share a key; `None` and `"None"`, `True` and `"True"`
    do not. Containers, dataclasses and pydantic models become canonical JSON.

    Args:
        value: what a strategy found.
        where: what the value is, for the error message ("argument 'customer_id'").

    Raises:
        KeyDerivationError: the value has no stable text: a function, an object with the default
            `repr`, a container that contains itself.
    """
    if type(value) is str:
        return _text(value)
    if type(value) is int:
        return _digits(value, where)
    if value is None or type(value) is bool:
        return f"!{value}"
    if isinstance(value, _PRINTED):
        return _text(str(value))
    if _is_composite(value):
        try:
            return "!" + _quoted(_canonical_json(value, where), safe=":@+")
        except RecursionError:
            raise KeyDerivationError(f"{where} contains itself, so it has no text") from None
    return _text(_printed(value, where))


def bounded(text: str) -> str:
    """Return `text`, its tail replaced by a digest when it is longer than `MAX_KEY_LENGTH`."""
    if len(text) <= MAX_KEY_LENGTH:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{text[: MAX_KEY_LENGTH - len(digest) - 1]}#{digest}"


def scoped(scope: str | None, text: str) -> str:
    """Return the whole key: the encoded scope, if any, and the text behind it, both bounded."""
    return bounded(text) if scope is None else f"{bounded(name_text(scope))}/{bounded(text)}"


def split_scope(key: str) -> tuple[str | None, str]:
    """Split a key into its (still encoded) scope, None without one, and the rest."""
    scope, slash, rest = key.partition("/")
    return (scope, rest) if slash else (None, key)


def _digits(value: int, where: str) -> str:
    try:
        return str(value)
    except ValueError:  # Python prints no more than some thousands of digits
        raise KeyDerivationError(f"{where} is a number too large to print") from None


def _text(value: str) -> str:
    if value.isalnum() and value.isascii():
        return value
    return _quoted(value, safe=":@+")


def _quoted(text: str, *, safe: str) -> str:
    # Lone surrogates are not text, but they are values: they must not raise, nor meet.
    return quote(text.encode("utf-8", "surrogatepass"), safe=safe)


def _is_composite(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple | AbstractSet | BaseModel) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def _printed(value: object, where: str) -> str:
    kind = type(value)
    default_repr = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    if not default_repr and not callable(value):
        text = str(value)
        if f"{id(value):x}" not in text.lower():
            return text
    raise KeyDerivationError(
        f"{where} is a {kind.__qualname__}, whose text changes from run to run: it cannot stand "
        "in a key. Name one of its attributes (a dotted path), give it a __str__, or use "
        "LIMIT_BY.fn to say what identifies it"
    )


def _canonical_json(value: object, where: str) -> str:
    """Return JSON with sorted keys and no spaces; sets, which JSON lacks, as ``set[...]``."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, enum.Enum):
        return json.dumps(str(value))
    if isinstance(value, int):
        return _digits(value, where)
    if isinstance(value, str | float):
        return json.dumps(value)
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return _canonical_json({**fields, **(value.model_extra or {})}, where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _canonical_json(fields, where)
    if isinstance(value, Mapping):
        mapping = cast(Mapping[object, object], value)
        members = {_json_key(key, where): _canonical_json(mapping[key], where) for key in mapping}
        if len(members) < len(mapping):
            raise KeyDerivationError(f"{where} has two dict keys that print the same")
        return "{" + ",".join(f"{key}:{members[key]}" for key in sorted(members)) + "}"
    if isinstance(value, list | tuple):
        items = cast(list[object], value)
        return "[" + ",".join(_canonical_json(item, where) for item in items) + "]"
    if isinstance(value, AbstractSet):
        members_of = cast(AbstractSet[object], value)
        return "set[" + ",".join(sorted(_canonical_json(item, where) for item in members_of)) + "]"
    if isinstance(value, _PRINTED):
        return json.dumps(str(value))
    return json.dumps(_printed(value, where))


def _json_key(key: Any, where: str) -> str:
    if key is None or isinstance(key, bool) or _is_composite(key):
        raise KeyDerivationError(
            f"{where} has the dict key {key!r}; dict keys in a limit's key must be text or numbers"
        )
    return json.dumps(str(key) if isinstance(key, _PRINTED) else _printed(key, where))
