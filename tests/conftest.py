"""What all tests share: how they run side by side, that each ends, and signals as in a terminal.

`make test` starts more workers of pytest-xdist than there are cores, since most tests wait for
processes. A worker has servers of its own. The tests of a file in `TOGETHER` stay in one worker,
any other goes to the next that is free. On Linux the workers are forked, once the tests are
collected (`_forked_workers.py`).
"""

from __future__ import annotations

import faulthandler
import gc
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import redis

if TYPE_CHECKING:
    from tests.redis._servers import Process

# Byte code is kept, whatever the environment says: else each process would compile the project,
# and each worker the tests, anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The system trusts one authority, which signs nothing. To read the hundred and more of a machine
# takes 20 ms for each TLS context, and clients of HTTP and Redis make hundreds. Nor is it another
# file that the environment names: no test trusts anybody outside.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "authority.pem")

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(" at 0x[0-9a-f]+")

# arq is made for redis-py 5. `make test` runs these, and those of the Redis store once more, in an
# environment of their own that has it.
collect_ignore = [
    folder
    for folder, package in (("arq", "arq"), ("saq", "saq"))
    if int(redis.__version__.split(".")[0]) > 5 or importlib.util.find_spec(package) is None
]
# The environment of arq and SAQ has no HTTP clients, and only .venv has the SDK of OpenAI.
if any(importlib.util.find_spec(package) is None for package in ("aiohttp", "httpx", "httpx2")):
    collect_ignore.append("http_clients")
if importlib.util.find_spec("axe_playwright_python") is None:
    collect_ignore.append("web")
if importlib.util.find_spec("pydantic_ai") is None:
    collect_ignore.append("agents")
if importlib.util.find_spec("prefect") is None:  # it has an environment of its own
    collect_ignore.append("project/test_prefect.py")
if importlib.util.find_spec("fastmcp") is None:  # it has an environment of its own
    collect_ignore.append("fastmcp_")
if importlib.util.find_spec("openai") is None:
    collect_ignore.append("http_clients/test_openai.py")

# Their tests share what a fixture made for their file, which takes long to make.
TOGETHER = {
    "tests/celery_/test_lost_slots.py",
    "tests/celery_/test_outcomes.py",
    "tests/celery_/test_rabbitmq.py",
    "tests/celery_/test_revokes.py",
    "tests/celery_/test_routing.py",
    "tests/celery_/test_stops.py",
    "tests/celery_/test_waiting.py",
    "tests/docket/test_servers.py",
    "tests/project/test_architecture.py",  # no fixture: what it reads
    "tests/project/test_examples.py",  # no fixture: a port
    "tests/redis/test_cluster.py",
    "tests/redis/test_foreign_clients.py",
    "tests/redis/test_min_replicas.py",
    "tests/redis/test_one_store_or_two.py",
    "tests/redis/test_own_tag.py",
    "tests/redis/test_resharding.py",
    "tests/redis/test_sentinel.py",
    "tests/redis/test_tls.py",
}

ALSO_TOGETHER = {"tests/celery_/test_routing.py": "tests/celery_/test_rabbitmq.py"}
"""Files of `TOGETHER` whose tests share what was made for those of another."""

GRACE = 60
"""Seconds after a test's time limit at which the process that runs it is ended."""

STANDARD_ERROR = pytest.StashKey[int]()

LAST = "tests/redis/test_contract.py"
"""Many short tests: so the workers end at about the same time."""


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a shell does to a job in the background: it starts it with signals ignored.

    Processes that the tests start inherit that, and would ignore the signals that tests send.
    """
    config.stash[STANDARD_ERROR] = os.dup(2)  # pytest does not capture yet
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
    """Skip what takes long, unless it is asked for; sort the tests of a worker of pytest-xdist.

    It is in this order that they are given out. What is exhaustive has more time than other tests.
    """
    run_slow = os.environ.get("LIMITER_SLOW_TESTS") == "1" or "slow" in config.option.markexpr
    skip = pytest.mark.skip(reason="slow: run it with LIMITER_SLOW_TESTS=1, or with -m slow")
    for item in items:
        if not run_slow and item.get_closest_marker("slow"):
            item.add_marker(skip)
        if item.get_closest_marker("exhaustive") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
        if ADDRESS.search(item.nodeid):
            raise pytest.UsageError(
                f"{item.nodeid}: give it an id that is the same in each process"
            )
    if hasattr(config, "workerinput"):
        items[:] = in_turn(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage meanwhile: nearly all that is made stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Leave what was imported and collected to no collector: each full collection looks at all."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Have the tests collected once for all workers; look for garbage less often in this process.

    It keeps each report to the end: each full collection would look at all of them.
    """
    gc.freeze()
    gc.set_threshold(100_000, 10, 1000)
    if sys.platform == "linux":
        from tests._forked_workers import fork_workers

        fork_workers(config, specs)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give out the tests of `TOGETHER` by file, all others one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return ALSO_TOGETHER.get(file, file) if file in TOGETHER else nodeid

        def _reschedule(self, node: Any) -> None:
            # A worker runs a test when it has the next one, or knows that there is none.
            # pytest-xdist gives one at a time: too little for a worker that replaces another.
            if node not in self.registered_collections:
                return  # it replaces another, and is still collecting: it gets its tests then
            given = -1
            while not node.shutting_down and given != (given := len(self.assigned_work[node])):
                super()._reschedule(node)

        def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
            # As pytest-xdist does, but what is done is forgotten: it goes through all that a worker
            # was ever given, after each test.
            test = self.registered_collections[node][item_index]
            scope, units = self._split_scope(test), self.assigned_work[node]
            units[scope][test] = True
            if all(units[scope].values()):
                del units[scope]
            self._reschedule(node)

        def remove_node(self, node: Any) -> str | None:
            # As pytest-xdist does, but the test that ended its worker is not given out again.
            units = self.assigned_work.pop(node)
            left = {
                scope: [test for test in units[scope] if not units[scope][test]] for scope in units
            }
            ended_it = next((test for tests in left.values() for test in tests), None)
            for scope, tests in left.items():
                if again := {test: False for test in tests if test != ended_it}:
                    self.workqueue[scope] = again
            for other in self.assigned_work:
                self._reschedule(other)
            return ended_it

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def in_turn(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which they are given out.

    Tests of one file wait for the same, or compute alike. So those of each file are spread evenly:
    at any time some wait and some compute, and the cores have something to do. The files that stay
    together take long, and come in the first half.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path.relative_to(ROOT).as_posix(), []).append(item)
    last = files.pop(LAST, [])
    together = [file for file in files if file in TOGETHER]
    placed: list[tuple[float, pytest.Item]] = []
    for file, tests in files.items():
        for number, item in enumerate(tests):
            if file in TOGETHER:
                placed.append((together.index(file) / len(together) / 2, item))
            else:
                placed.append(((number + 0.5) / len(tests), item))
    placed.sort(key=lambda each: each[0])
    return [*(item for _, item in placed), *last]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Bound a test."""
    must_end(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Bound the end of a test that has failed: pytest has just ended the bound of `must_end`."""
    if isinstance(node, pytest.Item):
        must_end(node)


def must_end(item: pytest.Item) -> None:
    """End this process, and print where each thread stands, if a test never ends.

    pytest-timeout raises once in a test, and never after the test has failed: a body that swallows
    that, or an end that waits for what a failed test left, would hold up the suite for ever. The
    others go on in a new worker, and the test is named as the one that ended its worker.
    """
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker and marker.args else item.config.getini("timeout"))
    faulthandler.dump_traceback_later(
        seconds + GRACE, exit=True, file=item.config.stash[STANDARD_ERROR]
    )


@pytest.fixture
def own_server() -> Iterator[Process]:
    """A server that one test may mistreat."""
    from tests.redis._servers import Process, server_program  # with byte code, as said above

    server = Process(server_program())
    yield server
    server.close()
