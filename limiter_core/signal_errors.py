"""Exceptions that a signal handler raises: no failure of the code in which it happened to be.

A soft time limit, as Celery's, is such an exception, and so is the `TimeoutError` of a handler of
`SIGALRM`. Code that logs what an observer raises and goes on, or tries a server again that is away,
would lose it: the code that was to be interrupted would run for ever.
"""

from __future__ import annotations

import signal
import sys

__all__ = ("is_of_signal", "reraise_if_of_signal")


def reraise_if_of_signal() -> None:
    """Raise the exception that is being handled, if a signal handler raised it."""
    error = sys.exception()
    if error is not None and is_of_signal(error):
        raise error


def is_of_signal(error: BaseException) -> bool:
    """Whether a signal handler of this process is among the functions of a traceback."""
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False


def _code_of(handler: object) -> object:
    """Return the code of a function, a method, a partial one, or an object that can be called."""
    if not callable(handler):  # `signal.SIG_DFL`: a call of its class makes any enum's member
        return None
    function = getattr(handler, "func", handler)
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    return getattr(type(function).__call__, "__code__", None) if code is None else code
