"""What the things of a store are called in Redis: keys, channels and hash tags.

A plain namespace, `limiter`, stands inside of the hash tags, so that a cluster spreads the keys:
`{limiter:KEY}:state`. One with a colon or a hash tag of its own is a prefix of all names:
`shop:limits:{KEY}:state`, `{shop}:limits:{KEY}:state`. Redis goes by the first braces of a name; so
the tag of the last one is `shop`, and all that is in this namespace lies in one slot.

No two namespaces have a name in common, whatever their limiter keys are: those never contain
braces (`words.py` encodes them), and what may follow a tag in a namespace is none of the words
that follow a tag in a name.
"""

from __future__ import annotations

import functools
import re

from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError

LONGEST = 128
"""Characters of a namespace at the most."""

_KINDS = frozenset(
    (
        "changes",
        "ended",
        "ends",
        "jobs",
        "layout",
        "none",
        "notices",
        "offers",
        "policies",
        "present",
        "process",
        "queue",
        "scopes",
        "state",
        "turned",
    )
)
"""What follows a tag in the names of a store."""

_ALLOWED = (
    f"a namespace is 1 to {LONGEST} printable characters, braces only as one hash tag with "
    "something behind it, as in {shop}:limits"
)


class Keyspace:
    """The names in one namespace; around limiter keys that are words (see `words.py`).

    Args:
        namespace: one that `checked_namespace` returned.

    Attributes:
        namespace: the same.
        in_one_slot: whether all that is in it lies in one slot of a cluster.
        opening: what stands in front of a scope, or of a key without one, in each of its names.
        common: what begins the names that belong to no scope and no key.
        scopes: the Redis key of the set of scopes that have had durable tickets.
        states: a pattern for SCAN, of the Redis keys of all states (and perhaps of others).
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.in_one_slot = "{" in namespace
        is_prefix = self.in_one_slot or ":" in namespace
        self.opening = f"{namespace}:{{" if is_prefix else f"{{{namespace}:"
        self.common = namespace if is_prefix else f"{{{namespace}}}"
        self.scopes = f"{self.common}:scopes"
        self.states = f"{_escaped(self.opening)}*}}:state*"
        self._state = re.compile(
            rf"{re.escape(self.opening)}([^{{}}]*)\}}:state(?::([^{{}}]*))?", re.DOTALL
        )

    def offers_index(self, scope: str) -> str:
        """Return the Redis key of a scope's offers ("" for keys without one); as `index_of`."""
        return f"{self.opening}{scope}}}:offers" if scope else f"{self.common}:offers"

    def key_of(self, name: bytes | str) -> str | None:
        """Return the limiter key whose state has this Redis key: the way back from `redis_keys`.

        None: it is the name of something else, which the pattern found as well.
        """
        text = name.decode(errors="replace") if isinstance(name, bytes) else name
        found = self._state.fullmatch(text)
        if found is None:
            return None
        scope, rest = found.groups()
        return scope if rest is None else f"{scope}/{rest}"


def redis_keys(opening: str, key: str) -> tuple[str, str, str]:
    """Return the Redis keys of a limiter key: state, ends and queue; as `around` in Lua.

    Args:
        opening: that of the namespace.
        key: the limiter key, as a word.
    """
    scope, slash, rest = key.partition("/")
    head = f"{opening}{scope}}}"
    tail = f":{rest}" if slash else ""
    return f"{head}:state{tail}", f"{head}:ends{tail}", f"{head}:queue{tail}"


def checked_namespace(given: object) -> str:
    """Return a namespace that a user gives.

    Raises:
        ConfigurationError: it cannot be one.
    """
    if not isinstance(given, str) or not 1 <= len(given) <= LONGEST or not given.isprintable():
        raise ConfigurationError(f"{_ALLOWED}; got {brief(given)}")
    before, brace, behind = given.partition("{")
    tag, end, rest = behind.partition("}")
    if not brace and "}" not in before:
        return given
    if not end or not tag or any(each in part for each in "{}" for part in (before, tag, rest)):
        raise ConfigurationError(f"{_ALLOWED}; got {brief(given)}")
    if not rest:
        raise ConfigurationError(f"{_ALLOWED}; got {brief(given)}, with nothing behind the tag")
    word = rest[1:].partition(":")[0]
    if rest.startswith(":") and word in _KINDS:
        raise ConfigurationError(
            f"{_ALLOWED}; got {brief(given)}, but the store's own names have {word!r} behind "
            "their tags"
        )
    return given


def check_cluster(names: Keyspace) -> None:
    """Refuse a namespace whose names a cluster would scatter.

    Raises:
        ConfigurationError: it is a prefix without a hash tag.
    """
    if names.in_one_slot or ":" not in names.namespace:
        return
    tag = next(filter(None, names.namespace.split(":")), "shop")
    better = names.namespace.replace(tag, f"{{{tag}}}", 1)
    raise ConfigurationError(
        "in a Redis Cluster, a namespace with a colon needs a hash tag, which says on which node "
        f"all of it lives: {better!r} in place of {names.namespace!r}; or a namespace without a "
        "colon, whose keys spread over all nodes"
    )


@functools.lru_cache(maxsize=64)
def keyspace_of(namespace: str) -> Keyspace:
    """Return the names in a namespace."""
    return Keyspace(namespace)


def _escaped(text: str) -> str:
    """Return text as it stands in a pattern of Redis."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
