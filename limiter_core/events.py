"""Events: what happens to calls and jobs, for metrics, traces and logs of your own.

    import limiter_core

    def observer(event: limiter_core.events.Event) -> None:
        if isinstance(event, limiter_core.events.Granted):
            waits.observe(event.waited)

    remove = limiter_core.observe(observer)  # all limiters and job queues of this process
    limiter = limiter_core.Limiter(url, observe=observer)  # those of one limiter

Each call, and each attempt of a job over all workers, has exactly one *outcome*: `Granted`,
`Refused`, `Cancelled`, `Failed` or `AdmittedWithoutStore`. Each `Granted` has exactly one *end*,
`Released` or `Lost`, in the process that held the slots. A process that is killed sends neither.
A job that its queue delivers again, since its worker ended or its lease was lost while its body
ran, is another attempt here.

An observer is called where the event happens, in the event loop or the thread of the call, and
must be quick. What it raises is logged once, and not passed on, unless a signal handler raised it.
Calls that it makes itself, and those of tasks that it begins, send no events. A loss that the store
reports is sent in the event loop of the holder; for a thread, in a thread of the background.

An object for an event costs as much as a tenth of a call. So an observer that counts may have
methods beside `__call__`, see `CountingObserver`: then it gets no `Released`, no `Granted` of a
call that did not wait, and the events of a wait only where it asks for them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from limiter_core._observers import CountingObserver, add_observer
from limiter_core.requests import Loss
from limiter_core.system_clock import system_clock

__all__ = (
    "AdmittedWithoutStore",
    "Cancelled",
    "CountingObserver",
    "Event",
    "Failed",
    "Granted",
    "Lost",
    "Observer",
    "Preempted",
    "Queued",
    "Refused",
    "RefusedReason",
    "Released",
    "StoreFailed",
    "StoreRecovered",
    "WaitingForEachOther",
    "observe",
)


class RefusedReason(enum.StrEnum):
    """Why a call or a job was refused."""

    FULL = "full"
    """The key was full, and the call may not wait (`CANCEL`, `try_acquire`)."""
    QUEUE_FULL = "queue_full"
    """`max_waiting` others waited already."""
    TIMEOUT = "timeout"
    """The `timeout` was over before a slot was free."""
    SUPERSEDED = "superseded"
    """A newer call took its place."""
    EVICTED = "evicted"
    """An operator ended the waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have; empty where an event is about a store.

    Attributes:
        id: the id of the request, and then of the lease (`lease.id`); of a job, its ticket.
        names: the names of the limits, in their order; at most 100 different ones per process,
            the rest is `other`.
        keys: their keys; empty if they could not be derived.
        function: the full name of the function, None where a `hold` was given bare arguments.
        cost: slots of each key; the highest, where the limits differ.
        costs: slots of each key, in the order of the keys.
        adapter: the framework that runs the job or call (`docket`, `asgi`, ...), None without one.
        is_job: whether it is a job of a queue: it waits in the store, and not in a process.
        label: as in `inspect`: what names the caller there.
        time: when it happened, in seconds since the epoch.
    """

    id: str = ""
    names: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    function: str | None = None
    cost: int = 0
    costs: tuple[int, ...] = ()
    adapter: str | None = None
    is_job: bool = False
    label: str = ""
    time: float = field(default_factory=system_clock.time)


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Queued(Event):
    """A call waits from now on; sent once per call. A job sends it each time that it is parked.

    A call that may not wait (`CANCEL`, `try_acquire`, `timeout=0`) sends none.

    If an exception is thrown in while the outcome of a call is sent, as by a signal handler, that
    may be missing. An observer that counts the calls that wait can keep a weak reference to this
    event: it lives until the outcome was sent, and no longer than the call.

    Attributes:
        key: the key in whose queue it waits.
        max_concurrent: the limit in force there, 0 while the key is paused.
        in_use: the slots in use there.
        blocker: the trace context of the oldest holder, as a W3C `traceparent`; empty if that
            has none, or this process traces nothing.
    """

    key: str
    max_concurrent: int
    in_use: int
    blocker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted(Event):
    """The slots are the caller's.

    Attributes:
        waited: seconds that it waited; 0 if the slots were free at once.
    """

    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """The call or job is not to run.

    Attributes:
        reason: why.
        waited: seconds that it waited before.
    """

    reason: RefusedReason
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Event):
    """The caller left before it had an answer: it was cancelled, or interrupted by an exception.

    Attributes:
        waited: seconds that it waited before.
    """

    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """There is no answer: the store failed, a key could not be derived, the limiter was closed.

    Attributes:
        error: what was raised.
        waited: seconds that it waited before.
    """

    error: BaseException
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedWithoutStore(Event):
    """The call runs without a slot, since the store is unavailable (`on_store_error="admit"`).

    Attributes:
        waited: seconds that it waited before.
    """

    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempted(Event):
    """A newer call asked for the slot (`CANCEL_RUNNING`). It is held until `Released` or `Lost`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Event):
    """The holder released its slots.

    Attributes:
        held: seconds since the grant.
    """

    held: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Event):
    """The slots are gone, while the holder had not released them.

    Attributes:
        reason: why; None if the lease object was collected unreleased, so that it ends by itself.
        held: seconds since the grant.
    """

    reason: Loss | None
    held: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed(Event):
    """A store cannot be used; sent once per outage in each process.

    So it is if a single node of a cluster is away: the outage lasts until what could not be asked
    for is answered, or nothing has failed for fifteen seconds.

    Attributes:
        store: names it, without its password.
        error: the failure that was noticed first.
    """

    store: str
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecovered(Event):
    """A store can be used again.

    Attributes:
        store: names it, without its password.
        outage: seconds since `StoreFailed`.
    """

    store: str
    outage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForEachOther(Event):
    """Calls wait for slots that they keep from each other; none of them will go on by itself.

    Attributes:
        ring: the labels of the holders, each of which waits for the next, the last for the first.
        ring_keys: the key for which each of them waits.
    """

    ring: tuple[str, ...]
    ring_keys: tuple[str, ...]


Observer = Callable[[Event], object]
"""Called with each event. What it returns is not looked at."""


def observe(observer: Observer) -> Callable[[], None]:
    """Call a function with each event of this process: of all limiters, and of all job queues.

    Those that adapters make are included. Calls that began before send it nothing. One that is
    added twice, or observes a limiter as well, is called once with each event.

    Args:
        observer: takes an `Event`; see the top of this module for when it is called.

    Returns:
        A function that removes it again. Calling it twice does nothing.

    Raises:
        ConfigurationError: it cannot be called, or is a coroutine function.
    """
    return add_observer(observer)
