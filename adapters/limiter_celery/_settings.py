"""What `install` was told, by app."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limiter_core.store import Store

if TYPE_CHECKING:
    from limiter_celery._worker_limiter import Porter


@dataclass(slots=True)
class Settings:
    """How the limits of an app's tasks are kept.

    Attributes:
        store: a store, or its URL.
        name: who can wake the waiting tasks: the app's workers.
        claim: seconds that a woken task has to reach a worker.
        on_store_error: "raise" keeps tasks until the store is back, "admit" runs them.
        remember: seconds for which the end of a task that waited is remembered.
        porter: what keeps them in this process, if it is a worker.
    """

    store: str | Store
    name: str
    claim: float
    on_store_error: str
    remember: float | None
    porter: Porter | None = None


_settings: weakref.WeakKeyDictionary[Any, Settings] = weakref.WeakKeyDictionary()


def settings_of(app: Any) -> Settings | None:
    """Return the settings of an app, None if nothing was installed."""
    return _settings.get(unproxied(app))


def note_settings(app: Any, settings: Settings) -> None:
    """Remember the settings of an app."""
    _settings[unproxied(app)] = settings


def unproxied(app: Any) -> Any:
    """Return the app itself: Celery often hands out a proxy of it."""
    current = getattr(app, "_get_current_object", None)
    return app if current is None else current()
