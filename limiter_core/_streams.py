"""Functions that yield, under a limit: the slot is held from the first item to the end.

The end may come anywhere: the generator is exhausted, closed, left by a `break`, cancelled, closed
in another task, or collected. Of an async generator that was left open Python tells its event loop,
which closes it in a task of its own. A plain generator is closed by the garbage collector in the
middle of any code of its thread, perhaps a step of a store that has a lock: its slot is then
released by a thread of the background.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any

from limiter_core._async_hold import Hold
from limiter_core._blocks import noting_statements
from limiter_core._sync_hold import Hold as SyncHold


def limited_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]],
    hold: Callable[[tuple[Any, ...], dict[str, Any]], Hold],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function whose generators hold slots.

    Args:
        function: an async generator function.
        hold: returns what takes the slots of a call, from its positional and named arguments.
    """

    @functools.wraps(function)
    async def limited_function(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        held = hold(args, kwargs)
        async with held:
            held.begin_stream()
            stream = function(*args, **kwargs)
            try:
                item = await _first_item(stream)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001  (it is raised in the function)
                        item = await stream.athrow(error)
                    else:
                        held.check()
                        item = await stream.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await stream.aclose()

    return limited_function


def _first_item(stream: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Ask for the first item, without the event loop noting this generator.

    The loop would close it at the same time as the one around, which does so itself: one of the two
    would fail, and the slot be released while the code still cleans up.
    """
    firstiter, finalizer = sys.get_asyncgen_hooks()
    try:
        sys.set_asyncgen_hooks(None, _leave_alone)
        return stream.__anext__()
    finally:
        sys.set_asyncgen_hooks(firstiter, finalizer)


def _leave_alone(stream: AsyncGenerator[Any, Any]) -> None:
    """Finalize a generator that is closed by the one around."""


def limited_generator(
    function: Callable[..., Generator[Any, Any, Any]],
    hold: Callable[[tuple[Any, ...], dict[str, Any]], GeneratorHold],
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return a function whose generators hold slots.

    Args:
        function: a generator function.
        hold: returns what takes the slots of a call, from its positional and named arguments.
    """

    @functools.wraps(function)
    def limited_function(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        held = hold(args, kwargs)
        generator = _holding(held, lambda: function(*args, **kwargs))
        held.generator = weakref.ref(generator)
        return generator

    return limited_function


def _holding(
    held: GeneratorHold, begin: Callable[[], Generator[Any, Any, Any]]
) -> Generator[Any, Any, Any]:
    with held:
        stream = begin()
        try:
            item = next(stream)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  (it is raised in the function)
                    item = stream.throw(error)
                else:
                    held.check()
                    item = stream.send(sent)
        except StopIteration as stopped:
            return stopped.value
        finally:
            stream.close()


class GeneratorHold(SyncHold):
    """A hold that a generator may leave while it is collected.

    Attributes:
        generator: the generator. Python clears the references to what it collects before it
            finalizes it, so an empty one says that the code runs in a finalizer.
    """

    __slots__ = ("generator",)

    generator: weakref.ref[Generator[Any, Any, Any]]

    @noting_statements
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            call = self._call
            if call is not None and self.generator() is None:
                self._engine.release_later(call)
            else:
                super().__exit__(kind, error, traceback)
        except BaseException:
            # Also where the code runs in a finalizer: it takes no lock.
            if self._call is not None and not self._call.settled:
                self._engine.release_later(self._call)
            raise
