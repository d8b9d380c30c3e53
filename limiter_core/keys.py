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

import hashlib
from urllib.parse import quote

from limiter_core._key_values import Json, number_text, plain, register_key_type
from limiter_core.errors import KeyDerivationError

__all__ = (
    "MAX_KEY_LENGTH",
    "MAX_WHOLE_LENGTH",
    "bounded",
    "name_text",
    "register_key_type",
    "scoped",
    "split_scope",
    "value_text",
)

MAX_KEY_LENGTH = 200
MAX_WHOLE_LENGTH = 2 * MAX_KEY_LENGTH + 1  # with a scope, and what separates it
"""Characters of a key behind its scope, and of a scope; well within any store."""

_DIGEST_BYTES = 16


def name_text(name: str) -> str:
    """Encode a name: of an argument, a function, a constant or a scope."""
    if name.isidentifier() and name.isascii():
        return name
    return _quoted(name, safe="@+")


def value_text(value: object, *, where: str) -> str:
    """Encode a value so that equal text means "prints the same".

    `42` and `"42"`, a `UUID` and its text share a key; `None` and `"None"`, `True` and `"True"`
    do not. Containers, dataclasses and pydantic models become canonical JSON, secrets a digest.
    docs/reference/keys.md has the list of types.

    Args:
        value: what a strategy found.
        where: what the value is, for the error message ("argument 'customer_id'").

    Raises:
        KeyDerivationError: no text is sure to identify the value: its type is none of the list,
            and has no `__limit_key__` and is not registered; or it contains itself.
    """
    if type(value) is str:
        return _text(value)
    try:
        found = plain(value, where)
    except RecursionError:
        raise KeyDerivationError(
            f"{where} contains itself, or is nested too deeply, so it has no text"
        ) from None
    if found is None or isinstance(found, bool):
        return f"!{found}"
    if isinstance(found, Json):
        return "!" + _quoted(found.text, safe=":@+")
    return _text(found if isinstance(found, str) else number_text(found, where))


def bounded(text: str, length: int = MAX_KEY_LENGTH) -> str:
    """Return `text`, its tail replaced by a digest when it has more characters than `length`."""
    if len(text) <= length:
        return text
    encoded = text.encode(errors="surrogatepass")
    digest = hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest()
    return f"{text[: length - len(digest) - 1]}#{digest}"


def scoped(scope: str | None, text: str) -> str:
    """Return the whole key: the encoded scope, if any, and the text behind it, both bounded."""
    return bounded(text) if scope is None else f"{bounded(name_text(scope))}/{bounded(text)}"


def split_scope(key: str) -> tuple[str | None, str]:
    """Split a key into its (still encoded) scope, None without one, and the rest."""
    scope, slash, rest = key.partition("/")
    return (scope, rest) if slash else (None, key)


def _text(value: str) -> str:
    if value.isalnum() and value.isascii():
        return value
    return _quoted(value, safe=":@+")


def _quoted(text: str, *, safe: str) -> str:
    # Lone surrogates are not text, but they are values: they must not raise, nor meet.
    return quote(text.encode("utf-8", "surrogatepass"), safe=safe)
