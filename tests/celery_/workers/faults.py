"""Points at which a worker of the tests kills itself, and all its children, without a word."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

from limiter_celery import _admission, _endings, _waking
from limiter_celery._waiting import WaitingRoom
from limiter_core.jobs import SyncJobGate


def die() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)


def wrap(owner: Any, name: str, count: int, *, after: bool, only: Any = None) -> None:
    """Die at the n-th call: before it is carried out, or after."""
    function = getattr(owner, name)
    calls = 0

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if only is None or only(*args):
            calls += 1
        if calls == count and not after:
            die()
        result = function(*args, **kwargs)
        if calls == count and after:
            die()
        return result

    setattr(owner, name, wrapped)


POINTS = {
    # name: what is wrapped, and whether it dies after it
    "before_asking": (SyncJobGate, "admit", 3, False, None),
    "asked": (SyncJobGate, "admit", 3, True, None),
    "parked": (WaitingRoom, "enter", 2, False, None),
    "acknowledged": (_admission, "_give_up", 3, True, None),
    "granted": (_waking.Waking, "wake", 2, False, None),
    "sent": (_waking.Waking, "_send", 2, True, None),
    "delivered": (_waking.Waking, "_deliver", 2, False, None),
    "admitted": (_endings.Endings, "hold", 2, True, None),
    "begun": (_endings.Endings, "began", 2, False, None),
    "over": (_endings.Endings, "_end", 2, False, None),
    "released": (_endings.Endings, "_end", 2, True, None),
}


def break_at(point: str, given: dict[str, Any]) -> None:
    owner, name, count, after, only = POINTS[point]
    wrap(owner, name, count, after=after, only=only)


def break_connection_on_signal(app: Any) -> None:
    """At SIGUSR2, have the connection to the broker break, as networks do."""
    from limiter_celery._settings import settings_of

    def break_it(*_: Any) -> None:
        settings = settings_of(app)
        assert settings is not None
        assert settings.porter is not None
        transport = settings.porter.consumer.connection.connection.transport
        transport.sock.shutdown(2)

    signal.signal(signal.SIGUSR2, break_it)
