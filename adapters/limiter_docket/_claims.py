"""What Docket reads of a run when a worker claims it: there stands on which keys it waited.

The limits of its function may have others by now, or there are none, in the workers of another
deployment. So a task leaves what it waited on, whatever it meets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

from docket import Execution

from limiter_docket._queue import when_of

_NOTE = "_limiter_note"


def waited_on(execution: Execution) -> tuple[str, ...]:
    """Return the keys on which a claimed task waited for its `when`; none if it did not wait."""
    note: str = getattr(execution, _NOTE, "")
    when, *keys = note.split(" ")
    return tuple(keys) if note and when == when_of(execution) else ()


def watch_claims(on_return: Callable[[Execution, str], object]) -> None:
    """Have Docket say which tasks are claimed that have waited.

    Args:
        on_return: called with each of them, and the name of its worker, before Docket looks for
            the dependencies of its function.
    """
    read: Any = Execution._apply_runs_data  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  (no hook)
    claim: Any = Execution.claim

    @functools.wraps(read)
    def read_with_note(execution: Execution, data: Mapping[bytes, bytes]) -> None:
        read(execution, data)
        setattr(execution, _NOTE, data.get(b"limiter", b"").decode())

    @functools.wraps(claim)
    async def claim_and_report(execution: Execution, worker: str) -> bool:
        claimed: bool = await claim(execution, worker)
        if claimed and waited_on(execution):
            on_return(execution, worker)
        return claimed

    kind = cast(Any, Execution)
    kind._apply_runs_data, kind.claim = read_with_note, claim_and_report  # noqa: SLF001  (no hook)
