"""From a URL to a store, by the URL's scheme.

The stores of this distribution are named here, by module: so the core imports none of them, and
they are found where packages have no metadata, too (zipapps, images that leave it out; PyInstaller
is told of them in `_pyinstaller`). A package of your own adds one through the entry-point group
`limiter.stores`::

    [project.entry-points."limiter.stores"]
    etcd = "my_package:store_from_url"      # a function of the URL that returns a Store
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from limiter_core.brief import brief, without_secrets
from limiter_core.errors import ConfigurationError, StoreError
from limiter_core.store import Store

__all__ = ("BUILT_IN", "STORES", "open_store", "without_secrets")

STORES = "limiter.stores"
"""The entry-point group; an entry's name is a URL scheme."""

_REDIS = "limiter_redis:store_from_url"
BUILT_IN = {
    "memory": "limiter_memory:store_from_url",
    "redis": _REDIS,
    "rediss": _REDIS,
    "redis+cluster": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+cluster": _REDIS,
    "rediss+sentinel": _REDIS,
    "unix": _REDIS,
}
"""Schemes of this distribution, and the functions that open their stores."""

_openers: dict[str, Callable[[str], object]] = {}
"""Functions that were found before: to look through the metadata of all packages is slow."""


def open_store(given: str | Store) -> Store:
    """Return the store that a URL names; one that is given is returned as it is.

    Raises:
        ConfigurationError: it is neither, or no installed package knows the URL's scheme.
        ImportError: the store's requirements are not installed; names the extra that brings them.
        StoreError: the interpreter is ending, and the store's module was not imported before.
    """
    url: object = given
    if isinstance(given, Store) and not isinstance(given, type):
        return given
    if not isinstance(url, str):
        raise ConfigurationError(
            f'a limiter needs a store or its URL, such as "memory://", got a {type(url).__name__}'
        )
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(
            f'a store is named by a URL such as "memory://", got {without_secrets(url)!r}'
        )
    opener = _openers.get(scheme)
    if opener is None:
        opener = _openers[scheme] = _find(scheme, url)
    store = opener(f"{scheme}://{rest}")
    if not isinstance(store, Store):
        raise ConfigurationError(
            f"the scheme {brief(scheme)} did not lead to a store, but to {brief(store)}"
        )
    return store


def _find(scheme: str, url: str) -> Callable[[str], object]:
    """Return the function that opens the stores of a scheme."""
    built_in = BUILT_IN.get(scheme)
    if built_in is not None:
        module, _, function = built_in.partition(":")
        try:
            found: Callable[[str], object] = getattr(import_module(module), function)
        except RuntimeError as error:  # it would start threads, or have some ended, at the exit
            raise StoreError(
                f"{module} cannot be imported any more, since the interpreter is ending: {error}. "
                "Make the limiter before"
            ) from error
        return found
    added: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=STORES)}
    if scheme not in added:
        raise ConfigurationError(
            f"no store knows the URL scheme {brief(scheme)} of {without_secrets(url)!r}; "
            f"installed are: {', '.join(sorted({*BUILT_IN, *added}))}"
        )
    opener: Callable[[str], object] = added[scheme].load()
    return opener
