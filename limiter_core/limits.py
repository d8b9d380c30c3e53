"""`ConcurrencyLimit`: which calls share a limit, how many may run, what the rest do."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, cast

from pydantic import ConfigDict, PlainValidator, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from limiter_core._checks import (
    MAX_NAME_LENGTH,
    PRIORITY_RANGE,
    check_cost,
    check_max_waiting,
    check_name,
    check_on_lost,
    check_priority,
    check_scope,
    check_seconds,
    check_timeout,
    number_or_function,
    printable,
)
from limiter_core.arguments import ArgumentView
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.keys import bounded
from limiter_core.strategies import (
    ConcurrencyStrategy,
    KeySource,
    argument_names_of,
    as_strategy,
    is_constant,
    is_immediate,
    name_parts,
)

__all__ = (
    "PRIORITY_RANGE",
    "ConcurrencyLimit",
    "ConflictResolution",
    "LimitOptions",
    "check_seconds",
)


_NAMES_KEPT = 1000
"""Names by function that a limit keeps, so that none is put together twice."""


class ConflictResolution(enum.Enum):
    """What happens, and to whom, when a call finds its key full."""

    QUEUE = "queue"
    """The newcomer waits at the back; the waiting are served in arrival order."""
    PRIORITY = "priority"
    """The newcomer waits at its place: highest `priority` first, arrival order within."""
    CANCEL = "cancel"
    """The newcomer is refused at once, with `LimitReached`."""
    CANCEL_RUNNING = "cancel_running"
    """The newest call wins: the oldest holders are preempted, all waiters are superseded."""
    KEEP_LATEST = "keep_latest"
    """The newcomer becomes the only one waiting; those waiting before it are superseded."""

    supersedes: bool
    """Whether a newcomer takes the place of the calls that wait."""

    def __init__(self, value: str) -> None:
        self.supersedes = value in ("cancel_running", "keep_latest")


Resolution = (
    Literal[
        "queue",
        "priority",
        "cancel",
        "cancel_running",
        "keep_latest",
        "QUEUE",
        "PRIORITY",
        "CANCEL",
        "CANCEL_RUNNING",
        "KEEP_LATEST",
    ]
    | ConflictResolution
)
"""A member of `ConflictResolution`, or its name as the command line and TOML have it."""


class LimitOptions(TypedDict, total=False):
    """The options of a `ConcurrencyLimit` but `scope`; for those that wrap it."""

    on_conflict: Resolution
    priority: int | Callable[[ArgumentView], Any]
    cost: int | Callable[[ArgumentView], Any]
    fair_by: str | Sequence[str] | ConcurrencyStrategy | KeySource | None
    max_waiting: int | None
    timeout: float | timedelta | None
    lease: float | timedelta
    max_hold: float | timedelta | None
    on_lost: Literal["cancel", "warn"]
    name: str | None


class Terms(NamedTuple):
    """What a limit, or several together, ask of the whole hold; see `ConcurrencyLimit`."""

    timeout: float | None
    lease: float
    max_hold: float | None
    on_lost: Literal["cancel", "warn"]


@dataclass(slots=True)
class Fixed:
    """What a limit has once for all calls, if nothing but the key depends on them."""

    argument: str | None
    """The argument by which it limits, if that is one."""
    get_key: Callable[[ArgumentView], str]
    scope: str | None
    max_concurrent: int
    cost: int
    on_conflict: ConflictResolution
    max_waiting: int | None
    name: str | None
    """None if that, too, depends on the call's function: then `name_for` returns it."""
    name_for: Callable[[str | None], str]
    terms: Terms
    is_constant: bool
    """Whether the key, too, is the same for all calls."""
    demand: Any = None
    """What all calls demand, if that is so, and one was made."""
    demands: dict[int | str, Any] = field(default_factory=dict[int | str, Any])
    """Those of the last calls, by the value of the argument."""


def _resolution(value: Any) -> Any:
    if isinstance(value, ConflictResolution):
        return value
    members = {member.value: member for member in ConflictResolution}
    if isinstance(value, str) and value.lower() in members:
        return members[value.lower()]
    names = ", ".join(member.name for member in ConflictResolution)
    raise ConfigurationError(
        f"on_conflict must be a ConflictResolution (one of {names}) or its name, got {brief(value)}"
    )


def _priority(value: Any) -> Any:
    return value if callable(value) else check_priority(value)


def _lease(value: Any) -> Any:
    return check_seconds(value, "lease")


def _max_hold(value: Any) -> Any:
    return None if value is None else check_seconds(value, "max_hold")


def _fair_by(value: Any) -> Any:
    return None if value is None else as_strategy(value)


@pydantic_dataclass(
    frozen=True,
    config=ConfigDict(arbitrary_types_allowed=True, extra="forbid", validate_default=True),
)
class ConcurrencyLimit:
    """At most `max_concurrent` of the calls that share a key may run at once.

    Declarative, immutable and shareable: one limit may guard many functions, and equal limits
    are the same limit.

    Attributes:
        by: which calls share the limit: the name of an argument, a list of names, a `LIMIT_BY`
            strategy or any object with `get_key(execution)`. None means `LIMIT_BY.fn_name`.
        max_concurrent: slots per key, 0 or more, or a function of the argument view that returns
            them (per-tenant limits). 0 admits no call until an operator raises it.
        scope: a sub-namespace for the keys. On Redis Cluster it is also the hash tag, so limits
            that are taken together need one scope there.
        on_conflict: what happens when the key is full; a `ConflictResolution`, or its name in
            capital or small letters ("cancel"). The attribute is always the member.
        priority: the place in the queue under `ConflictResolution.PRIORITY`, higher first; a
            number or a function of the argument view. Other resolutions do not look at it.
        cost: slots that one call takes, 1 or more; a number or a function of the argument view.
        fair_by: a strategy that groups the waiters of one key; groups are served in turn.
        max_waiting: how many calls may wait on a key; the next is refused with `QueueFull`.
        timeout: seconds (or a timedelta) to wait for a slot before `WaitTimeout`; None waits for
            as long as it takes.
        lease: seconds (or a timedelta) after which a crashed holder's slot is taken back. Leases
            are renewed while the process lives, so this is no bound on how long a body may run.
        max_hold: seconds (or a timedelta) after which a slot is taken back even from a holder
            that lives; None for no bound.
        on_lost: what a lost lease does to the body: "cancel" it (async) and raise `LeaseLost`,
            or only "warn" in the log.
        name: what events, metrics, logs and operators call this limit: printable text, at most 100
            characters. Never part of the key. None: the strategy's own name, such as its constant,
            its argument names ("region,priority"), or the function's name.

    Raises:
        ConfigurationError: a value is not allowed; says what was given and what is allowed.
    """

    by: Annotated[
        str | Sequence[str] | ConcurrencyStrategy | KeySource | None,
        PlainValidator(as_strategy),
    ] = None
    max_concurrent: Annotated[
        int | Callable[[ArgumentView], Any], PlainValidator(number_or_function("max_concurrent", 0))
    ] = 1
    _: KW_ONLY
    scope: Annotated[str | None, PlainValidator(check_scope)] = None
    on_conflict: Annotated[Resolution, PlainValidator(_resolution)] = ConflictResolution.QUEUE
    priority: Annotated[int | Callable[[ArgumentView], Any], PlainValidator(_priority)] = 0
    cost: Annotated[
        int | Callable[[ArgumentView], Any], PlainValidator(number_or_function("cost", 1))
    ] = 1
    fair_by: Annotated[
        str | Sequence[str] | ConcurrencyStrategy | KeySource | None, PlainValidator(_fair_by)
    ] = None
    max_waiting: Annotated[int | None, PlainValidator(check_max_waiting)] = None
    timeout: Annotated[float | timedelta | None, PlainValidator(check_timeout)] = None
    lease: Annotated[float | timedelta, PlainValidator(_lease)] = 30.0
    max_hold: Annotated[float | timedelta | None, PlainValidator(_max_hold)] = None
    on_lost: Annotated[Literal["cancel", "warn"], PlainValidator(check_on_lost)] = "cancel"
    name: Annotated[str | None, PlainValidator(check_name)] = None

    def __post_init__(self) -> None:
        if isinstance(self.cost, int) and isinstance(self.max_concurrent, int):
            check_cost(self.cost, self.max_concurrent)

    @property
    def strategy(self) -> ConcurrencyStrategy | KeySource:
        """The strategy that `by` stands for."""
        return cast("ConcurrencyStrategy | KeySource", self.by)

    @property
    def resolution(self) -> ConflictResolution:
        """The member that `on_conflict` stands for."""
        return cast(ConflictResolution, self.on_conflict)

    @functools.cached_property
    def terms(self) -> Terms:
        """What this limit asks of the whole hold."""
        return Terms(
            cast("float | None", self.timeout),
            cast(float, self.lease),
            cast("float | None", self.max_hold),
            self.on_lost,
        )

    @functools.cached_property
    def fixed_name(self) -> str | None:
        """The name if it is the same for all calls, else None: see `name_for`."""
        if self.name is not None:
            return self.name
        return None if any(better for _, better in self._name_parts) else self.name_for(None)

    def name_for(self, function_name: str | None) -> str:
        """Return the name for calls of a function, None if that is not known."""
        found = self.known_names.get(function_name)
        if found is None:
            if len(self.known_names) >= _NAMES_KEPT:
                self.known_names.clear()
            found = self.known_names[function_name] = self.name or _short_name(
                (function_name or text) if better else text for text, better in self._name_parts
            )
        return found

    @functools.cached_property
    def _name_parts(self) -> tuple[tuple[str, bool], ...]:
        return name_parts(self.strategy)

    @functools.cached_property
    def known_names(self) -> dict[str | None, str]:
        """The names that `name_for` has found, by function."""
        return {}

    @functools.cached_property
    def fixed(self) -> Fixed | None:
        """All but the key, if no more depends on the call, and the key is known at once."""
        if (
            is_immediate(self.strategy)
            and isinstance(self.max_concurrent, int)
            and isinstance(self.cost, int)
            and self.fair_by is None
            and self.on_conflict is not ConflictResolution.PRIORITY
        ):
            names = argument_names_of(self.strategy)
            return Fixed(
                names[0] if len(names) == 1 else None,
                self.strategy.get_key,
                self.scope,
                self.max_concurrent,
                self.cost,
                self.resolution,
                self.max_waiting,
                self.fixed_name,
                self.name_for,
                self.terms,
                is_constant(self.strategy),
            )
        return None


def _short_name(parts: Iterable[str]) -> str:
    return bounded(printable("&".join(parts)), MAX_NAME_LENGTH)


def _say_it_plainly(validated_init: Callable[..., None]) -> Callable[..., None]:
    """Turn pydantic's report into the package's own error, one line per wrong value."""

    @functools.wraps(validated_init)
    def init(self: ConcurrencyLimit, *args: Any, **kwargs: Any) -> None:
        try:
            validated_init(self, *args, **kwargs)
        except ValidationError as report:
            raise ConfigurationError("\n".join(map(_plain, report.errors()))) from None

    return init


def _plain(error: Any) -> str:
    own = error.get("ctx", {}).get("error")
    if own is not None:
        return str(own)
    name = error["loc"][-1] if error["loc"] else "?"
    allowed = ", ".join(field.name for field in fields(ConcurrencyLimit))
    return f"ConcurrencyLimit has no option {brief(name)} ({error['msg']}); there are: {allowed}"


ConcurrencyLimit.__init__ = _say_it_plainly(ConcurrencyLimit.__init__)  # type: ignore[method-assign]  # the signature stays, only the error changes
