"""From a URL to a store: the scheme finds it through the entry-point group `limiter.stores`.

So the core imports no store, and a package of your own can add one::

    [project.entry-points."limiter.stores"]
    etcd = "my_package:store_from_url"      # a function of the URL that returns a Store
"""

from __future__ import annotations

from importlib.metadata import entry_points

from limiter_core.errors import ConfigurationError
from limiter_core.store import Store

__all__ = ("STORES", "open_store")

STORES = "limiter.stores"
"""The entry-point group; an entry's name is a URL scheme."""


def open_store(given: str | Store) -> Store:
    """Return the store that a URL names; one that is given is returned as it is.

    Raises:
        ConfigurationError: it is neither, or no installed package knows the URL's scheme.
        ImportError: the store's requirements are not installed; names the extra that brings them.
    """
    url: object = given
    if isinstance(given, Store) and not isinstance(given, type):
        return given
    if not isinstance(url, str):
        raise ConfigurationError(
            f'a limiter needs a store or its URL, such as "memory://", got {given!r}'
        )
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(
            f'a store is named by a URL such as "memory://", got {_without_secrets(url)!r}'
        )
    found = [entry for entry in entry_points(group=STORES) if entry.name == scheme]
    if not found:
        known = sorted({entry.name for entry in entry_points(group=STORES)})
        raise ConfigurationError(
            f"no store knows the URL scheme {scheme!r} of {_without_secrets(url)!r}; "
            f"installed are: {', '.join(known)}"
        )
    store = found[0].load()(f"{scheme}://{rest}")
    if not isinstance(store, Store):
        raise ConfigurationError(f"{found[0].value} did not return a store, but {store!r}")
    return store


def _without_secrets(url: str) -> str:
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, separator, _ = head.partition("://")
    return f"{scheme}://***@{tail}" if separator else f"***@{tail}"
