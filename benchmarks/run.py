"""The benchmarks: run every theme, and print its tables.

    make bench                        all of them
    make bench ARGS=--quick           a tenth of the work
    make bench ARGS="--only scale"    one theme

A theme is a module with `tables(settings)` that is named in `THEMES`. A theme that needs a server
(Redis) or a framework has a module of its own, and reports if this is missing, instead of failing.
A missed bar is reported and is not a failure: timings are noisy, tests are not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Callable

import asgi
import docket_limits
import in_process
import redis_scale
import redis_store
import scale
import telemetry
from harness import Settings, Table

THEMES: dict[str, Callable[[Settings], list[Table]]] = {
    "in_process": in_process.tables,
    "scale": scale.tables,
    "redis_store": redis_store.tables,
    "redis_scale": redis_scale.tables,
    "docket": docket_limits.tables,
    "telemetry": telemetry.tables,
    "asgi": asgi.tables,
}

PEERS = (
    "anyio",
    "trio",
    "aiolimiter",
    "redis",
    "hiredis",
    "self-limiters",
    "dramatiq",
    "pydocket",
    "opentelemetry-sdk",
    "starlette",
)


def main() -> None:
    """Run the themes that the command line names."""
    options = argparse.ArgumentParser(description="Measure speed and memory, compared with peers.")
    options.add_argument("--quick", action="store_true", help="a tenth of the work")
    options.add_argument("--only", choices=sorted(THEMES), help="one theme")
    chosen = options.parse_args()

    versions = ", ".join(f"{peer} {_version(peer)}" for peer in PEERS)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {versions}, {os.cpu_count()} CPUs\n")

    missed = 0
    for name, theme in THEMES.items():
        if chosen.only in (None, name):
            for table in theme(Settings(quick=chosen.quick)):
                print(table, end="\n\n", flush=True)
                missed += table.missed()
    print("All bars met." if not missed else f"Bars missed: {missed}.")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


if __name__ == "__main__":
    main()
