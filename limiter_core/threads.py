"""Threads of the system, and what works between them and green ones.

gevent and eventlet replace threads by greenlets, all in one thread of the system: a body that
computes stops every one of them. So what has to go on meanwhile runs in a thread of the system, and
what both kinds share is made of the system's own locks. Without gevent and eventlet these are
Python's threads.
"""

from __future__ import annotations

import _socket
import _thread
import asyncio
import concurrent.futures
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from typing import Any, TypeVar

import anyio.to_thread

from limiter_core.system_clock import system_clock as time

__all__ = (
    "SystemEvent",
    "SystemThread",
    "WaitEvent",
    "are_green",
    "current_system_thread",
    "new_lock",
    "new_socket_pair",
    "new_system_local",
    "new_wait_event",
    "run_in_thread",
    "socket_owner",
    "start_bare_thread",
)

R = TypeVar("R")

_POLL = 0.005
_MOMENT = 0.001
# What the threads of gevent import at first: two at once would wait for each other's locks.
_IMPORTED_EARLY = ("encodings.idna", "gevent.resolver.thread", "gevent.threadpool")


def _gevent() -> Any:
    """Return gevent's patches, None unless threads are its greenlets, or wait as these do."""
    monkey: Any = sys.modules.get("gevent.monkey")
    is_patched = monkey is not None and any(map(monkey.is_module_patched, ("threading", "socket")))
    return monkey if is_patched else None


def _eventlet() -> Any:
    """Return eventlet's patches, None unless threads are its greenlets, or wait as these do."""
    patcher: Any = sys.modules.get("eventlet.patcher")
    is_patched = patcher is not None and any(map(patcher.is_monkey_patched, ("thread", "socket")))
    return patcher if is_patched else None


def are_green() -> bool:
    """Whether what looks like threads are greenlets, of gevent or eventlet.

    Or whether what waits for a socket in a thread lets its greenlets run: with
    `monkey_patch(thread=False)`.
    """
    return _gevent() is not None or _eventlet() is not None


def _original(name: str) -> Any:
    """Return a function of `_thread` as the system has it."""
    if (gevent := _gevent()) is not None:
        return gevent.get_original("_thread", name)
    if (eventlet := _eventlet()) is not None:
        return getattr(eventlet.original("_thread"), name)
    return getattr(_thread, name)


def current_system_thread() -> int:
    """Return what identifies the caller's thread of the system, also where threads are green."""
    ident: int = _original("get_ident")()
    return ident


class _GreenLock:
    """A lock of the system for greenlets, too.

    The greenlet that has it waits for nothing, but what the garbage collector calls meanwhile may:
    a `__del__` that closes a connection of its own. Then another greenlet of that thread runs, and
    would stop the thread for ever if it waited as a thread does.
    """

    def __init__(self) -> None:
        self._lock = _new_system_lock()

    def __enter__(self) -> bool:
        while not self._lock.acquire(timeout=_MOMENT):
            time.sleep(_MOMENT)
        return True

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _new_system_lock() -> threading.Lock:
    lock: threading.Lock = _original("allocate_lock")()
    return lock


def new_lock() -> AbstractContextManager[bool]:
    """Return a lock that greenlets and threads of the system share, to be held for moments only."""
    return _GreenLock() if are_green() else _new_system_lock()


def new_system_local() -> object:
    """Return an object whose attributes each thread of the system has for itself."""
    new: object = _original("_local")()
    return new


def socket_owner() -> object:
    """Return what identifies the callers that may share a socket: with gevent, a thread's loop."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return None
    hub: object = sys.modules["gevent"].get_hub()
    return hub


def new_socket_pair() -> tuple[Any, Any]:
    """Return two connected sockets of the system: one thread makes them, others use them."""
    make: Any = getattr(_socket, "socketpair", socket.socketpair)  # not in Windows' own module
    ours, theirs = make()
    return ours, theirs


class SystemThread:
    """A thread of the system, whatever threads are. It does not keep the process alive.

    Args:
        target: what it does.
        name: its name.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        self._target = target
        self._name = name
        self._ident: int | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: no thread can begin: there are too many, or the interpreter is ending.
        """
        if sys.is_finalizing():  # before Python 3.12 it would be waited for without end
            raise RuntimeError("no thread can begin: the interpreter is ending")
        if not are_green():
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
            return
        if _gevent() is not None:
            for module in _IMPORTED_EARLY:
                import_module(module)
        _original("start_new_thread")(self._run, ())

    def is_current(self) -> bool:
        """Whether it is the caller's."""
        return self._ident == current_system_thread()

    def is_alive(self) -> bool:
        """Whether it has not yet ended."""
        return not self._ended

    def join(self, seconds: float) -> None:
        """Wait until it has ended, at most so many seconds; meanwhile greenlets run."""
        if self._thread is not None:
            self._thread.join(seconds)
            return
        give_up_at = time.monotonic() + seconds
        while not self._ended and time.monotonic() < give_up_at:
            time.sleep(_POLL)

    def _run(self) -> None:
        self._ident = current_system_thread()
        try:
            self._target()
        finally:
            self._ended = True
            if _gevent() is not None:
                import_module("gevent").get_hub().destroy(destroy_loop=True)


_first_thread = current_system_thread()
"""The thread of the system that imported this: if any, it is the one in which greenlets run."""


def start_bare_thread(target: Callable[[], object]) -> None:
    """Start a thread, or a greenlet where threads are green; for finalizers: it takes no lock.

    In any other thread of the system, be it one of ours or of a pool of the user's, a greenlet may
    never run: there it is another such thread.

    Raises:
        RuntimeError: no thread can begin.
    """
    if are_green() and current_system_thread() != _first_thread:
        SystemThread(target, "limiter-background").start()
    else:
        _thread.start_new_thread(target, ())


class SystemEvent:
    """A flag that threads of the system wait for, and that any thread may set.

    `threading.Event` has a lock that its methods take and give back in Python: an exception that is
    thrown into a thread in between leaves it taken, and the next thread waits for ever. Here
    nothing is taken that another thread needs.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[threading.Lock] = []

    def is_set(self) -> bool:
        """Whether it was set since it was cleared."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake the waiters."""
        self._is_set = True
        for lock in list(self._waiting):
            with suppress(RuntimeError):  # another thread was faster
                lock.release()

    def clear(self) -> None:
        """Wait again from now on."""
        self._is_set = False

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, at most so many seconds if they are given; whether it is."""
        lock = _new_system_lock()
        lock.acquire()
        self._waiting.append(lock)
        if not self._is_set:  # in this order: `set` sets it before it looks for waiters
            lock.acquire(timeout=-1 if seconds is None else max(0.0, seconds))
        self._waiting.remove(lock)
        return self._is_set


class _GreenEvent:
    """A flag that a greenlet waits for, and that any greenlet or thread sets.

    A socket wakes the waiter: the one thing that reaches a greenlet from another thread of the
    system with both gevent and eventlet.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._lock = new_lock()
        self._wake: Any = None

    def set(self) -> None:
        self._is_set = True
        with self._lock:
            if self._wake is not None:
                with suppress(OSError):  # it is full of wake-ups
                    self._wake.send(b"!")

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        ours, theirs = new_socket_pair()
        theirs.setblocking(False)
        waiting = socket.socket(fileno=ours.detach())
        try:
            waiting.settimeout(timeout)
            with self._lock:
                self._wake = theirs
            if not self._is_set:
                with suppress(TimeoutError):
                    waiting.recv(1)
        finally:
            with self._lock:
                self._wake = None
                theirs.close()
            waiting.close()
        return self._is_set


WaitEvent = SystemEvent | _GreenEvent
"""What a thread, of either kind, waits for."""


def new_wait_event() -> WaitEvent:
    """Return a flag that the calling thread or greenlet waits for; any thread may set it."""
    return _GreenEvent() if are_green() else SystemEvent()


async def run_in_thread(function: Callable[[], R]) -> R:
    """Call a function that blocks, in a thread, and return what it returns.

    In one of its own: an event loop's executor may be busy for long, or gone. Where no thread can
    begin, as in an interpreter that is ending, it is called here.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # trio's
        return await anyio.to_thread.run_sync(function)
    done: asyncio.Future[R] = loop.create_future()

    def deliver(outcome: concurrent.futures.Future[R]) -> None:
        if done.cancelled():
            return
        if (error := outcome.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(outcome.result())

    def run() -> None:
        outcome: concurrent.futures.Future[R] = concurrent.futures.Future()
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  (it is the waiter's)
            outcome.set_exception(error)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver, outcome)

    try:
        SystemThread(run, "limiter-command").start()
    except RuntimeError:
        return function()
    return await done
