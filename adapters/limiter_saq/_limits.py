"""The check of `limits=`, as early as its function is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from limiter_core import ConcurrencyLimit
from limiter_core.arguments import Binder
from limiter_core.jobs import check_argument_names


def binder_of(
    function: Callable[..., Any], limits: tuple[ConcurrencyLimit, ...], name: str | None = None
) -> Binder:
    """Return the binder of a job's function, which has all arguments that its limits need.

    Args:
        function: the function.
        limits: its limits.
        name: what `LIMIT_BY.fn_name` returns, if the function was limited by its name.

    Raises:
        ConfigurationError: a limit needs an argument that the function does not have.
    """
    binder = Binder(function)
    if name is not None:
        binder.name = name
    check_argument_names(limits, binder, hidden=binder.parameters[:1])  # SAQ's own: the context
    return binder
