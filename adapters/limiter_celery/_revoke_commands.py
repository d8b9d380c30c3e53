"""Hears of tasks that are revoked, so that those that wait leave the line at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from limiter_celery import _celery
from limiter_celery._revocations import stamps_of

_COMMANDS = ("revoke", "terminate", "revoke_by_stamped_headers")

_porters: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_revokes(porter: Any) -> None:
    """Have a porter told of each revoked task."""
    for command in _COMMANDS:
        handler = _celery.Panel.data[command]
        if not isinstance(handler, _Watched):
            _celery.Panel.data[command] = _Watched(handler)
    _porters.add(porter)


class _Watched:
    """A remote control command, as it was, and then a word to the porters."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self._handler = handler
        self.__name__ = handler.__name__
        self.__doc__ = handler.__doc__

    def __call__(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        answer = self._handler(state, *args, **kwargs)
        for porter in list(_porters):
            if self.__name__ == "revoke_by_stamped_headers":
                porter.revoked_by_stamps(stamps_of(kwargs.get("headers", args[0] if args else {})))
            else:
                given = kwargs.get("task_id", args[-1] if args else None)
                porter.revoked({given} if isinstance(given, str) else set(given or ()))
        return answer
