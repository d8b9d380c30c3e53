"""TLS options: read from what a user gives, checked at once, and handed to both worlds."""

from __future__ import annotations

import functools
import inspect
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from limiter_core.errors import ConfigurationError

REQUIREMENTS = ("required", "optional", "none")
"""What `ssl_cert_reqs` may be; Celery writes `CERT_REQUIRED`."""

_MODES: dict[int, str] = {mode.value: mode.name for mode in ssl.VerifyMode}

_CERTIFICATE = "the server's certificate"

_LONGEST_PATH = 255


def tls_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the TLS options among connection settings, those that do nothing left out.

    Raises:
        ConfigurationError: they cannot be used: a file that is missing, options that contradict.
    """
    options = {
        name: value
        for name, value in given.items()
        if name.startswith("ssl_") and value is not None and value is not False
    }
    requirement = _requirement(given.get("ssl_cert_reqs", "required"))
    options["ssl_cert_reqs"] = requirement
    # Said also where it is False: redis-py has changed its mind on the default.
    checked = given.get("ssl_check_hostname")
    if requirement == "none":
        options["ssl_check_hostname"] = False  # as redis-py 6 has it; 5 would fail at each call
    elif checked is not None:
        options["ssl_check_hostname"] = bool(checked)
    _check(options)
    return options


def for_threads(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return connection settings as redis-py's sync clients take them.

    Raises:
        ConfigurationError: a TLS option is not possible there.
    """
    return _taken(settings, _parameters(redis.Redis), "threads")


def for_event_loops(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return connection settings as redis-py's async clients take them.

    Raises:
        ConfigurationError: a TLS option is not possible there.
    """
    return _taken(settings, _parameters(redis.asyncio.Redis), "event loops")


def _taken(settings: Mapping[str, Any], known: frozenset[str], where: str) -> dict[str, Any]:
    unknown = sorted(name for name in settings if name.startswith("ssl_") and name not in known)
    if unknown:
        raise ConfigurationError(
            f"redis-py {redis.__version__} does not know {', '.join(unknown)} in connections of "
            f"{where}, so the certificate would not be checked as you ask"
        )
    return dict(settings)


@functools.cache
def _parameters(client: type[Any]) -> frozenset[str]:
    begin: Any = client.__init__
    return frozenset(inspect.signature(begin).parameters)


def _requirement(given: object) -> str:
    """Return what is required of the server's certificate, in redis-py's words."""
    if given is None:
        return "none"
    if isinstance(given, int):
        given = _MODES.get(given)
    said = str(given).lower().removeprefix("cert_")
    if said not in REQUIREMENTS:
        raise ConfigurationError(
            f"ssl_cert_reqs says what is asked of {_CERTIFICATE}, and can be one of: "
            f"{', '.join(REQUIREMENTS)}"
        )
    return said


def _check(options: Mapping[str, Any]) -> None:
    """Make a context of options, as redis-py does for each connection, to see that it can be."""
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        if name in options:
            _check_path(name, options[name], "file", Path.is_file)
    if "ssl_ca_path" in options:
        _check_path("ssl_ca_path", options["ssl_ca_path"], "folder", Path.is_dir)
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigurationError("ssl_keyfile is the key of a certificate: give ssl_certfile, too")
    if "ssl_validate_ocsp" in options and "ssl_validate_ocsp_stapled" in options:
        raise ConfigurationError(
            "of ssl_validate_ocsp and ssl_validate_ocsp_stapled only one can be asked for"
        )
    _check_context(tuple(sorted((name, options[name]) for name in options if name in _CHECKED)))


def _check_path(name: str, given: Any, kind: str, is_one: Callable[[Path], bool]) -> None:
    try:
        if is_one(Path(given)):
            return
    except (OSError, ValueError, TypeError):  # too long, a null character, no path
        pass
    said = str(given)
    # The text of a key, where its path is wanted, is shown to nobody.
    if len(said) <= _LONGEST_PATH and said.isprintable() and "-----" not in said:
        raise ConfigurationError(f"{name} is no {kind}: {said!r}")
    raise ConfigurationError(f"{name} is no {kind}: it takes a path, not what would stand there")


_CHECKED = frozenset(
    (
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_password",
    )
)


@functools.lru_cache(maxsize=64)
def _check_context(items: tuple[tuple[str, Any], ...]) -> None:
    options = dict(items)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate, password = options.get("ssl_certfile"), options.get("ssl_password")
    named = "ssl_certfile, ssl_keyfile"
    try:
        if certificate is not None:
            # Of a function, so that OpenSSL does not ask for the password at a terminal.
            context.load_cert_chain(
                certificate, options.get("ssl_keyfile"), password=lambda: password or ""
            )
        named = "ssl_ca_certs, ssl_ca_path, ssl_ca_data"
        if any(name in options for name in named.split(", ")):
            context.load_verify_locations(
                options.get("ssl_ca_certs"), options.get("ssl_ca_path"), options.get("ssl_ca_data")
            )
        named = "ssl_ciphers"
        if named in options:
            context.set_ciphers(options[named])
        named = "ssl_min_version"
        if named in options:
            context.minimum_version = ssl.TLSVersion(options[named])
    except (OSError, ValueError, TypeError) as error:  # an SSLError is an OSError
        hint = ""
        if named.startswith("ssl_certfile"):
            hint = " (they have to be PEM, belong together, and ssl_password has to open the key)"
        # What others than OpenSSL say repeats what was given.
        why = f": {error}" if isinstance(error, ssl.SSLError) else ""
        raise ConfigurationError(f"{named} cannot be used{hint}{why}") from None
