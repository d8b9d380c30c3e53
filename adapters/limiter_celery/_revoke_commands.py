"""Receives the remote control commands that revoke tasks; those that wait leave at once."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from limiter_celery import _celery
from limiter_celery._parked_tasks import ParkedTasks
from limiter_celery._revocations import Revocations, Stamps, stamps_of
from limiter_celery._scheduler import Scheduler
from limiter_core import StoreError

logger = logging.getLogger("limiter")

_COMMANDS = ("revoke", "terminate", "revoke_by_stamped_headers")

_receivers: weakref.WeakSet[RevokeReceiver] = weakref.WeakSet()


@dataclass(kw_only=True, eq=False)
class RevokeReceiver:
    """Ends the waiting of revoked tasks, and notes the revoke in the store."""

    parked_tasks: ParkedTasks
    revocations: Revocations
    scheduler: Scheduler  # in which the waiting is ended
    store_scheduler: Scheduler  # in which the revoke is noted

    def subscribe(self) -> None:
        """Receive the commands that come to this process, for as long as this object exists."""
        for command in _COMMANDS:
            handler = _celery.Panel.data[command]
            if not isinstance(handler, _ObservedCommand):
                _celery.Panel.data[command] = _ObservedCommand(handler)
        _receivers.add(self)

    def revoke(self, task_ids: set[str]) -> None:
        """Revoke tasks by their ids."""
        self.scheduler.call_soon(partial(self.parked_tasks.revoke, task_ids))
        for task_id in task_ids:
            self._note(partial(self.revocations.note, task_id))

    def revoke_by_stamps(self, stamps: Stamps) -> None:
        """Revoke tasks that have one of these stamps."""
        self.scheduler.call_soon(partial(self.parked_tasks.revoke_by_stamps, stamps))
        self._note(partial(self.revocations.note_stamps, stamps))

    def _note(self, note: Callable[[], None]) -> None:
        def try_to() -> None:
            try:
                note()
            except StoreError as error:
                logger.warning("a revoke is not noted for workers that start later: %s", error)

        self.store_scheduler.call_soon(try_to)


class _ObservedCommand:
    """A remote control command, which is passed on to the receivers when it was carried out."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self._handler = handler
        self.__name__ = handler.__name__
        self.__doc__ = handler.__doc__

    def __call__(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(_celery.state.revoked_stamps)
        try:
            reply = self._handler(state, *args, **kwargs)
        except BaseException:
            # It revokes before it terminates, and not every pool can do that; but of stamps it
            # looks first whether there is such a signal.
            if not self._is_of_stamps or _celery.state.revoked_stamps != before:
                self._pass_on(args, kwargs)
            raise
        self._pass_on(args, kwargs)
        return reply

    @property
    def _is_of_stamps(self) -> bool:
        return self.__name__ == "revoke_by_stamped_headers"

    def _pass_on(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for receiver in list(_receivers):
            if self._is_of_stamps:
                headers = kwargs.get("headers", args[0] if args else {})
                receiver.revoke_by_stamps(stamps_of(headers))
            else:
                given = kwargs.get("task_id", args[-1] if args else None)
                receiver.revoke({given} if isinstance(given, str) else set(given or ()))
