"""What anyio's scopes say of an asyncio task, without loading anyio's backend.

A body is cancelled as asyncio does it, of which anyio's shields know nothing; so they are looked
up. anyio has no public way to ask about another task: what is used of its inside is named here
alone, and where it is missing nothing counts as shielded.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_BACKEND = "anyio._backends._asyncio"


_states: list[Any] = []
"""What anyio's backend notes of each task, once that is loaded."""


def current_scope(task: asyncio.Task[Any]) -> Any:
    """Return the innermost scope that a task is in; None if there is none."""
    if not _states:
        found = getattr(sys.modules.get(_BACKEND), "_task_states", None)
        if found is None:
            return None
        _states.append(found)
    state = _states[0].get(task)
    return None if state is None else getattr(state, "cancel_scope", None)


def is_shielded_within(task: asyncio.Task[Any], outer: object) -> bool:
    """Whether a task is in a shield that it entered after it was in the scope `outer`."""
    scope = current_scope(task)
    while scope is not None and scope is not outer:
        if scope.shield:
            return True
        scope = getattr(scope, "_parent_scope", None)
    return False


def shield() -> AbstractContextManager[object]:
    """Return a shield of the running task from the anyio scopes that it is in."""
    backend: Any = sys.modules.get(_BACKEND)
    task = asyncio.current_task()
    if task is None or current_scope(task) is None:
        return nullcontext()
    shielding: AbstractContextManager[object] = backend.CancelScope(shield=True)
    return shielding
