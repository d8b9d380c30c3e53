"""What all tests share: how they run side by side, and signals as they are in a terminal.

`make test` starts more workers of pytest-xdist than there are cores, since most tests wait for
processes. A worker has servers of its own. The tests of a file in `TOGETHER` stay in one worker,
any other goes to the next that is free, the longest first. A test that is marked `alone` waits
until no other test runs, whichever worker or suite of this checkout it is in, and no other begins
before it has ended.
"""

from __future__ import annotations

import importlib.util
import re
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
import redis

try:
    import fcntl
except ImportError:  # Windows: there the tests run one after the other
    fcntl = None

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(" at 0x[0-9a-f]+")

# arq is made for redis-py 5. `make test` runs these, and those of the Redis store once more, in an
# environment of their own that has it.
collect_ignore = [
    folder
    for folder, package in (("arq", "arq"), ("saq", "saq"))
    if int(redis.__version__.split(".")[0]) > 5 or importlib.util.find_spec(package) is None
]

# Their tests share what a fixture made for their file, which takes long to make.
TOGETHER = {
    "tests/celery_/test_endings.py",
    "tests/celery_/test_rabbitmq.py",
    "tests/celery_/test_routing.py",
    "tests/celery_/test_waiting.py",
    "tests/docket/test_places.py",
    "tests/project/test_examples.py",  # no fixture: a port
    "tests/redis/test_cluster.py",
    "tests/redis/test_foreign_clients.py",
    "tests/redis/test_min_replicas.py",
    "tests/redis/test_one_store_or_two.py",
    "tests/redis/test_own_tag.py",
    "tests/redis/test_reshaping.py",
    "tests/redis/test_sentinel.py",
    "tests/redis/test_tls.py",
}

# Then those that take long, so that the workers end at about the same time.
FIRST = ("celery_", "docket", "arq", "saq", "faults", "redis", "cli", "project", "stores", "core")
LAST = "tests/redis/test_contract.py"


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a shell does to a job in the background: it starts it with signals ignored.

    Processes that the tests start inherit that, and would ignore the signals that tests send.
    """
    config.addinivalue_line("markers", "alone: runs while no other test does")
    # How long an example takes says how busy the machine is.
    hypothesis.settings.register_profile("limiter", deadline=None)
    hypothesis.settings.load_profile("limiter")
    for name, handler in (
        ("SIGINT", signal.default_int_handler),
        ("SIGQUIT", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    ):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Leave addresses out of a test's id: workers have to agree on the ids."""
    return ADDRESS.sub("", val) if isinstance(val, str) and ADDRESS.search(val) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests of a worker of pytest-xdist; it is in this order that they are given out."""
    for item in items:
        if ADDRESS.search(item.nodeid):
            raise pytest.UsageError(
                f"{item.nodeid}: give it an id that is the same in each process"
            )
    if hasattr(config, "workerinput"):
        items.sort(key=turn_of)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give out the tests of `TOGETHER` by file, all others one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def turn_of(item: pytest.Item) -> tuple[bool, bool, bool, int]:
    """Return what the tests are sorted by."""
    path = item.path.relative_to(ROOT).as_posix()
    folder = path.split("/")[1]
    alone = item.get_closest_marker("alone") is not None
    turn = FIRST.index(folder) if folder in FIRST else 0
    return alone, path not in TOGETHER, path == LAST, turn


@contextmanager
def running(*, alone: bool) -> Generator[None]:
    """Take the lock that all running tests share, or have it exclusively."""
    if fcntl is None:
        yield
        return
    # Who waits to be alone keeps the first lock, so that nobody begins before him.
    with Path(__file__).open() as lock, (ROOT / "pyproject.toml").open() as entrance:
        fcntl.flock(entrance, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(entrance, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
