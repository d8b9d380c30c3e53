"""`ConcurrencyLimit` as a dependency of Docket's tasks, and which of them a task has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Container, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self, Unpack, cast

from docket import Cooldown, Debounce, Docket, Execution, RateLimit, Worker
from docket.dependencies import (
    Dependency,
    _Depends,  # pyright: ignore[reportPrivateUsage]
    current_execution,
    current_worker,
    get_annotation_dependencies,
    get_dependency_parameters,
)
from uncalled_for import Provider, current_frame

from limiter_core import ArgumentView, ConcurrencyStrategy, ConfigurationError, Lease
from limiter_core.arguments import binder_of
from limiter_core.jobs import check_argument_names
from limiter_core.limits import ConcurrencyLimit as Limit
from limiter_core.limits import LimitOptions
from limiter_core.registry import open_store
from limiter_core.store import Store
from limiter_core.strategies import KeySource
from limiter_docket._claims import watch_claims
from limiter_docket._gates import gates_of, open_gates
from limiter_docket._hints import check_new_tasks
from limiter_docket._queue import when_of
from limiter_docket._run import TaskRun, runs

_By = str | Sequence[str] | ConcurrencyStrategy | KeySource | None


class ConcurrencyLimit(Dependency["ConcurrencyLimit"], Lease):
    """At most `max_concurrent` of the tasks that share a key run at once, over all workers.

    A default value, or the metadata of an annotation, of a task's parameter, or one of a worker's
    `dependencies`. In the body a parameter with this default is the lease: `id`, `fencing_token`,
    `lost`, `check()`, and `concurrency_key`. Several limits on one task are taken all or none.

    Args:
        by: which tasks share the limit: an argument's name, a list of names, a `LIMIT_BY`
            strategy or an object of your own. None means the annotated parameter, or without one
            the task. A number is taken for `max_concurrent`.
        max_concurrent: slots per key, or a function of the arguments that returns them.
        scope: a sub-namespace for the keys, within the docket.
        argument_name: another name for `by`, as Docket has it.
        store: a store or its URL, in place of the docket's.
        options: all others of `limiter_core.ConcurrencyLimit`.

    Raises:
        ConfigurationError: a value is not allowed; says what was given and what is allowed.
    """

    single = False
    argument_name: str | None
    """The argument by which it limits; None if it limits by several, or by something else."""
    concurrency_key: str
    """The key of this run, as `inspect` and `limiter ls` know it; within a task only."""

    def __init__(
        self,
        by: _By | int = None,
        max_concurrent: int | Callable[[ArgumentView], Any] = 1,
        scope: str | None = None,
        *,
        argument_name: str | None = None,
        store: str | Store | None = None,
        **options: Unpack[LimitOptions],
    ) -> None:
        self.max_concurrent = by if isinstance(by, int) else max_concurrent
        self._by: _By = argument_name if by is None or isinstance(by, int) else by
        self.argument_name = self._by if isinstance(self._by, str) else None
        self.scope = scope
        self.store = None if store is None else open_store(store)
        self.limit = Limit(self._by, self.max_concurrent, scope=scope or None, **options)
        self._options = options
        self._bound: dict[str, ConcurrencyLimit] = {}

    def bind_to_parameter(self, name: str, value: Any) -> ConcurrencyLimit:  # noqa: ARG002
        """Return the limit as the metadata of a parameter; the value is looked up with the rest."""
        if self._by is not None:
            return self
        if name not in self._bound:
            self._bound[name] = ConcurrencyLimit(
                name, self.max_concurrent, self.scope, store=self.store, **self._options
            )
        return self._bound[name]

    async def __aenter__(self) -> Self:
        """Admit the task, by all of its limits at once, or have it wait."""
        execution, worker = current_execution.get(), current_worker.get()
        run = runs.get(execution)
        if run is None:
            gates, frame = gates_of(worker), current_frame()
            if frame.failures:  # a dependency before this one has decided that it does not run
                if not execution.redelivered:  # else it may hold a lease of its first delivery
                    await gates.drop(execution.key, when_of(execution))
                return self
            found = _task_limits(execution, worker, frame.provided)
            gate = await gates.gate(found.store)
            run = TaskRun(self, execution, worker)
            await run.admit(gate, found.limits, _view_of(execution), gates.settings.backstop)
            if not found.has_cleanup:
                run.release_at_completion()
        lease = run.lease
        running = object.__new__(type(self))  # `self` is shared by all calls
        vars(running).update(vars(self), concurrency_key=run.key_of(self.limit))
        running._call, running._engine = lease._call, lease._engine  # noqa: SLF001  (it is one)
        return running

    async def __aexit__(  # type: ignore[override]
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        """Give the slots back when the limit that was entered first is left."""
        run = runs.get(current_execution.get())
        if run is not None and run.owner is self:
            await run.finish(error)

    @classmethod
    @asynccontextmanager
    async def worker_lifecycle(cls, docket: Docket, worker: Worker) -> AsyncGenerator[None, None]:
        """Sweep and watch cancels from before the first task; leave the gate before the last ends.

        Raises:
            ConfigurationError: the limits of a task, or its other dependencies, are not allowed.
        """
        stores: dict[Any, None] = {}
        for function in docket.tasks.values():
            _check_arguments(function)
            stores.update((each.store, None) for each in _limits_of(function, worker)[:1])
        if not stores:
            yield
            return
        gates = gates_of(worker)
        gates.arrive()  # again, if the worker lost its connection meanwhile
        for store in stores:
            await gates.gate(store)
        try:
            yield
        finally:
            await gates.leave()

    def __getattr__(self, name: str) -> Any:
        if name in ("concurrency_key", "_call", "_engine"):
            raise RuntimeError("ConcurrencyLimit not initialized - use within task context")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Return how a limit is made again; a lease is refused, as all are.

        Raises:
            ConfigurationError: it is the lease of a task.
        """
        if "concurrency_key" in vars(self):
            return super().__reduce__()
        return _made_again, (type(self), vars(self))

    def __repr__(self) -> str:
        return f"<{self.limit!r} of a Docket task>"


def _made_again(kind: type[ConcurrencyLimit], attributes: dict[str, Any]) -> ConcurrencyLimit:
    limit = object.__new__(kind)
    vars(limit).update(attributes)
    return limit


class _TaskLimits(NamedTuple):
    """What a task has of limits.

    Attributes:
        function: its function.
        store: that of its limits, None for the docket's.
        limits: the limits of it and its worker.
        has_cleanup: whether something of it may run when its body has ended.
    """

    function: Callable[..., Any]
    store: Store | None
    limits: Sequence[Limit]
    has_cleanup: bool


def _task_limits(execution: Execution, worker: Worker, given: Iterable[str]) -> _TaskLimits:
    """Return what a task has of limits: looked for once, unless one is given as an argument.

    Raises:
        ConfigurationError: as of `_limits_of`.
    """
    function, name = execution.function, execution.function_name
    usual = get_dependency_parameters(function).keys().isdisjoint(given)
    known = gates_of(worker).task_limits
    found: _TaskLimits | None = known.get(name) if usual else None
    if found is None or found.function is not function:
        limits = _limits_of(function, worker, () if usual else tuple(given))
        store, has_cleanup = limits[0].store, _has_cleanup(function, worker)
        found = _TaskLimits(function, store, [each.limit for each in limits], has_cleanup)
        if usual:
            known[name] = found
    return found


def _limits_of(
    function: Callable[..., Any], worker: Worker, given: Container[str] = ()
) -> list[ConcurrencyLimit]:
    """Return the limits of a function and its worker, but not of parameters that are given.

    Raises:
        ConfigurationError: they name several stores, or beside them is a dependency that would
            lose a task while it waits.
    """
    name = getattr(function, "__name__", repr(function))
    of_worker = list(worker.dependencies.values())
    found = _dependencies_of(function, worker, given)
    limits = [each for each in found if isinstance(each, ConcurrencyLimit)]
    if len({each.store for each in limits}) > 1:
        raise ConfigurationError(
            f"{name} has limits in several stores. Those of a task and of its worker are taken "
            "together: give all of them one `store`, or none, for that of the docket"
        )
    for each in found if limits else ():
        rate = isinstance(each, RateLimit)
        if isinstance(each, Cooldown | Debounce) or (rate and (each.drop or each in of_worker)):
            raise ConfigurationError(
                f"{name} has a {type(each).__name__} beside a ConcurrencyLimit: a task that comes "
                "back from waiting counts as another one there, which is dropped, or put off again "
                "and again. Put one of the two on a task that adds the other"
            )
    return limits


def _dependencies_of(
    function: Callable[..., Any], worker: Worker, given: Container[str] = ()
) -> list[Any]:
    """Return the dependencies of a function and its worker, but not of parameters that are given.

    With the dependencies of these.
    """
    of_worker = list(worker.dependencies.values())
    parameters = get_dependency_parameters(function).items()
    found = list(_flattened(of_worker + [each for name, each in parameters if name not in given]))
    for name, metadata in get_annotation_dependencies(function).items():
        found += [each.bind_to_parameter(name, None) for each in metadata]
    return found


def _has_cleanup(function: Callable[..., Any], worker: Worker) -> bool:
    """Whether something of a task may run when its body has ended: a dependency that is left.

    Of Docket's own it is known which do nothing then; those of others may always do something.
    """
    does_nothing: Any = vars(Dependency)["__aexit__"]
    return any(
        isinstance(each, Provider)
        or not type(each).__module__.startswith("docket.")
        or cast(Any, type(each)).__aexit__ is not does_nothing
        for each in _dependencies_of(function, worker)
        if not isinstance(each, ConcurrencyLimit)
    )


def _check_arguments(function: Callable[..., Any]) -> None:
    """Refuse limits of a function's own that need an argument which it does not have.

    (The limits of a worker apply to all functions, which may have different arguments.)

    Raises:
        ConfigurationError: there is such a limit; says which arguments there are.
    """
    parameters = get_dependency_parameters(function)
    found = list(_flattened(parameters.values()))
    for name, metadata in get_annotation_dependencies(function).items():
        found += [each.bind_to_parameter(name, None) for each in metadata]
    limits = [each.limit for each in found if isinstance(each, ConcurrencyLimit)]
    check_argument_names(limits, function, hidden=parameters)


def _view_of(execution: Execution) -> ArgumentView:
    """Return the arguments of a task, defaults included, dependencies left out."""
    bound = binder_of(execution.function)(execution.args, execution.kwargs)
    arguments = {name: bound[name] for name in bound if not isinstance(bound[name], Dependency)}
    return ArgumentView(arguments, execution.function_name)


def _flattened(dependencies: Iterable[Any]) -> Iterator[Any]:
    """Return dependencies, and the dependencies of these."""
    for each in dependencies:
        yield each
        if isinstance(each, _Depends):
            depends = cast(Any, each)
            own = {**get_dependency_parameters(depends.factory), **depends.bindings}
            yield from _flattened(own.values())


def _leave_line(execution: Execution, worker_name: str) -> None:
    """Drop the ticket of a task that waited, and whose function has no limit here."""
    for worker, gates in list(open_gates.items()):
        if worker.name == worker_name and gates.docket is execution.docket:
            found = _dependencies_of(execution.function, worker)
            if not any(isinstance(each, ConcurrencyLimit) for each in found):
                gates.background.begin(gates.drop(execution.key, when_of(execution)))


check_new_tasks(ConcurrencyLimit)
watch_claims(_leave_line)
