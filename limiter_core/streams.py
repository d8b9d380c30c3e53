"""For adapters: limits for streams, from the first item to the end, and for clients that may leave.

What is returned is a generator, so Python itself says when it ends: it is exhausted, closed, fails,
is cancelled or collected, in whichever task or thread. See `Limiter.limited` on generators.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import AsyncGeneratorType
from typing import Any, Protocol, TypeVar, cast

from limiter_core._async_calls import Client, ClientGone
from limiter_core._async_engine import AsyncEngine
from limiter_core._async_hold import Hold, run_held
from limiter_core._functions import check_view_names
from limiter_core._prepare import Arguments, Limits, check_limits, the_one_or_all
from limiter_core._streams import GeneratorHold, limited_async_generator, limited_generator
from limiter_core.arguments import ArgumentView
from limiter_core.brief import brief
from limiter_core.errors import ConfigurationError
from limiter_core.lease import Lease
from limiter_core.limiter import Limiter
from limiter_core.sync_limiter import SyncLimiter

__all__ = (
    "Client",
    "ClientGone",
    "RunForClient",
    "check_async_limits",
    "check_sync_limits",
    "hold_for_client",
    "limited_stream",
    "limited_sync_stream",
    "release_at_once",
    "release_soon",
    "runner_for_clients",
)

R = TypeVar("R")
Y = TypeVar("Y")


def check_async_limits(
    limiter: object, limits: Limits, owner: str, arguments: Collection[str] | None = None
) -> Limits:
    """Return the limits as a tuple, or the one limit itself.

    Args:
        limiter: what is to take the slots.
        limits: a limit, or several.
        owner: what gets them, for the error.
        arguments: the names of those that each request has, where no other can come; it has no
            function then.

    Raises:
        ConfigurationError: it is no `Limiter`, these are no limits, or they need an argument or a
            function that no request has.
    """
    if not isinstance(limiter, Limiter):
        raise ConfigurationError(f"{owner} needs a Limiter, got {brief(limiter)}")
    return _checked(limits, owner, arguments)


def check_sync_limits(
    limiter: object, limits: Limits, owner: str, arguments: Collection[str] | None = None
) -> Limits:
    """As `check_async_limits`, for a `SyncLimiter`."""
    if not isinstance(limiter, SyncLimiter):
        raise ConfigurationError(f"{owner} needs a SyncLimiter, got {brief(limiter)}")
    return _checked(limits, owner, arguments)


def _checked(limits: Limits, owner: str, arguments: Collection[str] | None) -> Limits:
    checked = check_limits(limits, owner)
    if arguments is not None:
        check_view_names(checked, arguments)
    return the_one_or_all(checked)


def _engine_of(limiter: Limiter) -> AsyncEngine:
    return limiter._engine  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (adapters get none)


def hold_for_client(
    limiter: Limiter, limits: Limits, arguments: Arguments, client: Client
) -> AbstractAsyncContextManager[Lease]:
    """Hold a slot as `Limiter.hold` does, for a client that may go away while the call waits.

    Raises:
        ClientGone: it did, and the call has left the line.
    """
    return Hold(_engine_of(limiter), limits, arguments, None, client)


class RunForClient(Protocol):
    """What awaits a body while it holds slots, for a client that may go away while the call waits.

    Raises:
        ClientGone: it did, and the call has left the line.
    """

    def __call__(
        self, view: ArgumentView, body: Callable[[Lease], Awaitable[R]], *, client: Client
    ) -> Coroutine[Any, Any, R]:
        """Return a coroutine that does so."""
        ...


def runner_for_clients(limiter: Limiter, limits: Limits, owner: str) -> RunForClient:
    """Return what runs bodies under limits; made once, since each call of it is a step shorter.

    Args, Raises: as `check_async_limits`.
    """
    checked = check_async_limits(limiter, limits, owner)
    return partial(run_held, _engine_of(limiter), checked)


def limited_stream(
    limiter: Limiter,
    limits: Limits,
    arguments: Arguments,
    stream: AsyncGenerator[Y, Any],
    *,
    timeout: float | None = None,
) -> AsyncGeneratorType[Y, Any]:
    """Return a stream with the same items, which holds a slot while it is open.

    The slot is taken before the first item is asked for, and released after `stream.aclose()`.

    Args:
        limiter: what takes the slots.
        limits: a limit, or several.
        arguments: what the strategies look at.
        stream: any object with the methods of an async generator.
        timeout: as for `Limiter.hold`.

    Raises:
        LimitReached, Superseded, StoreUnavailable: from the first item, as `Limiter.hold`.
        LeaseLost: from a later item.
    """
    engine = _engine_of(limiter)

    def begin() -> AsyncGenerator[Y, Any]:
        return stream

    def hold(*_: object) -> Hold:
        return Hold(engine, limits, arguments, timeout)

    return cast("AsyncGeneratorType[Y, Any]", limited_async_generator(begin, hold)())


def limited_sync_stream(
    limiter: SyncLimiter,
    limits: Limits,
    arguments: Arguments,
    stream: Generator[Y, Any, Any],
    *,
    timeout: float | None = None,
) -> Generator[Y, Any, Any]:
    """As `limited_stream`, for threads.

    `stream.close()` may be called by the garbage collector: it must take no lock.
    """
    engine = limiter._engine  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def begin() -> Generator[Y, Any, Any]:
        return stream

    def hold(*_: object) -> GeneratorHold:
        return GeneratorHold(engine, limits, arguments, timeout)

    return limited_generator(begin, hold)()


def release_at_once(lease: Lease) -> bool:
    """Release a lease without waiting, where its store never suspends; whether that was done.

    Else await `lease.release()`, which releases it in any store.
    """
    engine: Any = lease._engine  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (a lease shows none)
    released: bool = engine.release_at_once(lease._call)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (likewise)
    return released


def release_soon(lease: Lease) -> None:
    """Have a lease released without waiting, in any thread, with an event loop or without.

    For a framework whose own release is a plain function. Never raises: if the store cannot be
    reached, the lease ends by itself.
    """
    engine: Any = lease._engine  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (a lease shows none)
    engine.release_soon(lease._call)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (likewise)
