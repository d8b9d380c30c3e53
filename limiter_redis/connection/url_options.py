"""The options of a store's URL: which there are, and that what stands there can be used."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import redis
import redis.connection

from limiter_core.errors import ConfigurationError

OWN = ("namespace", "min_replicas", "min_replicas_timeout")
"""Options of the store itself."""

OF_SENTINELS = ("sentinel_username", "sentinel_password")

_connections: Any = redis.connection
_PARSERS: Mapping[str, Callable[[str], Any]] = _connections.URL_QUERY_ARGUMENT_PARSERS

_OF_POOLS = ("max_connections", "timeout")
_KINDS: dict[str, type[Any]] = {
    "redis": redis.Connection,
    "rediss": redis.SSLConnection,
    "unix": redis.UnixDomainSocketConnection,
}

# What redis-py's connections take beside texts and numbers, or what stands elsewhere in a URL.
_NOT_IN_A_URL = frozenset(
    (
        "command_packer",
        "credential_provider",
        "driver_info",
        "encoder_class",
        "event_dispatcher",
        "himport_registry",
        "host",
        "parser",
        "parser_class",
        "path",
        "port",
        "redis_connect_func",
        "retry",
        "self",
        "socket_keepalive_options",
        "socket_type",
        "ssl_ocsp_context",
    )
)
_PRIVATE = ("maint_", "maintenance_", "orig_", "oss_")

_POSITIVE = ("socket_timeout", "socket_connect_timeout")


@functools.cache
def allowed(base: str, kind: str = "") -> tuple[str, ...]:
    """Return the options of URLs with a scheme: redis-py's, of the connections it makes, and ours.

    Args:
        base: `redis`, `rediss` or `unix`.
        kind: "", `cluster` or `sentinel`.
    """
    names = {*OWN, *_OF_POOLS, *(OF_SENTINELS if kind == "sentinel" else ())}
    classes: Any = _KINDS[base].__mro__[:-1]
    for each in classes:
        names.update(inspect.signature(each.__init__).parameters)
    names -= {"kwargs", "args", *_NOT_IN_A_URL, *(("db",) if kind == "cluster" else ())}
    return tuple(sorted(name for name in names if not name.startswith(_PRIVATE)))


def check_options(base: str, kind: str, query: str) -> None:
    """Refuse options that mean nothing, or that say what cannot be.

    Raises:
        ConfigurationError: one is unknown, stands there twice, or its value cannot be read. (Not
            with its value, which may be a password.)
    """
    if not query:
        return
    given = parse_qsl(query, keep_blank_values=True)
    known = allowed(base, kind)
    for name, times in Counter(name for name, _ in given).items():
        if name not in known:
            _refuse(name, base, kind, shows=_may_be_shown(name, given))
        if times > 1:
            raise ConfigurationError(f"the URL has the option {name!r} {times} times")
    options = dict(given)
    for name, value in options.items():
        _check_value(name, value)
    if _is_none(options.get("ssl_cert_reqs", "")) and _is_true(options, "ssl_check_hostname"):
        raise ConfigurationError(
            "ssl_check_hostname=true needs a certificate to check: "
            'it contradicts ssl_cert_reqs, which says "none"'
        )


def knows_all(base: str, kind: str, query: str) -> bool:
    """Whether all options of a query are known."""
    return all(name in allowed(base, kind) for name, _ in parse_qsl(query, keep_blank_values=True))


def _may_be_shown(name: str, given: list[tuple[str, str]]) -> bool:
    """Whether what stands where an option is named is no part of a password, with a "&" in it."""
    beside_a_password = any(each.endswith("password") and each != name for each, _ in given)
    return not beside_a_password and re.fullmatch(r"\w{1,40}", name) is not None


def _refuse(name: str, base: str, kind: str, *, shows: bool) -> None:
    scheme = f"{base}+{kind}" if kind else base
    if name in allowed("rediss", kind):
        with_tls = f"rediss+{kind}" if kind else "rediss"
        raise ConfigurationError(
            f"the URL's option {name!r} is for TLS: begin it with {with_tls}://, not {scheme}://"
        )
    known = allowed(base, kind)
    close = difflib.get_close_matches(name[:100], known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    named = f": {name!r}" if shows else ""
    raise ConfigurationError(
        f"the URL has an option that a store does not know{named}{meant}; "
        f"with {scheme}:// there are: {', '.join(known)}"
    )


def _check_value(name: str, value: str) -> None:
    if name in OWN:
        return  # the store has words of its own for what it allows
    try:
        parsed = _PARSERS.get(name, str)(value)
        wrong = name in _POSITIVE and not 0 < parsed < math.inf
        wrong = wrong or (name == "db" and parsed < 0)
    except (TypeError, ValueError):
        wrong = True
    if wrong:
        expected = "seconds, more than 0" if name in _POSITIVE else "what redis-py takes there"
        raise ConfigurationError(f"the URL's option {name!r} cannot be used: expected {expected}")


def _is_none(requirement: str) -> bool:
    return requirement.lower().removeprefix("cert_") == "none"


def _is_true(options: Mapping[str, str], name: str) -> bool:
    return bool(_PARSERS.get(name, str)(options.get(name, "")))
