"""What a user gives as `limits=`, checked as early as its function is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from limiter_core import ConcurrencyLimit, ConfigurationError
from limiter_core.arguments import Binder
from limiter_core.jobs import check_argument_names


def limits_of(name: str, given: object) -> tuple[ConcurrencyLimit, ...]:
    """Return the limits that were given for a function.

    Raises:
        ConfigurationError: there are none, or one of them is no limit.
    """
    several = cast(Sequence[object], given) if isinstance(given, list | tuple) else (given,)
    limits = tuple(each for each in several if isinstance(each, ConcurrencyLimit))
    if not limits or len(limits) != len(several):
        raise ConfigurationError(
            f"limits= takes for each function a ConcurrencyLimit or a list of them, "
            f"got {given!r} for {name!r}"
        )
    return limits


def binder_of(
    function: Callable[..., Any], limits: tuple[ConcurrencyLimit, ...], name: str | None = None
) -> Binder:
    """Return what binds the arguments of a job's function, which has all that its limits need.

    Args:
        function: the function.
        limits: its limits.
        name: what `LIMIT_BY.fn_name` makes of it, where it was limited by its name.

    Raises:
        ConfigurationError: a limit needs an argument that the function does not have.
    """
    binder = Binder(function)
    if name is not None:
        binder.name = name
    check_argument_names(limits, binder, hidden=binder.parameters[:1])  # SAQ's own: the context
    return binder
