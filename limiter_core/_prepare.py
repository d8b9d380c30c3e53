"""From limits and a call to the demands of a request: written once for both worlds.

Strategies and per-tenant functions may be async. `demands_of` is a generator that yields what it
has to wait for; the async limiter awaits it, the sync one explains that it cannot.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, cast

from limiter_core._checks import check_cost, check_number, check_priority, check_timeout
from limiter_core._names import name_of
from limiter_core.arguments import ArgumentView
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.keys import MAX_KEY_LENGTH, bounded, scoped
from limiter_core.limits import ConcurrencyLimit, ConflictResolution, Fixed, Terms
from limiter_core.requests import Demand
from limiter_core.strategies import key_part

_DEMANDS_KEPT = 64

R = TypeVar("R")
Steps = Generator[Awaitable[Any], Any, R]

Limits = ConcurrencyLimit | Sequence[ConcurrencyLimit]
"""What a caller gives: one limit, or several to be taken all or none."""

Arguments = Mapping[str, Any] | None
"""What a caller gives: the arguments by name (an `ArgumentView` is such a mapping), or none."""


def check_limits(limits: object, owner: str = "") -> tuple[ConcurrencyLimit, ...]:
    """Return the limits as a tuple.

    Args:
        limits: a limit, or a list or tuple of them.
        owner: what has the limits, for the error.

    Raises:
        ConfigurationError: one of them is no limit, or there are none.
    """
    if isinstance(limits, ConcurrencyLimit):
        return (limits,)
    if isinstance(limits, Sequence):
        given = cast(Sequence[object], limits)
        several = tuple(limit for limit in given if isinstance(limit, ConcurrencyLimit))
        if several and len(several) == len(given):
            return several
    needs = f"{owner} needs" if owner else "give"
    raise ConfigurationError(
        f"{needs} a ConcurrencyLimit or a list of them, got {brief(cast(object, limits))}"
    )


def the_one_or_all(limits: tuple[ConcurrencyLimit, ...]) -> Limits:
    """Return the one limit itself if there is one: its calls take the shortest way."""
    return limits[0] if len(limits) == 1 else limits


def view_of(arguments: object) -> ArgumentView:
    """Return the view of the arguments that a caller gave.

    Raises:
        ConfigurationError: they are no mapping.
    """
    if is_view(arguments):
        return arguments
    if arguments is None:
        return ArgumentView({})
    if not isinstance(arguments, Mapping):
        raise ConfigurationError(
            'arguments are given by name, as in {"customer_id": 42}, '
            f"got a {type(arguments).__qualname__}"
        )
    return ArgumentView(cast(Mapping[str, Any], arguments))


is_view: Callable[[object], TypeGuard[ArgumentView]] = cast(
    Any, type.__instancecheck__.__get__(ArgumentView)
)
"""Whether it is a view; `isinstance` of an abstract class takes five times as long."""


def terms_of(limits: Limits, timeout: float | None) -> Terms:
    """Return what the limits mean together; the shortest of the durations counts.

    Raises:
        ConfigurationError: the caller's own timeout is no duration.
    """
    if timeout is None and isinstance(limits, ConcurrencyLimit):
        return limits.terms
    terms = [limit.terms for limit in check_limits(limits)]
    return Terms(
        _shortest(check_timeout(timeout), *(each.timeout for each in terms)),
        min(each.lease for each in terms),
        _shortest(*(each.max_hold for each in terms)),
        "cancel" if any(each.on_lost == "cancel" for each in terms) else "warn",
    )


def fixed_demand(fixed: Fixed, arguments: Arguments) -> Demand:
    """Return what `demands_of` would, for a limit of which only the key is to be derived.

    A short cut for the commonest limits, not another rule. The last demands are kept by the value
    of the argument, if it is a number or text: others may equal a value that has another key.
    """
    value: Any = None
    plain = type(arguments) is dict  # the commonest arguments
    of_all: Demand | None = fixed.demand
    if of_all is not None and (plain or arguments is None or is_view(arguments)):
        return of_all
    if plain and fixed.argument is not None:
        value = cast(Any, arguments).get(fixed.argument)
        if type(value) is int or type(value) is str:
            known: Demand | None = fixed.demands.get(value)
            if known is not None:
                return known
        else:
            value = None
    view = ArgumentView(cast(Any, arguments)) if plain else view_of(arguments)
    key = fixed.get_key(view)
    if len(key) > MAX_KEY_LENGTH:
        value = None  # it may be long, and is not kept
    if fixed.scope is not None or len(key) > MAX_KEY_LENGTH:
        key = scoped(fixed.scope, key)
    demand = Demand(
        key,
        fixed.max_concurrent,
        fixed.cost,
        fixed.on_conflict,
        max_waiting=fixed.max_waiting,
        name=fixed.name or fixed.name_for(view.function_name),
    )
    if fixed.is_constant:
        fixed.demand = demand
    elif value is not None:
        if len(fixed.demands) >= _DEMANDS_KEPT:
            fixed.demands.clear()
        fixed.demands[value] = demand
    return demand


def derived_demand(limit: ConcurrencyLimit, view: ArgumentView) -> Steps[Demand]:
    """Derive what a call demands by one limit, of which anything may depend on the call.

    Yields and raises as `demands_of` does.
    """
    key = yield from _key(limit, view)
    maximum = yield from _value(limit.max_concurrent, view)
    cost = yield from _value(limit.cost, view)
    if limit.max_concurrent is not maximum or limit.cost is not cost:
        maximum = check_number(maximum, f"what max_concurrent returned for {key!r}", least=0)
        cost = check_number(cost, f"what cost returned for {key!r}", least=1)
        check_cost(cost, maximum)
    priority = 0
    if limit.on_conflict is ConflictResolution.PRIORITY:
        priority = check_priority((yield from _value(limit.priority, view)))
    group = None
    if limit.fair_by is not None:
        group = bounded((yield from _wait_for(key_part(cast(Any, limit.fair_by), view))))
    return Demand(
        key,
        maximum,
        cost,
        limit.resolution,
        priority,
        group,
        limit.max_waiting,
        name_of(limit, view),
    )


def demands_of(
    limits: tuple[ConcurrencyLimit, ...], view: ArgumentView
) -> Steps[tuple[Demand, ...]]:
    """Derive what a call demands of each of its keys.

    Yields:
        Awaitables of async strategies and functions; send their results back.

    Raises:
        KeyDerivationError: a strategy found no key.
        ConfigurationError: a function of the call returned what is not allowed, or two of the
            limits share a key.
    """
    demands: list[Demand] = []
    for limit in limits:
        if limit.fixed is not None:
            demands.append(fixed_demand(limit.fixed, view))
        else:
            demands.append((yield from derived_demand(limit, view)))
    if len(demands) > 1 and len({demand.key for demand in demands}) < len(demands):
        keys = ", ".join(repr(demand.key) for demand in demands)
        raise ConfigurationError(
            f"limits that are taken together need a key each, got {keys}: "
            "give one of them another strategy or a scope"
        )
    return tuple(demands)


def key_of(limit: ConcurrencyLimit, view: ArgumentView) -> Steps[str]:
    """Derive the key alone. Yields and raises as `demands_of` does."""
    return (yield from _key(limit, view))


def run_now(steps: Steps[R]) -> R:
    """Carry out steps that must not wait.

    Raises:
        ConfigurationError: they have to: a strategy or a function of the call is async.
    """
    try:
        waited_for = next(steps)
    except StopIteration as done:
        return cast(R, done.value)
    steps.close()
    if hasattr(waited_for, "close"):  # a coroutine: it is not awaited, and that is no mistake
        cast(Any, waited_for).close()
    raise ConfigurationError(
        "this limit has an async strategy or function, and a SyncLimiter cannot await it: "
        "use Limiter, or write it without async"
    )


async def run_async(steps: Steps[R]) -> R:
    """Carry out steps, awaiting what they have to wait for."""
    try:
        waited_for = next(steps)
        while True:
            try:
                result = await waited_for
            except BaseException as error:  # noqa: BLE001  (it is raised in the steps)
                waited_for = steps.throw(error)
            else:
                waited_for = steps.send(result)
    except StopIteration as done:
        return cast(R, done.value)


def _key(limit: ConcurrencyLimit, view: ArgumentView) -> Steps[str]:
    text = key_part(limit.strategy, view)
    if type(text) is not str:
        text = yield cast(Awaitable[str], text)
    return scoped(limit.scope, text)


def _value(given: int | Callable[[ArgumentView], Any], view: ArgumentView) -> Steps[Any]:
    if not callable(given):
        return given
    return (yield from _wait_for(given(view)))


def _wait_for(value: Any) -> Steps[Any]:
    if inspect.isawaitable(value):
        return (yield value)
    return value


def _shortest(*durations: float | None) -> float | None:
    return min((duration for duration in durations if duration is not None), default=None)
