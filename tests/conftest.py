"""What all tests share: signals as a terminal's user would have them."""

from __future__ import annotations

import importlib.util
import signal

import redis

# arq is made for redis-py 5. `make test` runs these, and those of the Redis store once more, in an
# environment of their own that has it.
collect_ignore = [
    folder
    for folder, package in (("arq", "arq"), ("saq", "saq"))
    if int(redis.__version__.split(".")[0]) > 5 or importlib.util.find_spec(package) is None
]


def pytest_configure() -> None:
    """Undo what a shell does to a job in the background: it starts it with signals ignored.

    Processes that the tests start inherit that, and would ignore the signals that tests send.
    """
    for name, handler in (
        ("SIGINT", signal.default_int_handler),
        ("SIGQUIT", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    ):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
