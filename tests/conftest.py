"""What all tests share: how they run side by side, and signals as they are in a terminal.

`make test` starts more workers of pytest-xdist than there are cores, since most tests wait for
processes. A worker has servers of its own. Tests that share what a fixture made for their module
stay together; any other test goes to the next worker that is free, the longest first. A test that
is marked `alone` waits until no other test runs, whichever worker or suite of this checkout it is
in, and no other begins before it has ended.
"""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

try:
    import fcntl
except ImportError:  # Windows: there the tests run one after the other
    fcntl = None

HERE = Path(__file__).parent

# arq is made for redis-py 5. `make test` runs these, and those of the Redis store once more, in an
# environment of their own that has it.
collect_ignore = [
    folder
    for folder, package in (("arq", "arq"), ("saq", "saq"))
    if int(redis.__version__.split(".")[0]) > 5 or importlib.util.find_spec(package) is None
]

# Those that take long, so that the workers end at about the same time.
FIRST = ("celery_", "docket", "arq", "saq", "faults", "redis", "cli", "project", "stores", "core")
LAST = "redis/test_contract.py"


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a shell does to a job in the background: it starts it with signals ignored.

    Processes that the tests start inherit that, and would ignore the signals that tests send.
    """
    config.addinivalue_line("markers", "alone: runs while no other test does")
    for name, handler in (
        ("SIGINT", signal.default_int_handler),
        ("SIGQUIT", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    ):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker of pytest-xdist: keep together what belongs together, and sort."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if group := group_of(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=turn_of)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep tests that have to be alone apart from all others; its timeout does not begin before."""
    with running(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def group_of(item: pytest.Item) -> str:
    """Return the name of the group that a test has to stay in, an empty text if it has none.

    Tests that use a fixture of module scope share it, for each of its parameters.
    """
    definitions = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    parameters = getattr(getattr(item, "callspec", None), "indices", {})
    shared = [
        f"{name}{parameters.get(name, '')}"
        for name, found in sorted(definitions.items())
        if found[-1].scope == "module" and found[-1].baseid  # not a plugin's
    ]
    return "-".join([item.path.stem, *shared]) if shared else ""


def turn_of(item: pytest.Item) -> tuple[bool, bool, bool, int]:
    """Return what the tests are sorted by: groups first, those that are alone last."""
    path = item.path.relative_to(HERE).as_posix()
    folder = path.partition("/")[0]
    alone = item.get_closest_marker("alone") is not None
    grouped = item.get_closest_marker("xdist_group") is not None
    return alone, not grouped, path == LAST, FIRST.index(folder) if folder in FIRST else 0


@contextmanager
def running(*, alone: bool) -> Generator[None]:
    """Take the lock that all running tests share, or have it exclusively."""
    if fcntl is None:
        yield
        return
    # Who waits to be alone keeps the first lock, so that nobody begins before him.
    with Path(__file__).open() as lock, (HERE.parent / "pyproject.toml").open() as entrance:
        fcntl.flock(entrance, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(entrance, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
